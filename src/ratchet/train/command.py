"""A trainer of the user's own: any program that keeps the contract of docs/howto/trainers.md.

It finds its orders in the environment, writes a PEFT adapter into a folder, prints progress as JSON
lines, keeps checkpoints where the next attempt finds them, and at SIGTERM saves and ends.
"""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ratchet.core.errors import Rejected
from ratchet.core.retention import ADAPTER_FILES
from ratchet.kit.processes import end, their_environment
from ratchet.train.job import Job, Preempted, Trained

LOOK_SECONDS = 0.2
# Between SIGTERM and the end of a program; clouds give 30 to 120 seconds.
STOP_SECONDS_MAX = 60.0
SAID_LINES = 5
# What sysexits.h calls EX_TEMPFAIL: not the input's fault, try again.
TRY_AGAIN = 75
SIGNALLED = 128


class Lost(RuntimeError):
    """A signal ended the program: nobody's fault, as far as one can tell."""


def train(job: Job, code: Mapping[str, bytes]) -> Trained:
    """Run the program of `train.command` among the files of `train.files`.

    Raises `Rejected` when it fails or leaves no adapter, `Preempted`, `Lost`, and whatever
    `job.report` raises.
    """
    output = job.work / "adapter"
    shutil.rmtree(output, ignore_errors=True)  # half of one, of an attempt that was killed
    folder = _unpack(job, code)
    output.mkdir()
    progress = _Progress(job)
    began = time.monotonic()
    with _program(job, folder, output) as (process, lines):
        status = _follow(process, lines, progress, job)
    if job.stop.given or status == TRY_AGAIN:
        raise Preempted(f"the program stopped with code {status}")
    if status > SIGNALLED:
        name = signal.Signals(status - SIGNALLED).name
        raise Lost(f"{name} ended the program; it said: {progress.said}")
    if status:
        raise Rejected(f"train.command ended with code {status}; it said: {progress.said}")
    check_adapter(output)
    return progress.trained(output, time.monotonic() - began)


def _unpack(job: Job, code: Mapping[str, bytes]) -> Path:
    """The program's files, its data and its recipe, as they were frozen."""
    folder = job.work / "code"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in code.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o755 if content.startswith(b"#!") else 0o644)
    folder.mkdir(exist_ok=True)
    rows = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in job.rows)
    (job.work / "train.jsonl").write_text(rows)
    (job.work / "recipe.json").write_text(json.dumps(job.recipe, indent=2))
    (job.work / "checkpoints").mkdir(exist_ok=True)
    return folder


@contextmanager
def _program(
    job: Job, folder: Path, output: Path
) -> Iterator[tuple[subprocess.Popen[str], queue.Queue[str]]]:
    """The program while it runs, and what it prints.  It ends with the block at the latest."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ratchet.train.leash", str(os.getpid()), "--"),
            *job.recipe["command"],
        ],
        cwd=folder,
        env={
            **their_environment(),
            "RATCHET_TRAIN_DATA": str(job.work / "train.jsonl"),
            "RATCHET_TRAIN_BASE": str(job.base),
            "RATCHET_TRAIN_START": str(job.start or ""),
            "RATCHET_TRAIN_RECIPE": str(job.work / "recipe.json"),
            "RATCHET_TRAIN_CHECKPOINTS": str(job.work / "checkpoints"),
            "RATCHET_TRAIN_OUTPUT": str(output),
            "RATCHET_TRAIN_SEED": str(job.recipe["seed"]),
            "PYTHONUNBUFFERED": "1",
            # A program in Python imports what the worker can import.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        if process.poll() is None:
            # The leash sees that its program is no longer wanted, and takes the group with it.
            end(process)


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)


def _follow(
    process: subprocess.Popen[str], lines: queue.Queue[str], progress: _Progress, job: Job
) -> int:
    """Until the program has ended; answers its exit code."""
    asked_at = math.inf
    while time.monotonic() - asked_at < STOP_SECONDS_MAX:
        try:
            progress.take(lines.get(timeout=LOOK_SECONDS))
        except queue.Empty:
            job.report({}, [])
            if (status := process.poll()) is not None:
                return status
        if job.stop.given and asked_at == math.inf:
            process.terminate()
            asked_at = time.monotonic()
    raise Preempted(
        f"the program was killed: it went on for {STOP_SECONDS_MAX:.0f} s after SIGTERM"
    )


class _Progress:
    """What a program said of itself: numbers in JSON lines, everything else goes into the log."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._losses: dict[int, float] = {}
        self._step = self._tokens = 0
        self._last: deque[str] = deque(maxlen=SAID_LINES)

    @property
    def said(self) -> str:
        return " / ".join(self._last) or "nothing"

    def take(self, line: str) -> None:
        """Raises what the job's report raises."""
        value = _numbers(line)
        if not value:
            print(line, end="", flush=True)
            if line.strip():
                self._last.append(line.strip()[-300:])
            return
        self._step = int(value.get("step", self._step))
        self._tokens = int(value.get("tokens", self._tokens))
        losses = []
        if "loss" in value:
            self._losses[self._step] = value["loss"]
            losses.append((self._step, value["loss"]))
        counts = ("step", "steps", "resumed_from")
        progress = {key: int(n) if key in counts else n for key, n in value.items()}
        self._job.report(progress, losses)

    def trained(self, adapter: Path, seconds: float) -> Trained:
        losses = tuple(sorted(self._losses.items()))
        return Trained(
            adapter=adapter,
            steps=self._step,
            loss=losses[-1][1] if losses else None,
            losses=losses,
            seconds=seconds,
            tokens=self._tokens,
        )


PROGRESS = ("step", "steps", "loss", "tokens", "tokens_per_second", "seconds_left", "resumed_from")


def _numbers(line: str) -> dict[str, float]:
    """What is progress in a line; nothing when it is another line."""
    try:
        value: Any = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    return {
        key: float(value[key])
        for key in PROGRESS
        if isinstance(value.get(key), int | float) and math.isfinite(value[key])
    }


def check_adapter(folder: Path) -> None:
    """Raises `Rejected` unless a folder holds a PEFT adapter whose numbers are numbers."""
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            found = ", ".join(sorted(each.name for each in folder.iterdir())) or "nothing"
            raise Rejected(
                f"train.command left no {name} in RATCHET_TRAIN_OUTPUT (found: {found}); expected "
                "an adapter as PEFT's save_pretrained writes it"
            )
    try:
        kind = json.loads((folder / ADAPTER_FILES[0]).read_text())["peft_type"]
        with safe_open(folder / ADAPTER_FILES[1], framework="pt") as file:
            names = list(file.keys())
            broken = [name for name in names if not file.get_tensor(name).isfinite().all()]
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Rejected(f"train.command left an adapter that cannot be read: {error!r}") from error
    if kind != "LORA" or not names:
        raise Rejected(
            f"train.command left an adapter of type {kind} with {len(names)} tensors; expected LORA"
        )
    if broken:
        raise Rejected(
            f"train.command left {len(broken)} tensors that hold no numbers, {broken[0]} first"
        )
