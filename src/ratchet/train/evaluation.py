"""The stage `evaluate`: candidate and baseline answer suites, each through an engine of its own.

Engines are other processes, so this one needs no torch: it starts in a moment and stays small.
"""

from __future__ import annotations

import argparse
import json
import shutil
from typing import Any

from ratchet.engine.objects import fetch_adapter
from ratchet.harness import Harness
from ratchet.kit.processes import peak_memory_bytes
from ratchet.train.desk import Desk
from ratchet.train.evaluate import EngineArguments, answers_in, engine, run_suite
from ratchet.train.job import Preempted
from ratchet.train.store import Store


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
    harness = Harness(options.lm_eval_python, options.lm_eval_include)
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
        with engine(arguments, log) as running:
            desk.report({"doing": f"asking the {side}"}, [])
            for suite in wanted:
                kept = log.parent / f"answers-{side}-{suite['digest']}.jsonl"
                name = assignment["served_name"]
                report = run_suite(suite, running.url, name, kept, progress.item, harness=harness)
                report["memory_bytes"] = peak_memory_bytes(running.pid)
                reports[side].append(report)
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
