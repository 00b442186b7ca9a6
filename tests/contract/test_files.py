"""The user's files and the object store, on a real disk."""

from __future__ import annotations

import asyncio
import gzip
import sys
from pathlib import Path

import pytest

from ratchet.adapters.files import LocalFiles
from ratchet.adapters.harness import HarnessTasks
from ratchet.adapters.objects import ObstoreObjects
from ratchet.core.data import Rows
from ratchet.core.errors import NotFound, Rejected, Unavailable
from ratchet.core.suite import Suite, suite_of
from ratchet.harness import Harness

ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
SUITE = "suite: s\nitems: items.jsonl\ncheck: exact\nmax_tokens: 4\n"
TASK = "suite: s\ncheck: lm_eval\nlm_eval: {task: t}\nmax_tokens: 4\n"


def test_globs_find_files_in_order_and_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(ROW)
    (tmp_path / "a.jsonl").write_text(ROW + "{\n")

    rows = asyncio.run(LocalFiles().rows(tmp_path, ["*.jsonl"]))

    assert [row.place for row in rows.good] == ["a.jsonl:1", "b.jsonl:1"]
    assert [bad.place for bad in rows.bad] == ["a.jsonl:2"]
    with pytest.raises(Rejected, match=r"x\.jsonl matches no file"):
        asyncio.run(LocalFiles().rows(tmp_path, ["x.jsonl"]))
    with pytest.raises(Rejected, match=r"gopher://b/x\.jsonl cannot be read"):
        asyncio.run(LocalFiles().rows(tmp_path, ["gopher://b/x.jsonl"]))


def test_packed_files_marks_at_the_start_and_odd_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(ROW.encode()))
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + ROW.replace("\n", "\r\n").encode())
    (tmp_path / "c.jsonl").write_text(ROW.replace('"a"', '"one\u2028two"'), encoding="utf-8")

    rows = asyncio.run(LocalFiles().rows(tmp_path, ["a*", "b*", "c*"]))

    assert len(rows.good) == 3
    assert rows.bad == ()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", ROW.encode() + b"\xff", r"a\.jsonl:2: found a byte that is no UTF-8"),
        ("a.jsonl.gz", b"no gzip", r"a\.jsonl\.gz: cannot be unpacked"),
        ("a.jsonl.gz", gzip.compress(ROW.encode(), mtime=0)[:-6], "cannot be unpacked"),
    ],
    ids=["a byte that is no UTF-8", "no gzip", "cut short"],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(Rejected, match=says):
        asyncio.run(LocalFiles().rows(tmp_path, ["*"]))


