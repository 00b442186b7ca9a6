"""Gates: floors, comparisons with the baseline, and what they say."""

from __future__ import annotations

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.gates import ItemResult, SuiteReport, decide_gates, majority_share, metrics_of
from ratchet.core.spec import Gate


def report(scores: list[float], latency_ms: float = 100.0, suite: str = "s") -> SuiteReport:
    items = tuple(
        ItemResult(f"k{i}", f"prompt {i}", "yes" if i % 3 else "no", "a", score, latency_ms)
        for i, score in enumerate(scores)
    )
    return SuiteReport(suite, "d", items)


def test_a_floor_is_met_or_not() -> None:
    floor = Gate(metric="s.accuracy", at_least=0.6)
    baseline = [report([0.0] * 10)]

    passed = decide_gates([floor], baseline, [report([1.0] * 7 + [0.0] * 3)])
    failed = decide_gates([floor], baseline, [report([1.0] * 5 + [0.0] * 5)])

    assert passed.passed
    assert passed.results[0].interval is not None
    assert not failed.passed
    assert failed.because == "s.accuracy is 0.5, wanted at least 0.6"


def test_a_ceiling_is_met_or_not() -> None:
    ceiling = Gate(metric="latency.p95_ms", at_most=150)

    slow = decide_gates([ceiling], [report([1.0])], [report([1.0], latency_ms=200.0)])

    assert not slow.passed


def test_not_worse_needs_the_whole_interval_above_the_allowed_loss() -> None:
    gate = Gate(metric="s.accuracy", not_worse_than_baseline_by=0.05)
    baseline = report([1.0] * 80 + [0.0] * 20)
    slightly_worse_few_items = report([1.0] * 78 + [0.0] * 22)

    same = decide_gates([gate], [baseline], [baseline])
    worse = decide_gates([gate], [baseline], [report([1.0] * 60 + [0.0] * 40)])
    unsure = decide_gates([gate], [baseline], [slightly_worse_few_items])

    assert same.passed
    assert not worse.passed
    assert "lost 20" in worse.because
    assert unsure.results[0].interval is not None
    assert unsure.passed == (unsure.results[0].interval[0] >= -0.05)


def test_a_relative_margin_on_latency_is_a_share_of_the_baseline() -> None:
    gate = Gate(metric="latency.p95_ms", not_worse_than_baseline_by=0.10, relative=True)

    within = decide_gates([gate], [report([1.0])], [report([1.0], latency_ms=109.0)])
    beyond = decide_gates([gate], [report([1.0])], [report([1.0], latency_ms=111.0)])

    assert within.passed
    assert not beyond.passed


def test_an_unknown_metric_names_those_that_exist() -> None:
    with pytest.raises(Rejected, match=r"s\.accuracy"):
        decide_gates([Gate(metric="x", at_least=1)], [report([1.0])], [report([1.0])])


def test_other_items_cannot_be_compared() -> None:
    gate = Gate(metric="s.accuracy", not_worse_than_baseline_by=0.1)

    with pytest.raises(Rejected, match="other items"):
        decide_gates([gate], [report([1.0, 1.0])], [report([1.0])])


def test_a_gate_has_exactly_one_bound() -> None:
    with pytest.raises(Rejected, match="exactly one"):
        Gate(metric="s.accuracy")
    assert Gate(metric="m", at_most=2).describe() == "m at most 2"
    relative = Gate(metric="m", not_worse_than_baseline_by=0.1, relative=True)
    assert relative.describe() == "m not worse than the baseline by 10%"


def test_majority_and_metrics_come_from_the_items() -> None:
    assert majority_share(report([1.0] * 9)) == pytest.approx(6 / 9)
    assert metrics_of([report([1.0, 0.0])])["s.accuracy"] == 0.5
