"""What candidate and baseline answered, item by item, side by side, and what gates made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ratchet.core.artifact import RunId, Version, VersionId
from ratchet.core.errors import NotFound
from ratchet.core.gates import (
    GateVerdict,
    ItemResult,
    SuiteReport,
    compare_suites,
    majority_share,
    metrics_of,
)
from ratchet.core.run import StageName
from ratchet.kit.digest import digest_json
from ratchet.ports import ObjectStore, ProjectStore, Registry, RunStore, StageStore
from ratchet.stats.bootstrap import wilson_interval


@dataclass(frozen=True, slots=True)
class EvaluationParts:
    projects: ProjectStore
    runs: RunStore
    stages: StageStore
    registry: Registry
    objects: ObjectStore


@dataclass(frozen=True, slots=True)
class Compared:
    """One item as both sides answered it."""

    suite: str
    row: Mapping[str, Any]
    """The item as it was frozen: messages, metadata."""
    baseline: ItemResult
    candidate: ItemResult

    @property
    def became(self) -> str:
        """Of the candidate against the baseline: won, lost or tied."""
        if self.candidate.score == self.baseline.score:
            return "tied"
        return "won" if self.candidate.score > self.baseline.score else "lost"


async def compared(run_id: RunId, parts: EvaluationParts) -> list[Compared]:
    """Every item of every suite of a run, in their order.

    Raises `NotFound` when the run has not been evaluated, or its report was pruned.
    """
    run = await parts.runs.get(run_id)
    asked = dict((await parts.stages.get(run_id, StageName.EVALUATE)).detail)
    if "reports" not in asked:
        raise NotFound(f"run {run_id} has not been evaluated: it is {run.state.value}")
    frozen: dict[str, Any] = dict((await parts.stages.get(run_id, StageName.FREEZE)).detail)
    baseline = await _baseline(run.spec.project, asked, parts)
    old, new = await reports(frozen, asked, baseline, parts.registry, parts.objects)
    found = []
    for suite, before, after in zip(frozen["suites"], old, new, strict=True):
        rows = json.loads(await parts.objects.get(suite["uri"]))["rows"]
        by_key = {digest_json(row): row for row in rows}
        found += [
            Compared(suite["name"], by_key[item.key], earlier, item)
            for earlier, item in zip(before.items, after.items, strict=True)
        ]
    return found


async def _baseline(project: str, asked: Mapping[str, Any], parts: EvaluationParts) -> Version:
    """The version that was compared with; of old runs the one that serves now."""
    known = asked.get("baseline") or (await parts.projects.get(project)).baseline
    if known is None:
        raise NotFound(f"project {project} serves nothing to compare with")
    return await parts.registry.get(VersionId(known))


async def reports(
    frozen: Mapping[str, Any],
    asked: Mapping[str, Any],
    baseline: Version,
    registry: Registry,
    objects: ObjectStore,
) -> tuple[list[SuiteReport], list[SuiteReport]]:
    """Baseline's and candidate's reports, suite by suite.  Raises `NotFound`."""
    stored = json.loads(await objects.get(str(asked["reports"])))
    candidate = [suite_report(value) for value in stored["candidate"]]
    fresh = {value["digest"]: suite_report(value) for value in stored["baseline"]}
    weights = weights_of(baseline)
    before = []
    for suite in frozen["suites"]:
        known = await registry.evaluation(weights, suite["digest"]) or fresh.get(suite["digest"])
        if known is None:
            raise NotFound(
                f"{baseline.id} has not answered {suite['name']}: start a run to compare"
            )
        before.append(known)
    return before, candidate


def weights_of(version: Version) -> str:
    """What identifies the tensors that a version serves."""
    return digest_json({"base": version.base, "adapter": version.adapter_digest})


def suite_report(value: Mapping[str, Any]) -> SuiteReport:
    """A suite report as a worker wrote it."""
    items = tuple(ItemResult(**item) for item in value["items"])
    return SuiteReport(
        suite=value["suite"],
        digest=value["digest"],
        items=items,
        memory_bytes=value.get("memory_bytes", 0),
    )


def counted(items: Sequence[Compared]) -> dict[str, int]:
    """How many were won, lost and tied."""
    counts = {"won": 0, "lost": 0, "tied": 0}
    for item in items:
        counts[item.became] += 1
    return counts


# Enough to see what kind of item moved, few enough to read.
EXAMPLES_SHOWN = 5


def gate_detail(
    verdict: GateVerdict, baseline: Sequence[SuiteReport], candidate: Sequence[SuiteReport]
) -> dict[str, object]:
    """Everything `ratchet gate explain` shows."""
    suites = []
    for old, new in zip(baseline, candidate, strict=True):
        pairs = list(zip(old.items, new.items, strict=True))
        won = [_example(a, b) for a, b in pairs if b.score > a.score]
        lost = [_example(a, b) for a, b in pairs if b.score < a.score]
        comparison = compare_suites(old, new)
        right = round(sum(item.score for item in new.items))
        suites.append(
            {
                "suite": new.suite,
                "items": len(new.items),
                "majority": majority_share(new),
                "accuracy_interval": wilson_interval(right, len(new.items)),
                "difference": asdict(comparison),
                "won": won[:EXAMPLES_SHOWN],
                "lost": lost[:EXAMPLES_SHOWN],
            }
        )
    return {
        "passed": verdict.passed,
        "gates": [asdict(result) for result in verdict.results],
        "baseline": metrics_of(baseline),
        "candidate": metrics_of(candidate),
        "suites": suites,
    }


def _example(old: ItemResult, new: ItemResult) -> dict[str, str]:
    return {
        "prompt": new.prompt,
        "expected": new.expected,
        "baseline": old.answer,
        "candidate": new.answer,
    }
