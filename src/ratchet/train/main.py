"""`python -m ratchet.train.main`: claim one attempt, do its stage, report, exit.

Exit codes: 0 the control plane has the outcome (also when the work failed or is no longer
wanted), anything else is a crash, and the stage is tried again from its checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gzip
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from obstore.exceptions import BaseError
from safetensors import SafetensorError

from ratchet.core.dataset import Manifest, pack_lines
from ratchet.core.errors import Rejected
from ratchet.core.retention import ADAPTER_FILES, adapter_uri, key_of
from ratchet.engine.weights import (
    WeightsError,
    base_folder,
    fetch_adapter,
    quiet,
)
from ratchet.kit.clock import SystemClock
from ratchet.kit.digest import digest_json
from ratchet.kit.peers import PeerFiles
from ratchet.train import command, preference, sft
from ratchet.train.depot import Depot
from ratchet.train.desk import Desk, Superseded
from ratchet.train.evaluate import EngineArguments, EngineFailed, answers_in, engine, run_suite
from ratchet.train.lora import Job, Preempted, Trained, adapter_digest
from ratchet.train.store import Store, is_disk_full

# A checkpoint is of use as long as somebody may start its run again.
KEPT_SECONDS = 7 * 86400.0
LOCK = "lock"
# Of the notice before a machine is taken away; clouds give 30 to 120 seconds.
DEPOT_SECONDS_MAX = 45.0


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("ratchet worker", description=__doc__)
    parser.add_argument("--attempt", required=True)
    parser.add_argument("--server", required=True, help="gRPC address of the control plane")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--objects", required=True, help="URL of the object store")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--cache", type=Path, required=True, help="folder for bases and adapters")
    parser.add_argument(
        "--checkpoints",
        choices=["folder", "store"],
        default="folder",
        help="where the next machine finds them: in the work folder, or also in the object store",
    )
    parser.add_argument("--vllm-python", default=sys.executable)
    parser.add_argument(
        "--peers", nargs=3, type=Path, metavar=("CERT", "KEY", "CA"), help="for mutual TLS"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    quiet()
    peers = PeerFiles(*options.peers) if options.peers else None
    desk = Desk(options.server, options.attempt, options.token_file.read_text().strip(), peers)
    try:
        assignment = desk.claim()
        if assignment["stage"] == "train":
            # Asking a suite keeps every answer as it comes, so it may end anywhere.
            desk.stop.listen()
        result = STAGES[assignment["stage"]](assignment, desk, options)
        desk.succeed(result)
    except Preempted as stopped:
        print(f"attempt {options.attempt}: {stopped}")
        # Unheard, the exit code tells it to whoever started us.
        return 0 if desk.yield_place(str(stopped)) else command.TRY_AGAIN
    except Superseded:
        print(f"attempt {options.attempt} is no longer wanted")
    except (WeightsError, EngineFailed, Rejected) as error:
        _tell(desk, str(error))
    except (OSError, RuntimeError, MemoryError, SafetensorError, BaseError) as error:
        if is_out_of_memory(error):
            with contextlib.suppress(Superseded):
                desk.outgrow(
                    f"out of memory: {str(error).splitlines()[0][:200]}. Lower train.batch_size or "
                    "train.max_length, or take a larger machine"
                )
            return 0
        if not is_disk_full(error):
            raise
        _tell(desk, f"disk full: {error}. Free some space and start the run again")
    return 0


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine, or its graphics card, has no more memory.

    torch's allocator for CPUs says so in a bare `RuntimeError`.
    """
    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or "can't allocate memory" in str(error)


def _tell(desk: Desk, because: str) -> None:
    with contextlib.suppress(Superseded):
        desk.fail(because)


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
    }


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
    method = job.recipe["method"]
    if method == "command":
        code = {name: store.get(uri) for name, uri in assignment["code"].items()}
        return command.train(job, code)
    return METHODS[method](job)


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


def evaluate_stage(
    assignment: dict[str, Any], desk: Desk, options: argparse.Namespace
) -> dict[str, Any]:
    """Candidate and baseline on the same items, each through an engine of its own."""
    store = Store(options.objects, desk.check)
    suites = [json.loads(store.get(suite["uri"])) for suite in assignment["suites"]]
    fresh = [s for s in suites if s["digest"] not in assignment["baseline_known"]]
    total = sum(len(s["rows"]) for s in suites) + sum(len(s["rows"]) for s in fresh)
    progress = ItemCount(desk, total)
    log = options.work / assignment["run"] / "evaluate-engine.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # Answers of an attempt that was killed are kept: killed again and again, it comes to its end.
    desk.report({"resumed_from": sum(map(answers_in, log.parent.glob("answers-*.jsonl")))}, [])
    reports: dict[str, list[dict[str, Any]]] = {}
    sides = (
        ("candidate", assignment["candidate"], suites),
        ("baseline", assignment["baseline"], fresh),
    )
    for side, adapter, wanted in sides:
        reports[side] = []
        if not wanted:
            continue
        desk.report({"doing": f"starting the {side}'s engine"}, [])
        if adapter is not None:
            # Here, where a store that is away is waited for: an engine would end.
            fetch_adapter(options.objects, adapter, options.cache, store.get)
        arguments = EngineArguments(
            kind=assignment["engine"],
            base=assignment["base"],
            adapter=adapter,
            objects=options.objects,
            cache=options.cache,
            name=assignment["served_name"],
            vllm_python=options.vllm_python,
        )
        with engine(arguments, log) as url:
            desk.report({"doing": f"asking the {side}"}, [])
            for suite in wanted:
                kept = log.parent / f"answers-{side}-{suite['digest']}.jsonl"
                reports[side].append(
                    run_suite(suite, url, assignment["served_name"], kept, progress.item)
                )
                progress.suite_done(len(suite["rows"]))
    # Under the run's name: latencies are measurements, so two evaluations are two reports.
    uri = f"reports/{assignment['run']}.json"
    store.put_new(uri, json.dumps(reports, ensure_ascii=False).encode())
    shutil.rmtree(log.parent, ignore_errors=True)
    return {"uri": uri}


class ItemCount:
    """Items answered so far, over all suites and both sides."""

    def __init__(self, desk: Desk, total: int) -> None:
        self._desk, self._total, self._before = desk, total, 0

    def item(self, number: int) -> None:
        """Raises `Superseded`, and `Preempted` when the place is wanted back: answers are kept."""
        done = self._before + number
        self._desk.report({"step": done, "steps": self._total}, [])
        self._desk.check()
        if self._desk.stop.given:
            raise Preempted(f"stopped on request after {done} of {self._total} items")

    def suite_done(self, items: int) -> None:
        self._before += items


METHODS = {"sft": sft.train, "dpo": preference.train_dpo, "kto": preference.train_kto}
STAGES = {"train": train_stage, "evaluate": evaluate_stage}

if __name__ == "__main__":
    code = main()
    # Libraries leave threads behind that can hold an exit for minutes; everything is reported.
    sys.stdout.flush()
    os._exit(code)
