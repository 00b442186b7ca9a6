"""Gates: offline checks of a candidate against the baseline, before any traffic.

Both sides answered the same items, so each gate on a score compares item by item.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ratchet.core.checks import macro_f1
from ratchet.core.errors import Rejected
from ratchet.core.spec import Gate
from ratchet.stats.bootstrap import PairedComparison, compare_paired, wilson_interval

INTERVAL_LEVEL = 0.95
# Fixed: the same report always gives the same interval.
BOOTSTRAP_SEED = 20261123
# Metrics where less is better; all others are scores where more is better.
LOWER_IS_BETTER = ("latency.", "memory.", "tokens.")
# Of one item each, so that two versions are compared item by item.
OF_ITEMS = ("accuracy", "score")
# So many different expected answers are still classes.
CLASSES_MAX = 50


@dataclass(frozen=True, slots=True)
class ItemResult:
    """One evaluation item as one version answered it."""

    key: str
    """Digest of the item, the same for candidate and baseline."""
    prompt: str
    expected: str
    answer: str
    score: float
    latency_ms: float
    metadata: Mapping[str, str] = field(default_factory=dict)
    tokens: int = 0
    """Of the answer; 0 where the engine does not say."""


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """What one version scored on one suite, item by item, in the suite's order."""

    suite: str
    digest: str
    items: tuple[ItemResult, ...]
    memory_bytes: int = 0
    """At most, of the engine so far; 0 where it is not known."""

    def within(self, key: str, value: str) -> SuiteReport:
        items = tuple(item for item in self.items if item.metadata.get(key) == value)
        return replace(self, items=items)


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate's answer, with its reason as a sentence and as numbers."""

    gate: str
    metric: str
    passed: bool
    because: str
    candidate: float
    baseline: float
    interval: tuple[float, float] | None
    items_wanted: int | None = None
    """Set where the items are too few to tell: about so many would."""


@dataclass(frozen=True, slots=True)
class GateVerdict:
    passed: bool
    results: tuple[GateResult, ...]

    @property
    def because(self) -> str:
        failed = [result.because for result in self.results if not result.passed]
        return "; ".join(failed) if failed else "all gates passed"


def metrics_of(reports: Sequence[SuiteReport]) -> dict[str, float]:
    """All metrics that a gate may name: of each suite `accuracy` (the mean of its scores, also
    called `score`) and, where it has classes, `macro_f1`; of all together `latency.p50_ms`,
    `latency.p95_ms`, `tokens_per_second`, `tokens.per_answer` (what an answer costs at a fixed
    price of a token) and `memory.peak_mb`."""
    metrics: dict[str, float] = {}
    items = [item for report in reports for item in report.items]
    for report in reports:
        mean = float(np.mean([item.score for item in report.items]))
        metrics |= {f"{report.suite}.{name}": mean for name in OF_ITEMS}
        expected = [item.expected for item in report.items]
        if len(set(expected)) <= CLASSES_MAX:
            said = [item.answer for item in report.items]
            metrics[f"{report.suite}.macro_f1"] = macro_f1(expected, said)
    latencies = [item.latency_ms for item in items]
    metrics["latency.p50_ms"] = float(np.quantile(latencies, 0.5))
    metrics["latency.p95_ms"] = float(np.quantile(latencies, 0.95))
    if all(item.tokens for item in items):
        tokens = sum(item.tokens for item in items)
        metrics["tokens_per_second"] = tokens / max(sum(latencies), 1e-9) * 1000.0
        metrics["tokens.per_answer"] = tokens / len(items)
    if all(report.memory_bytes for report in reports):
        metrics["memory.peak_mb"] = max(report.memory_bytes for report in reports) / 1e6
    return metrics


def majority_share(report: SuiteReport) -> float:
    """What always answering the commonest expected answer would score."""
    counts: dict[str, int] = {}
    for item in report.items:
        counts[item.expected] = counts.get(item.expected, 0) + 1
    return max(counts.values()) / len(report.items)


def decide_gates(
    gates: Sequence[Gate], baseline: Sequence[SuiteReport], candidate: Sequence[SuiteReport]
) -> GateVerdict:
    """Judge a candidate.  Raises `Rejected` when a gate names a metric that no suite gives, or
    slices that no item has."""
    results: list[GateResult] = []
    for gate in gates:
        parts = _slices(gate, candidate) if gate.slices else [""]
        # Looked at in many slices, one is bad by chance: each takes a part of what may be wrong.
        level = 1.0 - (1.0 - INTERVAL_LEVEL) / len(parts)
        for value in parts:
            old, new = ([r.within(gate.slices, value) for r in side] if value else side
                        for side in (baseline, candidate))  # fmt: skip
            results.append(_judge(gate, value, _with_items(old), _with_items(new), level))
    return GateVerdict(all(result.passed for result in results), tuple(results))


def _with_items(reports: Sequence[SuiteReport]) -> list[SuiteReport]:
    return [report for report in reports if report.items]


def _slices(gate: Gate, candidate: Sequence[SuiteReport]) -> list[str]:
    report = _suite_of(gate.metric, candidate)
    reports = candidate if report is None else [report]
    found = {item.metadata.get(gate.slices, "") for each in reports for item in each.items} - {""}
    if not found:
        raise Rejected(
            f"gate on {gate.metric}: no item has metadata.{gate.slices}: add it to the suite's rows"
        )
    return sorted(found)


