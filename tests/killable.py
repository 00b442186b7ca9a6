"""A training in a process of its own, slow enough to be killed anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, sys, time
from pathlib import Path
from ratchet.engine.weights import quiet
from ratchet.kit.processes import StopNotice
from ratchet.train.depot import Depot
from ratchet.train.job import Job, Preempted
from ratchet.train.sft import train
from ratchet.train.store import Store
quiet()
stop = StopNotice()
stop.listen()
base, data, work, recipe, pause, objects = sys.argv[1:7]
rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
depot = Depot(Store(objects, lambda: None), Path(work), "run_1") if objects else None
if depot is not None:
    (Path(work) / "checkpoints").mkdir(parents=True, exist_ok=True)
    depot.fetch()
def report(progress, losses):
    if "resumed_from" in progress:
        print("from", progress["resumed_from"], flush=True)
    for step, loss in losses:
        print(step, loss, flush=True)
        time.sleep(float(pause))
kept = {"saved": depot.keep} if depot is not None else {}
try:
    done = train(Job(base=Path(base), start=None, rows=rows, recipe=json.loads(recipe),
                     work=Path(work), report=report, stop=stop, **kept))
    print("adapter", done.adapter, flush=True)
except Preempted as stopped:
    if depot is not None:
        depot.settle(30.0)
    print(stopped, flush=True)
"""


def start(
    base: Path,
    data: Path,
    work: Path,
    recipe: dict[str, Any],
    *,
    pause_seconds: float = 0.1,
    objects: str = "",
) -> subprocess.Popen[str]:
    """It prints `from STEP`, then `STEP LOSS` after each step, and at last `adapter FOLDER`.

    `objects` is the url of a store that checkpoints go to.
    """
    return subprocess.Popen(
        [
            *(sys.executable, "-c", PROGRAM, str(base), str(data), str(work)),
            *(json.dumps(recipe), str(pause_seconds), objects),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
