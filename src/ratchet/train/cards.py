"""Several graphics cards: a training process each, in the environment that torchrun gives.

Each process takes its part of every batch, and gradients are averaged between them (torch's
distributed data parallel, which transformers' Trainer sets up).  So a step is that of one card with
the whole batch, but for rounding, and a training may go on with another number of cards.

The worker loads no card itself: it hears what the processes say, a JSON line each, and when one
ends badly it ends all of them.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratchet.core.errors import Rejected
from ratchet.kit.network import free_port
from ratchet.kit.processes import their_environment
from ratchet.train.command import LOOK_SECONDS, STOP_SECONDS_MAX, Lost
from ratchet.train.job import Job, Preempted, Trained, last_whole_checkpoint

# What broke one process is often heard of from the others first.
CAUSE_SECONDS = 2.0
Lines = queue.Queue[tuple[int, str | None]]
"""Who says it, and what; None when it has closed its end."""


def visible() -> list[str]:
    """Names of the cards that a process started by us may use."""
    import torch

    found = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")  # noqa: TID251 - CUDA's own
    return given.split(",")[:found] if given else [str(number) for number in range(found)]


def count(cards: int, recipe: Mapping[str, Any]) -> int:
    """The most cards among which each batch can be shared evenly."""
    size = recipe["batch_size"]
    # KTO compares the rows that a process has.
    least = 2 if recipe["method"] == "kto" else 1
    return max(n for n in range(1, cards + 1) if n == 1 or (size % n == 0 and size // n >= least))


def train(job: Job, cards: Sequence[str]) -> Trained:
    """One of our methods, in a process for each of these.

    Raises `Rejected`, `MemoryError`, `Preempted`, `Lost`, and whatever `job.report` raises.
    """
    # What was cut short is put aside before several look at it.
    last_whole_checkpoint(job.work)
    with _crew(job, cards) as (crew, lines):
        return _follow(crew, lines, job)


@contextmanager
def _crew(
    job: Job, cards: Sequence[str]
) -> Iterator[tuple[Sequence[subprocess.Popen[str]], Lines]]:
    """The processes, and what they say.  They end with the block at the latest."""
    size = len(cards)
    orders = job.work / "orders.json"
    orders.write_text(
        json.dumps(
            {
                "base": str(job.base),
                "start": job.start and str(job.start),
                "rows": list(job.rows),
                "recipe": job.recipe,
            }
        )
    )
    shared = {
        **their_environment(),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "CUDA_VISIBLE_DEVICES": ",".join(cards),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // size)),
    }
    crew: list[subprocess.Popen[str]] = []
    lines: Lines = queue.Queue()
    try:
        for rank in range(size):
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ratchet.train.leash", str(os.getpid()), "--"),
                    *(sys.executable, "-m", "ratchet.train.rank", str(orders)),
                ],
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                errors="replace",
            )
            crew.append(process)
            threading.Thread(target=_read, args=(rank, process, lines), daemon=True).start()
        yield crew, lines
    finally:
        # One that waits for the others hears no signal but this: its leash takes it along.
        for process in crew:
            process.kill()
        for process in crew:
            process.wait()


def _read(rank: int, process: subprocess.Popen[str], lines: Lines) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put((rank, line))
    lines.put((rank, None))


def _follow(crew: Sequence[subprocess.Popen[str]], lines: Lines, job: Job) -> Trained:
    """Until all have ended."""
    trained: Trained | None = None
    at_work, asked_at = len(crew), 0.0
    while at_work:
        if job.stop.given and not asked_at:
            asked_at = time.monotonic()
            for process in crew:
                process.terminate()
        if asked_at and time.monotonic() - asked_at > STOP_SECONDS_MAX:
            raise Preempted(f"training went on for {STOP_SECONDS_MAX:.0f} s after SIGTERM")
        try:
            rank, line = lines.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            job.report({}, [])
            continue
        if line is None:
            at_work -= 1
            if code := crew[rank].wait():
                raise Lost(f"process {rank} of {len(crew)} ended with code {code}")
        elif (said := _said(line)) is None:
            print(f"[{rank}] {line}", end="", flush=True)
        else:
            trained = take(said, lines, job) or trained
    assert trained is not None, "all have ended well, and the first has not said with what"
    return trained


def take(said: dict[str, Any], lines: Lines, job: Job) -> Trained | None:
    """Hand on what a process tells; the result, if it is that.  Raises how it ended, if badly."""
    match said:
        case {"progress": progress, "losses": losses}:
            job.report(progress, [(step, loss) for step, loss in losses])
        case {"saved": folder}:
            job.saved(Path(folder))
        case {"trained": result}:
            losses = tuple((step, loss) for step, loss in result["losses"])
            return Trained(**{**result, "adapter": Path(result["adapter"]), "losses": losses})
        case _:
            raise _cause(said, lines)
    return None


def _said(line: str) -> dict[str, Any] | None:
    """What one of ours tells; None for what a library prints."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said["ratchet"] if isinstance(said, dict) and "ratchet" in said else None


ENDS: dict[str, Callable[[str], Exception]] = {
    "rejected": Rejected,
    "out_of_memory": MemoryError,
    "preempted": Preempted,
    "lost": Lost,
}
"""How a process may end early, the most telling first."""


def _cause(said: dict[str, Any], lines: Lines) -> Exception:
    """The best reason among those that are given within a moment."""
    reasons = dict(said)
    until = time.monotonic() + CAUSE_SECONDS
    while "lost" in said and len(reasons) == 1 and (left := until - time.monotonic()) > 0:
        try:
            _, line = lines.get(timeout=left)
        except queue.Empty:
            break
        more = _said(line or "") or {}
        reasons |= {kind: because for kind, because in more.items() if kind in ENDS}
    return next(end(reasons[kind]) for kind, end in ENDS.items() if kind in reasons)
