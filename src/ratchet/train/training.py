"""The stage `train`: from frozen rows and a recipe to an adapter in the object store."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gzip
import json
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratchet.core.dataset import Manifest, pack_lines
from ratchet.core.retention import ADAPTER_FILES, adapter_uri, key_of
from ratchet.engine.bases import base_folder
from ratchet.engine.objects import fetch_adapter
from ratchet.kit.clock import SystemClock
from ratchet.kit.digest import digest_json
from ratchet.train import command, methods
from ratchet.train.depot import Depot
from ratchet.train.desk import Desk
from ratchet.train.job import Job, Preempted, Trained, adapter_digest
from ratchet.train.store import Store

# A checkpoint is of use as long as somebody may start its run again.
KEPT_SECONDS = 7 * 86400.0
LOCK = "lock"
# Of the notice before a machine is taken away; clouds give 30 to 120 seconds.
DEPOT_SECONDS_MAX = 45.0


def train_stage(
    assignment: dict[str, Any], desk: Desk, options: argparse.Namespace
) -> dict[str, Any]:
    """Train, then ship the adapter under its digest.  Killed anywhere, the next attempt goes on."""
    store = Store(options.objects, desk.check)
    rows = read_dataset(store, assignment["dataset"])
    desk.report({"doing": "loading the base model"}, [])
    base = base_folder(assignment["base"], options.cache / "bases")
    work = options.work / work_name(assignment)
    work.mkdir(parents=True, exist_ok=True)
    forget_old(options.work)

    def report(progress: dict[str, Any], losses: list[tuple[int, float]]) -> None:
        desk.report({"doing": "training", **progress}, losses)
        desk.check()

    start = assignment.get("start")
    job = Job(
        base=base,
        start=fetch_adapter(options.objects, start, options.cache, store.get) if start else None,
        rows=rows,
        recipe=assignment["train"],
        work=work,
        report=report,
        stop=desk.stop,
    )
    depot = None
    if options.checkpoints == "store":
        # Sent beside the training: only that decides whether the attempt is still wanted.
        depot = Depot(Store(options.objects, lambda: None), work, assignment["run"])
    with alone(work):
        trained = _train_kept(job, assignment, store, depot)
        digest = adapter_digest(trained.adapter, assignment["base"])
        uri = adapter_uri(assignment["run"], digest)
        size = 0
        for name in ADAPTER_FILES:
            content = (trained.adapter / name).read_bytes()
            size += len(content)
            store.put_new(f"{uri}/{name}", content)
        clear(work)
        if depot is not None:
            depot.clear()
    return {
        "adapter_uri": uri,
        "adapter_digest": digest,
        "adapter_bytes": size,
        "steps": trained.steps,
        "loss": trained.loss,
        "losses": trained.losses,
        "seconds": trained.seconds,
        "tokens": trained.tokens,
        "machine": machine_taken(),
    }


def machine_taken() -> dict[str, float]:
    """What this attempt took of its machine, with the programs that it ran."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    below = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = {
        "peak_memory_mb": (own.ru_maxrss + below.ru_maxrss) / 1024,
        "cpu_seconds": own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime,
    }
    torch = sys.modules.get("torch")
    # Where processes have trained for us, each on its card, ours used none.
    if torch is not None and torch.cuda.is_initialized():
        taken["gpu_peak_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return taken


def clear(work: Path) -> None:
    """Nobody goes on from a training that has ended: rows and checkpoints need not lie here."""
    for each in work.iterdir():
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        elif each.name != LOCK:
            each.unlink()


def work_name(assignment: dict[str, Any]) -> str:
    """Of what a training is made of: whoever trains the same goes on from what is there, also when
    another run began it and ran out of money."""
    made_of = ("base", "dataset", "train", "start", "code")
    return "train-" + digest_json({key: assignment.get(key) for key in made_of})[:24]


def forget_old(work: Path) -> None:
    """What nobody went on with for a week."""
    now = SystemClock().now().timestamp()
    for folder in work.glob("train-*"):
        with contextlib.suppress(OSError):
            if now - (folder / LOCK).stat().st_mtime > KEPT_SECONDS:
                with (folder / LOCK).open() as file:
                    # Somebody who is at work there has locked it, however long ago.
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)


def _train_kept(job: Job, assignment: dict[str, Any], store: Store, depot: Depot | None) -> Trained:
    """Train, with each checkpoint also in the store."""
    if depot is None:
        return _train(job, assignment, store)
    if (step := depot.fetch()) is not None:
        print(f"going on from step {step}, which another machine has saved", flush=True)
    try:
        return _train(replace(job, saved=depot.keep), assignment, store)
    except Preempted:
        # The machine goes at the end of its notice: what it saved last has to be elsewhere by then.
        if not depot.settle(DEPOT_SECONDS_MAX):
            print("the last checkpoint did not arrive in the store in time", flush=True)
        raise


def _train(job: Job, assignment: dict[str, Any], store: Store) -> Trained:
    if job.recipe["method"] == "command":
        code = {name: store.get(uri) for name, uri in assignment["code"].items()}
        return command.train(job, code)
    return methods.train(job)


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """Nobody else trains in this folder: an attempt that was asked to stop may still be saving when
    the next one begins."""
    with (work / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_dataset(store: Store, uri: str) -> list[dict[str, Any]]:
    """All rows of a version, in its order."""
    content = store.get(uri)
    if not key_of(uri).endswith(".gz"):
        # In one piece: a run that an older Ratchet began.
        rows: list[dict[str, Any]] = json.loads(content)["rows"]
        return rows
    manifest = Manifest.from_json(json.loads(gzip.decompress(content)))
    packs = {key: pack_lines(key, store.get(key)) for key in manifest.packs}
    return [json.loads(line) for line in manifest.lines(packs)]
