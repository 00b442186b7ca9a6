"""Training on a tiny real model: it learns, it resumes after a kill as if nothing had been."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError

from ratchet.core.errors import Rejected
from ratchet.core.retention import ADAPTER_FILES
from ratchet.engine.weights import quiet
from ratchet.kit.processes import StopNotice
from ratchet.train.depot import Depot
from ratchet.train.desk import Superseded
from ratchet.train.job import Job, Report, Trained, adapter_digest
from ratchet.train.sft import train
from ratchet.train.store import Store, is_disk_full
from ratchet.train.training import machine_taken
from tests import killable, tiny

RECIPE = tiny.RECIPE


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    return tiny.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    tiny.write_rows(path, 64, seed=1)
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trained_in(
    base: Path, rows: list[dict[str, Any]], work: Path, report: Report = lambda *_: None
) -> Trained:
    job = Job(
        base=base,
        start=None,
        rows=rows,
        recipe=RECIPE,
        work=work,
        report=report,
        stop=StopNotice(),
    )
    return train(job)


def test_training_learns_and_reports_every_step(base: Path, data: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []

    trained = trained_in(base, rows_of(data), tmp_path, lambda _, losses: seen.extend(losses))

    assert [step for step, _ in seen] == list(range(1, 17))
    assert trained.steps == 16
    assert trained.loss is not None
    assert trained.loss < seen[0][1] - 0.5
    assert all((trained.adapter / name).exists() for name in ADAPTER_FILES)


def test_a_training_killed_in_the_middle_ends_as_an_uninterrupted_one(
    base: Path, data: Path, tmp_path: Path
) -> None:
    whole = trained_in(base, rows_of(data), tmp_path / "whole")
    killed = tmp_path / "killed"
    process = killable.start(base, data, killed, RECIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("10 "):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1)

    resumed_from: list[int] = []
    rest = trained_in(
        base,
        rows_of(data),
        killed,
        lambda progress, _: resumed_from.append(progress["step"]),
    )

    assert resumed_from[0] == 8
    assert rest.steps == whole.steps
    before = dict(whole.losses)
    assert dict(rest.losses).keys() == before.keys()
    for step, loss in rest.losses:
        assert loss == pytest.approx(before[step], rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    "stop", [pytest.param(signal.SIGKILL, marks=pytest.mark.deep), signal.SIGTERM]
)
def test_another_machine_goes_on_from_what_the_store_has(
    base: Path, data: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    whole = trained_in(base, rows_of(data), tmp_path / "whole")
    objects = f"file://{tmp_path}/objects"
    first, second = tmp_path / "a" / "train-1", tmp_path / "b" / "train-1"
    process = killable.start(base, data, first, RECIPE, objects=objects)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("10 "):
            process.send_signal(stop)
            break
    process.communicate(timeout=60)

    second.mkdir(parents=True)
    (second / "checkpoints").mkdir()
    depot = Depot(Store(objects, lambda: None), second, "run_2")
    assert depot.fetch() == {signal.SIGKILL: 8, signal.SIGTERM: 11}[stop]
    rest = trained_in(base, rows_of(data), second)

    assert dict(rest.losses) == pytest.approx(dict(whole.losses), rel=1e-6)


def test_a_depot_keeps_the_newest_checkpoint_and_its_run_clears_it(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/objects", lambda: None)
    ours, theirs = (Depot(store, tmp_path / "train-1", run) for run in ("run_1", "run_2"))
    for depot, steps in ((ours, (4, 8)), (theirs, (12,))):
        for step in steps:
            folder = tmp_path / "train-1" / "checkpoints" / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "trainer_state.json").write_text("{}")
            depot.keep(folder)
            assert depot.settle(10.0)

    def stored() -> list[str]:
        return sorted(path.name for path in (tmp_path / "objects" / "checkpoints").iterdir())

    assert stored() == ["train-1.run_1.00000008.tar", "train-1.run_2.00000012.tar"]
    assert ours.fetch() is None
    ours.clear()
    assert stored() == ["train-1.run_2.00000012.tar"]


def test_a_checkpoint_that_was_cut_short_is_not_resumed_from(
    base: Path, data: Path, tmp_path: Path
) -> None:
    trained_in(base, rows_of(data)[:32], tmp_path)
    newest = tmp_path / "checkpoints" / "checkpoint-8"
    (newest / "trainer_state.json").write_text('{"half": ')

    first: list[int] = []
    trained_in(base, rows_of(data), tmp_path, lambda p, _: first.append(p["step"]))

    assert first[0] == 4
    assert (tmp_path / "checkpoints" / "broken-checkpoint-8").exists()


def test_the_same_adapter_has_the_same_name_wherever_it_was_made(tmp_path: Path) -> None:
    digests = []
    for place, order in (("a", ["q", "k"]), ("b", ["k", "q"])):
        folder = tmp_path / place
        folder.mkdir()
        configuration = {"base_model_name_or_path": str(folder), "target_modules": order}
        (folder / "adapter_config.json").write_text(json.dumps(configuration))
        (folder / "adapter_model.safetensors").write_bytes(b"tensors")
        digests.append(adapter_digest(folder, "package:x"))

    assert digests[0] == digests[1]


def test_what_a_training_took_of_its_machine_is_counted_with_its_programs() -> None:
    before = machine_taken()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)

    after = machine_taken()

    assert after["cpu_seconds"] > before["cpu_seconds"]
    assert 10 < before["peak_memory_mb"] <= after["peak_memory_mb"]


def test_a_full_disk_is_told_apart_from_a_bug(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert is_disk_full(full)
    assert is_disk_full(RuntimeError("write failed: No space left on device (os error 28)"))
    assert not is_disk_full(OSError(errno.EACCES, os.strerror(errno.EACCES)))


def test_a_store_that_is_away_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet.train.store.RETRY_SECONDS_MIN", 0.01)
    tries: list[str] = []

    def get(_: object, key: str) -> bytes:
        tries.append(key)
        if len(tries) < 4:
            raise GenericError("connection refused")
        return b"content"

    monkeypatch.setattr("ratchet.train.store.get", get)

    assert Store(f"file://{tmp_path}", lambda: None).get("a") == b"content"
    assert len(tries) == 4


def test_a_store_is_not_waited_for_by_who_is_no_longer_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(*_: object) -> None:
        raise GenericError("connection refused")

    def wanted() -> None:
        raise Superseded

    monkeypatch.setattr("ratchet.train.store.put_new", put)

    with pytest.raises(Superseded):
        Store(f"file://{tmp_path}", wanted).put_new("a", b"")


def test_what_is_not_in_the_store_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="does not give rows/none"):
        Store(f"file://{tmp_path}", lambda: None).get("rows/none")
