"""How soon the judge knows what users were answered, and how soon users get what it decided.

A whole stack with a tiny model and 30 requests a second.  Evidence is as old as the time between an
answer's end, by the gateway's record, and the moment at which the release's stored evidence has it.
A verdict is in force when Envoy has said that it routes by it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from report import Result, publish

# The stack that the tests use: `ratchet up`, with a tiny model.
sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import tiny
from tests.e2e.stack import Stack, Traffic

USERS_PER_SECOND = 30.0
LOOK_SECONDS = 0.02
SPEC = """\
project: colours
model: {{base: ../model, name: colours}}
data: {{train: good.jsonl}}
train: {{epochs: 6, batch_size: 8, learning_rate: 1.0e-2, seed: {seed},
        lora: {{rank: 8, alpha: 16}}, max_length: 64, checkpoint_every_steps: 50}}
evaluate: {{suites: [held-out.yaml]}}
gates: [{{metric: held-out.accuracy, at_least: 0.0}}]
gateway: {{access: open}}
release: {{guards: {{errors: {{margin: +4pp}}, latency_p95: {{margin: 60%}}}}{drill}}}
"""
DRILL = ", drill: {error_rate: 50%}"
SEEN = """
SELECT id, (evidence->'streams'->'fast'->>'watermark')::bigint FROM releases WHERE stage = 'canary'
"""
ENDED = """
SELECT unit.sequence,
       record.started_at + record.duration_ms * interval '1 millisecond'
  FROM units unit JOIN access_records record USING (request_id)
 WHERE unit.canary = (SELECT candidate FROM releases WHERE id = %s) ORDER BY unit.sequence
"""
IN_FORCE = """
SELECT extract(epoch FROM change.applied_at - verdict.at)::float8, verdict.to_stage
  FROM weight_changes change JOIN verdicts verdict ON verdict.because = change.because
 WHERE change.applied_at IS NOT NULL
"""


class Watch:
    """Looks at the stored evidence again and again, and remembers when it first had each unit."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self._stop = stack, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: dict[str, list[tuple[int, datetime]]] = {}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        with self._stack.database() as connection:
            while not self._stop.wait(LOOK_SECONDS):
                for release, watermark in connection.execute(SEEN).fetchall():
                    known = self.seen.setdefault(release, [])
                    if not known or known[-1][0] < watermark:
                        known.append((watermark, datetime.now(UTC)))


def ages(stack: Stack, watch: Watch) -> list[float]:
    """Seconds from each judged answer's end until the stored evidence had it."""
    found = []
    with stack.database() as connection:
        for release, known in watch.seen.items():
            rows = connection.execute(ENDED, (release,)).fetchall()
            for (begin, _), (end, at) in itertools.pairwise(known):
                found += [
                    (at - ended).total_seconds() for place, ended in rows if begin < place <= end
                ]
    return found


@contextmanager
def serving(root: Path) -> Iterator[Stack]:
    stack = Stack(root)
    stack.prepare()
    stack.start()
    try:
        with Traffic(stack.gateway, USERS_PER_SECOND):
            yield stack
    finally:
        stack.stop()


def release(stack: Stack, number: int, drill: str) -> str:
    spec = stack.root / "project" / f"release-{number}.yaml"
    spec.write_text(SPEC.format(seed=number, drill=drill))
    return str(stack.end_of(stack.start_run(spec.stem), 300)["state"])


def share(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, round(part * len(values)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    good, bad = (1, 2) if parser.parse_args().quick else (3, 20)
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as stack:
        tiny.write_rows(stack.root / "project" / "good.jsonl", 240, seed=1)
        with Watch(stack) as watch:
            ends = [release(stack, number, "") for number in range(good)]
            ends += [release(stack, good + number, DRILL) for number in range(bad)]
        time.sleep(1.0)
        old = ages(stack, watch)
        with stack.database() as connection:
            rows = connection.execute(IN_FORCE).fetchall()
    moves = [seconds for seconds, _ in rows]
    falls = [seconds for seconds, stage in rows if stage == "rolled_back"]
    settings = f"{USERS_PER_SECOND:g} requests a second, {len(old)} answers, {ends}"
    publish("freshness", settings, [
        Result("evidence_age_median", statistics.median(old), "s"),
        Result("evidence_age_p95", share(old, 0.95), "s", 2.0),
        Result("verdict_in_force_median", statistics.median(moves) * 1000, "ms"),
        Result("verdict_in_force_p99", share(moves, 0.99) * 1000, "ms", 1000),
        Result("rollback_in_force_max", max(falls) * 1000, "ms", 1000),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
