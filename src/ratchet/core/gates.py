"""Gates: offline checks of a candidate against the baseline, before any traffic.

Both sides answered the same items, so each gate on a score compares item by item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.core.errors import Rejected
from ratchet.core.spec import Gate
from ratchet.stats.bootstrap import PairedComparison, compare_paired, wilson_interval

INTERVAL_LEVEL = 0.95
# Fixed: the same report always gives the same interval.
BOOTSTRAP_SEED = 20261123
# Metrics where less is better; all others are scores where more is better.
LOWER_IS_BETTER = ("latency.", "cost.")


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


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """What one version scored on one suite, item by item, in the suite's order."""

    suite: str
    digest: str
    items: tuple[ItemResult, ...]


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


@dataclass(frozen=True, slots=True)
class GateVerdict:
    passed: bool
    results: tuple[GateResult, ...]

    @property
    def because(self) -> str:
        failed = [result.because for result in self.results if not result.passed]
        return "; ".join(failed) if failed else "all gates passed"


def metrics_of(reports: Sequence[SuiteReport]) -> dict[str, float]:
    """All metrics that a gate may name: `<suite>.accuracy`, `latency.p50_ms`, `latency.p95_ms`."""
    metrics: dict[str, float] = {}
    latencies: list[float] = []
    for report in reports:
        scores = [item.score for item in report.items]
        metrics[f"{report.suite}.accuracy"] = float(np.mean(scores))
        latencies += [item.latency_ms for item in report.items]
    metrics["latency.p50_ms"] = float(np.quantile(latencies, 0.5))
    metrics["latency.p95_ms"] = float(np.quantile(latencies, 0.95))
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
    """Judge a candidate.  Raises `Rejected` when a gate names a metric that no suite gives."""
    before, after = metrics_of(baseline), metrics_of(candidate)
    results = []
    for gate in gates:
        if gate.metric not in after:
            known = ", ".join(sorted(after))
            raise Rejected(f"gate names unknown metric {gate.metric}; this spec gives {known}")
        if gate.not_worse_than_baseline_by is None:
            results.append(_absolute(gate, before[gate.metric], after[gate.metric], candidate))
        else:
            results.append(_against_baseline(gate, before, after, baseline, candidate))
    return GateVerdict(all(result.passed for result in results), tuple(results))


def _absolute(
    gate: Gate, before: float, after: float, candidate: Sequence[SuiteReport]
) -> GateResult:
    if gate.at_least is not None:
        passed, wanted = after >= gate.at_least, f"at least {gate.at_least:g}"
    else:
        bound = gate.at_most or 0.0
        passed, wanted = after <= bound, f"at most {bound:g}"
    report = _suite_of(gate.metric, candidate)
    interval = None
    if report is not None:
        right = round(sum(item.score for item in report.items))
        interval = wilson_interval(right, len(report.items))
    return GateResult(
        gate=gate.describe(),
        metric=gate.metric,
        passed=passed,
        because=f"{gate.metric} is {after:.3g}, wanted {wanted}",
        candidate=after,
        baseline=before,
        interval=interval,
    )


def _against_baseline(
    gate: Gate,
    before: Mapping[str, float],
    after: Mapping[str, float],
    baseline: Sequence[SuiteReport],
    candidate: Sequence[SuiteReport],
) -> GateResult:
    was, now = before[gate.metric], after[gate.metric]
    allowed = gate.not_worse_than_baseline_by or 0.0
    margin = abs(was) * allowed if gate.relative else allowed
    old, new = _suite_of(gate.metric, baseline), _suite_of(gate.metric, candidate)
    if old is None or new is None:
        worse_by = now - was if gate.metric.startswith(LOWER_IS_BETTER) else was - now
        passed, interval, detail = worse_by <= margin, None, ""
    else:
        comparison = compare_suites(old, new)
        # Non-inferior: the whole interval must lie above the allowed loss, so that too few items
        # cannot pass by luck.
        passed = comparison.low >= -margin
        interval = (comparison.low, comparison.high)
        detail = (
            f" (95 % interval {comparison.low:+.3f} to {comparison.high:+.3f}, "
            f"won {comparison.won}, lost {comparison.lost})"
        )
    verb = "stays within" if passed else "breaks"
    return GateResult(
        gate=gate.describe(),
        metric=gate.metric,
        passed=passed,
        because=(
            f"{gate.metric} went from {was:.3g} to {now:.3g}{detail}, "
            f"which {verb} the allowed loss of {margin:.3g}"
        ),
        candidate=now,
        baseline=was,
        interval=interval,
    )


def compare_suites(baseline: SuiteReport, candidate: SuiteReport) -> PairedComparison:
    """Pair two reports by item.  Raises `Rejected` when they are not of the same items."""
    if [item.key for item in baseline.items] != [item.key for item in candidate.items]:
        raise Rejected(f"suite {candidate.suite}: baseline and candidate answered other items")
    return compare_paired(
        np.array([item.score for item in baseline.items], dtype=np.float64),
        np.array([item.score for item in candidate.items], dtype=np.float64),
        level=INTERVAL_LEVEL,
        seed=BOOTSTRAP_SEED,
    )


def _suite_of(metric: str, reports: Sequence[SuiteReport]) -> SuiteReport | None:
    suite = metric.rpartition(".")[0]
    return next((report for report in reports if report.suite == suite), None)