def test_a_store_is_read_by_its_url(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.jsonl").write_text(ROW)
    (tmp_path / "in" / "c.txt").write_text(ROW)

    rows = asyncio.run(LocalFiles().rows(tmp_path, [f"file://{tmp_path}/in/*.jsonl"]))

    assert [row.place for row in rows.good] == [f"file://{tmp_path}/in/b.jsonl:1"]
    with pytest.raises(Rejected, match="matches no object"):
        asyncio.run(LocalFiles().rows(tmp_path, [f"file://{tmp_path}/in/*.csv"]))


def test_paths_above_the_folder_and_absolute_ones_work(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ROW)
    (tmp_path / "inner").mkdir()

    for pattern in ("../a.jsonl", str(tmp_path / "a.jsonl")):
        assert len(asyncio.run(LocalFiles().rows(tmp_path / "inner", [pattern])).good) == 1


def test_a_suite_is_named_by_what_it_asks(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(ROW)
    (tmp_path / "s.yaml").write_text(SUITE)
    (tmp_path / "t.yaml").write_text(SUITE.replace("exact", "contains"))

    async def read(name: str) -> Suite:
        file = await LocalFiles().suite(tmp_path, name)
        return suite_of(file, await LocalFiles().rows(tmp_path, [file.items]))

    one, other = asyncio.run(read("s.yaml")), asyncio.run(read("t.yaml"))

    assert (one.name, one.check, len(one.rows.good)) == ("s", "exact", 1)
    assert one.digest != other.digest


def test_a_suite_may_ask_what_was_kept_from_training(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SUITE.replace("items.jsonl", "held_out"))

    assert asyncio.run(LocalFiles().suite(tmp_path, "s.yaml")).items == "held_out"


def test_another_program_is_another_suite(tmp_path: Path) -> None:
    text = SUITE.replace("exact", "python") + "code: grade.py\n"
    (tmp_path / "s.yaml").write_text(text)
    digests = set()
    for score in (0.0, 1.0):
        (tmp_path / "grade.py").write_text(
            f"def score(answer, expected, row):\n    return {score}\n"
        )
        file = asyncio.run(LocalFiles().suite(tmp_path, "s.yaml"))
        suite = suite_of(file, Rows((), ()))
        digests.add(suite.digest)
        assert suite.to_json()["code"] == file.code

    assert len(digests) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1", "expected the keys"),
        ("suite: s", "items is missing"),
        (SUITE + "more: 1\n", "unknown key more"),
        (SUITE.replace("exact", "vibes"), "expected one of exact, contains"),
        (SUITE.replace("exact", "json_schema"), "schema: expected with check: json_schema"),
        (SUITE + "schema: {type: object}\n", "schema: expected with check: json_schema"),
        (
            SUITE.replace("exact", "json_schema") + "schema: {type: 7}\n",
            "schema: is no JSON Schema",
        ),
        (SUITE.replace("exact", "python"), "code: expected with check: python"),
        (SUITE + "code: grade.py\n", "code: expected with check: python"),
        (SUITE.replace("exact", "python") + "code: no.py\n", "no.py cannot be read"),
        (SUITE.replace("exact", "python") + "code: worse.py\n", "worse.py is no Python"),
        (SUITE.replace("exact", "python") + "code: bad.py\n", "has no function score"),
        (SUITE.replace("exact", "judge"), "judge: expected with check: judge"),
        (SUITE + "judge: {url: http://j, model: m}\n", "judge: expected with check: judge"),
        (SUITE.replace("exact", "judge") + "judge: 1\n", "judge: found 1, expected url and model"),
        (SUITE.replace("exact", "judge") + "judge: {url: j}\n", "judge: model is missing\n.*http"),
        (
            SUITE.replace("exact", "judge") + "judge: {url: http://j, model: m, key: sk-1, x: 1}\n",
            "judge: unknown key x\n.*key: expected \\$NAME of a variable",
        ),
        (SUITE + "lm_eval: {task: t}\n", "lm_eval: expected with check: lm_eval"),
        (TASK + "items: a.jsonl\n", "unknown key items"),
        (TASK.replace("{task: t}", "gsm8k"), "lm_eval: found 'gsm8k', expected {task: NAME"),
        (
            TASK.replace("task: t", "limit: 0, x: 1"),
            "unknown key x\n.*task is missing\n.*limit: found 0",
        ),
        (TASK.replace("task: t", "task: t, few_shot: -1"), "few_shot: found -1, .* from 0"),
        (SUITE.replace("4", "none"), "max_tokens: found 'none'"),
        (SUITE.replace("items.jsonl", "[]"), "items: found \\[\\], expected text"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_suite_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    (tmp_path / "bad.py").write_text("def other(answer): ...\n")
    (tmp_path / "worse.py").write_text("def (")

    with pytest.raises(Rejected, match=says):
        asyncio.run(LocalFiles().suite(tmp_path, "s.yaml"))


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


def test_a_task_of_others_brings_its_items(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(TASK.replace("task: t", "task: t, few_shot: 5"))

    suite = asyncio.run(LocalFiles().suite(tmp_path, "s.yaml"))

    assert (suite.items, suite.check) == ("", "lm_eval")
    assert suite.task == {"task": "t", "limit": None, "few_shot": 5}


def test_a_harness_that_is_not_there_is_asked_for(tmp_path: Path) -> None:
    asked = {"task": "gsm8k", "limit": 1}

    with pytest.raises(Rejected, match=r"has no lm_eval .*RATCHET_LM_EVAL_PYTHON"):
        asyncio.run(HarnessTasks(Harness(sys.executable)).items(asked))
    with pytest.raises(Rejected, match="No such file"):
        asyncio.run(HarnessTasks(Harness(str(tmp_path / "no"))).items(asked))