def _judge(
    gate: Gate,
    value: str,
    baseline: Sequence[SuiteReport],
    candidate: Sequence[SuiteReport],
    level: float,
) -> GateResult:
    before, after = metrics_of(baseline), metrics_of(candidate)
    if gate.metric not in after or gate.metric not in before:
        known = ", ".join(sorted(set(before) & set(after)))
        raise Rejected(f"gate names unknown metric {gate.metric}; this spec gives {known}")
    name = f"{gate.metric} where {gate.slices} is {value}" if value else gate.metric
    pair = _pair(gate.metric, baseline, candidate, level)
    was, now = before[gate.metric], after[gate.metric]
    if gate.at_least is not None or gate.at_most is not None:
        return _absolute(gate, name, was, now, _interval(gate.metric, candidate))
    return _against_baseline(gate, name, was, now, pair)


def _interval(metric: str, candidate: Sequence[SuiteReport]) -> tuple[float, float] | None:
    report = _suite_of(metric, candidate)
    if report is None or metric.rpartition(".")[2] not in OF_ITEMS:
        return None
    return wilson_interval(round(sum(item.score for item in report.items)), len(report.items))


def _absolute(
    gate: Gate, name: str, was: float, now: float, interval: tuple[float, float] | None
) -> GateResult:
    if gate.at_least is not None:
        passed, wanted = now >= gate.at_least, f"at least {gate.at_least:g}"
    else:
        bound = gate.at_most or 0.0
        passed, wanted = now <= bound, f"at most {bound:g}"
    return GateResult(
        gate=gate.describe(),
        metric=gate.metric,
        passed=passed,
        because=f"{name} is {now:.3g}, wanted {wanted}",
        candidate=now,
        baseline=was,
        interval=interval,
    )


def _against_baseline(
    gate: Gate, name: str, was: float, now: float, pair: _Pair | None
) -> GateResult:
    """A candidate may lose an allowance, or must win one: the whole interval lies above, so that
    too few items cannot pass by luck."""
    if gate.better_than_baseline_by is not None:
        bound = gate.better_than_baseline_by
        verbs, wanted = ("shows", "does not show"), f"the wanted gain of {bound:.3g}"
    else:
        allowed = gate.not_worse_than_baseline_by or 0.0
        margin = abs(was) * allowed if gate.relative else allowed
        bound = -margin
        verbs, wanted = ("stays within", "breaks"), f"the allowed loss of {margin:.3g}"
    gain = was - now if gate.metric.startswith(LOWER_IS_BETTER) else now - was
    passed = gain >= bound if pair is None else pair.found.low >= bound
    wants = None if pair is None or passed else pair.items_wanted(bound)
    because = (
        f"{name} went from {was:.3g} to {now:.3g}{pair or ''}, which {verbs[not passed]} {wanted}"
    )
    if pair is not None and wants is not None:
        because += f"; {pair.items} items are too few to tell, some {wants} would"
    return GateResult(
        gate=gate.describe(),
        metric=gate.metric,
        passed=passed,
        because=because,
        candidate=now,
        baseline=was,
        interval=None if pair is None else (pair.found.low, pair.found.high),
        items_wanted=wants,
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both versions compared item by item."""

    found: PairedComparison
    items: int
    level: float

    def __str__(self) -> str:
        found = self.found
        return (
            f" ({100 * self.level:.4g} % interval {found.low:+.3f} to {found.high:+.3f}, won "
            f"{found.won}, lost {found.lost})"
        )

    def items_wanted(self, bound: float) -> int | None:
        """Items at which an interval around the same difference would lie above the bound; None
        where more would not help, because the difference itself does not."""
        room = self.found.difference - bound
        if room <= 0:
            return None
        half = self.found.difference - self.found.low
        return math.ceil(self.items * (half / room) ** 2)


def _pair(
    metric: str, baseline: Sequence[SuiteReport], candidate: Sequence[SuiteReport], level: float
) -> _Pair | None:
    """Both versions item by item, where the metric is of items."""
    old, new = _suite_of(metric, baseline), _suite_of(metric, candidate)
    if old is None or new is None or metric.rpartition(".")[2] not in OF_ITEMS:
        return None
    return _Pair(compare_suites(old, new, level), len(new.items), level)


def compare_suites(
    baseline: SuiteReport, candidate: SuiteReport, level: float = INTERVAL_LEVEL
) -> PairedComparison:
    """Pair two reports by item.  Raises `Rejected` when they are not of the same items."""
    if [item.key for item in baseline.items] != [item.key for item in candidate.items]:
        raise Rejected(f"suite {candidate.suite}: baseline and candidate answered other items")
    return compare_paired(
        np.array([item.score for item in baseline.items], dtype=np.float64),
        np.array([item.score for item in candidate.items], dtype=np.float64),
        level=level,
        seed=BOOTSTRAP_SEED,
    )


def _suite_of(metric: str, reports: Sequence[SuiteReport]) -> SuiteReport | None:
    suite = metric.rpartition(".")[0]
    return next((report for report in reports if report.suite == suite), None)
