"""What is asked of a training and what it yields, without the libraries that train."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.core.retention import ADAPTER_FILES
from ratchet.kit.processes import StopNotice

Report = Callable[[dict[str, Any], list[tuple[int, float]]], None]
"""Called after every step with progress and new losses; may raise to stop."""


class Preempted(Exception):
    """The machine wants its place back; what was done is in a checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training: from what, with what, where, and who is told."""

    base: Path
    start: Path | None
    """An adapter of the same base to go on from; None for a new one."""
    rows: Sequence[dict[str, Any]]
    recipe: dict[str, Any]
    work: Path
    report: Report
    stop: StopNotice
    saved: Callable[[Path], None] = lambda _: None
    """Told of each checkpoint, whole."""
    processes: int = 1
    """How many share each batch."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the machine, or its graphics card, has no more memory.

    torch's allocator for CPUs says so in a bare `RuntimeError`.
    """
    torch = sys.modules.get("torch")
    known = (MemoryError, torch.OutOfMemoryError) if torch else MemoryError
    return isinstance(error, known) or "can't allocate memory" in str(error)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished training yields."""

    adapter: Path
    steps: int
    loss: float | None
    losses: tuple[tuple[int, float], ...]
    seconds: float
    tokens: int


def last_whole_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was written to its end.

    The trainer's state file is written last; a folder without a readable one was cut short by a
    kill and is not resumed from.
    """
    folder = work / "checkpoints"
    while folder.exists():
        found = [each for each in folder.glob("checkpoint-*") if each.name[11:].isdigit()]
        if not found:
            return None
        newest = max(found, key=step_of)
        try:
            json.loads((newest / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            newest.rename(folder / f"broken-{newest.name}")
            continue
        return newest
    return None


def checkpoint_folder(step: int) -> str:
    """As the trainer of transformers calls it."""
    return f"checkpoint-{step}"


def step_of(checkpoint: Path) -> int:
    """After which step it was saved."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def adapter_digest(folder: Path, base: str) -> str:
    """SHA-256 over the adapter's configuration and tensors.

    The configuration first loses where the base happened to lie on this machine, so that the same
    adapter has the same name everywhere.
    """
    configuration = folder / "adapter_config.json"
    value = json.loads(configuration.read_text())
    value["base_model_name_or_path"] = base
    if isinstance(value.get("target_modules"), list):
        # PEFT writes a set: its order changes with every process.
        value["target_modules"] = sorted(value["target_modules"])
    configuration.write_text(json.dumps(value, sort_keys=True, indent=2))
    state = hashlib.sha256()
    for name in ADAPTER_FILES:
        state.update((folder / name).read_bytes())
    return state.hexdigest()
