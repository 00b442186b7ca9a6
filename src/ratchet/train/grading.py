"""Checks of the user's own: `score(answer, expected, row)` in a Python file.

It runs in a process of its own (`python -m ratchet.train.grading FILE`) without our settings and
credentials, and is ended with us.  What it prints goes to the worker's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratchet.core.errors import Rejected
from ratchet.kit.digest import digest_bytes
from ratchet.kit.processes import end, their_environment

Scorer = Callable[[str, dict[str, Any]], float]
"""Of an answer and the row that it answers."""

SCORE_SECONDS_MAX = 60.0


@contextmanager
def grader(suite: str, code: str, folder: Path) -> Iterator[Scorer]:
    """The check of a suite as long as it is needed."""
    # By its content: a suite may be called by any text.
    file = folder / f"check-{digest_bytes(code.encode())[:24]}.py"
    file.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "ratchet.train.grading", str(file)]
    with asked(suite, command, SCORE_SECONDS_MAX) as score:
        yield score


@contextmanager
def asked(suite: str, command: list[str], seconds_max: float) -> Iterator[Scorer]:
    """A program that is asked for scores, a line of JSON each, as long as it is needed.

    A score raises `Rejected` when the program fails, ends, takes longer than `seconds_max`, or
    answers what is no number from 0 to 1.
    """
    process = subprocess.Popen(
        [*(sys.executable, "-m", "ratchet.train.leash", str(os.getpid()), "--"), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=their_environment(),
        text=True,
    )

    one = threading.Lock()

    def score(answer: str, row: dict[str, Any]) -> float:
        expected = row["messages"][-1]["content"]
        with one:
            said = _ask(process, {"answer": answer, "expected": expected, "row": row}, seconds_max)
        if "score" in said:
            return float(said["score"])
        raise Rejected(
            f"suite {suite}: its check {said['fault']}, on the item that expects {expected[:60]!r}"
        )

    try:
        yield score
    finally:
        end(process)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what it was asked last, it did not read
                pipe.close()


def _ask(
    process: subprocess.Popen[str], question: dict[str, Any], seconds_max: float
) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return {"fault": f"ended with code {process.wait()}"}
    ready, _, _ = select.select([process.stdout], [], [], seconds_max)
    if not ready:
        return {"fault": f"gave no score within {seconds_max:.0f} s"}
    line = process.stdout.readline()
    if not line:
        return {"fault": f"ended with code {process.wait()}"}
    said: dict[str, Any] = json.loads(line)
    return said


def main(file: str) -> int:
    """Answer questions, a line each, until there are no more."""
    # What the program prints must not come between our lines.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        try:
            score = runpy.run_path(file)["score"]
        except Exception:  # noqa: BLE001 - theirs, and told with every item
            fault = f"cannot be loaded: {_last_line()}"

            def score(*_: object) -> float:
                raise ImportError(fault)

        for line in sys.stdin:
            answers.write(json.dumps(_scored(score, json.loads(line))) + "\n")
            answers.flush()
    return 0


def _scored(score: Callable[..., Any], asked: dict[str, Any]) -> dict[str, Any]:
    try:
        found = score(asked["answer"], asked["expected"], asked["row"])
    except Exception:  # noqa: BLE001 - theirs, and told
        return {"fault": f"raised {_last_line()}"}
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = -1.0
    if not 0.0 <= value <= 1.0:
        return {"fault": f"answered {found!r:.60}, expected a number from 0 to 1"}
    return {"score": value}


def _last_line() -> str:
    """What was raised, and where in their file."""
    kind, error, trace = sys.exc_info()
    place = traceback.extract_tb(trace)[-1]
    name = "" if kind is None else kind.__name__
    return f"{name}: {error} (line {place.lineno})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
