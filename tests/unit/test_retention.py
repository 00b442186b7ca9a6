"""What keeps artifacts, and how they are named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.retention import (
    Lineage,
    MadeBy,
    Pin,
    Retention,
    adapter_uri,
    artifact_of,
    checkpoint_uri,
    files_of,
    generation_of,
    key_of,
    kind_of,
    maker_of,
    reasons,
    step_of,
    uri_of,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OLD = NOW - timedelta(days=90)


def run(number: int, *uris: str, promoted: bool = False, over: bool = True) -> MadeBy:
    return MadeBy(
        run=f"run_{number}",
        project="p",
        is_over=over,
        ended_at=OLD + timedelta(hours=number) if over else None,
        version=f"v_{number}",
        promoted_at=OLD + timedelta(hours=number) if promoted else None,
        dataset=f"ds_{number}",
        uris=uris,
    )


def kept(*runs: MadeBy, uris: tuple[str, ...] = (), **more: object) -> dict[str, list[str]]:
    given: dict[str, object] = {"policies": {}, "serving": {}, "runs": runs, "pins": ()}
    return reasons(Lineage(**{**given, **more}), uris, NOW)  # type: ignore[arg-type]


def test_an_old_run_that_nobody_uses_keeps_nothing() -> None:
    assert kept(run(1, "rows/a"), uris=("rows/a", "rows/b")) == {}


def test_what_serves_keeps_everything_that_it_was_made_of() -> None:
    found = kept(run(1, "rows/a", "adapters/x"), serving={"v_1": "serves"})

    assert found == {"rows/a": ["v_1 serves"], "adapters/x": ["v_1 serves"]}


def test_the_last_promoted_versions_are_the_way_back() -> None:
    runs = [run(n, f"rows/{n}", promoted=True) for n in range(1, 5)]

    found = kept(*runs, policies={"p": Retention(promoted=2)})

    assert found == {
        "rows/4": ["v_4 is promoted version 1 from the newest"],
        "rows/3": ["v_3 is promoted version 2 from the newest"],
    }


def test_a_run_that_is_going_on_keeps_what_it_made_and_what_it_alone_writes() -> None:
    found = kept(run(7, "rows/a", over=False), uris=("adapters/run_7/x", "adapters/run_8/x"))

    assert found == {"rows/a": ["run_7 is going on"], "adapters/run_7/x": ["run_7 is going on"]}


def test_what_is_young_stays_whatever_became_of_it() -> None:
    young = Retention(age_seconds=91 * 86400.0)

    assert kept(run(1, "rows/a"), policies={"p": young}) == {
        "rows/a": ["run_1 ended less than 91 d ago"]
    }


@pytest.mark.parametrize("subject", ["v_1", "ds_1", "run_1", "rows/a"])
def test_a_pin_keeps_a_version_a_dataset_a_run_or_one_artifact(subject: str) -> None:
    pin = Pin(project="p", subject=subject, because="audit", who="ana", legal=True)

    found = kept(run(1, "rows/a"), uris=("rows/a",), pins=[pin])

    assert found == {"rows/a": ["legal hold by ana: audit"]}


def test_a_lease_keeps_what_a_run_reads_or_writes() -> None:
    assert kept(leases={"rows/a": "run_1"}) == {"rows/a": ["run_1 uses it"]}


def test_there_is_always_a_way_back() -> None:
    with pytest.raises(Rejected, match="at least 1: the way back"):
        Retention(promoted=0)


@pytest.mark.parametrize(
    ("path", "artifact"),
    [
        ("rows/ab.jsonl.gz", "rows/ab.jsonl.gz"),
        ("adapters/run_1/ab/adapter_model.safetensors", "adapters/run_1/ab"),
        ("adapters/ab/adapter_config.json", "adapters/ab"),
        ("adapters/ab/README.md", None),
        ("adapters/adapter_config.json", None),
        ("reports/run_1.json", "reports/run_1.json"),
        ("reports/mine/notes.txt", None),
        ("notes.txt", None),
        ("mlflow/0/meta.yaml", None),
    ],
)
def test_only_what_is_ours_is_an_artifact(path: str, artifact: str | None) -> None:
    assert artifact_of(path) == artifact


def test_an_adapter_is_its_two_files_in_the_place_of_its_run() -> None:
    uri = adapter_uri("run_1", "ab" * 32)

    assert uri == f"adapters/run_1/{'ab' * 12}"
    assert maker_of(uri) == "run_1"
    assert [artifact_of(file) for file in files_of(uri)] == [uri, uri]
    assert maker_of("reports/run_2.json") == "run_2"
    assert maker_of("adapters/ab") is None


def test_what_was_taken_away_and_comes_back_has_another_place() -> None:
    assert (uri_of("rows/a", 1), uri_of("rows/a", 2)) == ("rows/a", "rows/a.g2")
    assert (key_of("rows/a.g2"), generation_of("rows/a.g2")) == ("rows/a", 2)
    assert (key_of("rows/a"), generation_of("rows/a")) == ("rows/a", 1)


def test_a_checkpoint_is_of_the_run_that_writes_it() -> None:
    uri = checkpoint_uri("train-0a1b", "run_1", 8)

    assert uri == "checkpoints/train-0a1b.run_1.00000008.tar"
    assert (kind_of(uri), maker_of(uri), step_of(uri)) == ("checkpoint", "run_1", 8)
    assert artifact_of(uri) == uri
    assert files_of(uri) == (uri,)
    assert step_of("checkpoints/something.tar") is None
    assert maker_of("checkpoints/something.tar") is None
