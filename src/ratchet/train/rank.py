"""`python -m ratchet.train.rank ORDERS`: one process of a training that has several.

It finds its place in the environment, as torchrun gives it, and tells the worker what it does in
JSON lines (`ratchet.train.cards`).
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ratchet.core.errors import Rejected
from ratchet.kit.processes import StopNotice
from ratchet.train.job import Job, Preempted, is_out_of_memory
from ratchet.train.methods import method_of


def main(orders: Path) -> int:
    """Exit code 0 whenever what became of it was told."""
    stop = StopNotice()
    stop.listen()
    order = json.loads(orders.read_text())
    is_first = _place("RANK") == 0
    job = Job(
        base=Path(order["base"]),
        start=order["start"] and Path(order["start"]),
        rows=order["rows"],
        recipe=order["recipe"],
        work=orders.parent,
        report=_report if is_first else lambda *_: None,
        stop=stop,
        saved=_saved if is_first else lambda _: None,
        processes=_place("WORLD_SIZE"),
    )
    try:
        trained = method_of(job)(job)
    except Preempted as stopped:
        _tell(preempted=str(stopped))
    except Rejected as refused:
        _tell(rejected=str(refused))
    except (OSError, RuntimeError, MemoryError) as error:
        kind = "out_of_memory" if is_out_of_memory(error) else "lost"
        _tell(**{kind: str(error)})
    else:
        if is_first:
            _tell(trained={**asdict(trained), "adapter": str(trained.adapter)})
    return 0


def _place(name: str) -> int:
    return int(os.environ[name])  # noqa: TID251 - torchrun's names


def _report(progress: dict[str, Any], losses: list[tuple[int, float]]) -> None:
    _tell(progress=progress, losses=losses)


def _saved(checkpoint: Path) -> None:
    _tell(saved=str(checkpoint))


def _tell(**said: Any) -> None:
    print(json.dumps({"ratchet": said}), flush=True)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    # Libraries leave threads behind that can hold an exit for minutes; everything is told.
    sys.stdout.flush()
    os._exit(code)
