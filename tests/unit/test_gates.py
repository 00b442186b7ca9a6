"""Gates: floors, comparisons with the baseline, and what they say."""

from __future__ import annotations

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.gates import ItemResult, SuiteReport, decide_gates, majority_share, metrics_of
from ratchet.core.spec import Gate


def report(
    scores: list[float], latency_ms: float = 100.0, suite: str = "s", tokens: int = 0, mb: int = 0
) -> SuiteReport:
    items = tuple(
        ItemResult(
            *(f"k{i}", f"prompt {i}", "yes" if i % 3 else "no", "a", score, latency_ms),
            tokens=tokens,
        )
        for i, score in enumerate(scores)
    )
    return SuiteReport(suite, "d", items, memory_bytes=mb * 1_000_000)


def test_a_floor_is_met_or_not() -> None:
    floor = Gate(metric="s.accuracy", at_least=0.6)
    baseline = [report([0.0] * 10)]

    passed = decide_gates([floor], baseline, [report([1.0] * 7 + [0.0] * 3)])
    failed = decide_gates([floor], baseline, [report([1.0] * 5 + [0.0] * 5)])

    assert passed.passed
    assert passed.results[0].interval is not None
    assert not failed.passed
    assert failed.because == "s.accuracy is 0.5, wanted at least 0.6"


def test_a_version_may_not_talk_or_take_more_than_is_allowed() -> None:
    gates = [
        Gate(metric="tokens.per_answer", not_worse_than_baseline_by=0.1, relative=True),
        Gate(metric="memory.peak_mb", at_most=900.0),
    ]
    baseline = [report([1.0], tokens=10, mb=800)]

    same = decide_gates(gates, baseline, [report([1.0], tokens=11, mb=850)])
    more = decide_gates(gates, baseline, [report([1.0], tokens=12, mb=950)])

    assert same.passed
    assert (
        "tokens.per_answer went from 10 to 12, which breaks the allowed loss of 1" in more.because
    )
    assert "memory.peak_mb is 950, wanted at most 900" in more.because


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


def in_languages(*scores: tuple[str, float]) -> SuiteReport:
    items = tuple(
        ItemResult(
            f"k{i}", "p", "yes", "a", score, 100.0, {"language": language} if language else {}
        )
        for i, (language, score) in enumerate(scores)
    )
    return SuiteReport("s", "d", items)


def test_a_floor_may_hold_within_each_slice() -> None:
    gate = Gate(metric="s.accuracy", at_least=0.5, slices="language")
    good = in_languages(("de", 1.0), ("de", 0.0), ("en", 1.0), ("", 0.0))
    bad = in_languages(("de", 0.0), ("de", 0.0), ("en", 1.0), ("", 1.0))

    fine, failed = decide_gates([gate], [good], [good]), decide_gates([gate], [good], [bad])

    assert fine.passed
    assert len(fine.results) == 2
    assert failed.because == "s.accuracy where language is de is 0, wanted at least 0.5"
    assert gate.describe() == "s.accuracy at least 0.5, within each language"


def test_in_many_slices_each_interval_is_wider() -> None:
    one = Gate(metric="s.accuracy", not_worse_than_baseline_by=0.5)
    each = Gate(metric="s.accuracy", not_worse_than_baseline_by=0.5, slices="language")
    baseline = in_languages(*((f"l{i % 4}", float(i % 8 < 6)) for i in range(160)))
    candidate = in_languages(*((f"l{i % 4}", float(i % 8 < 5)) for i in range(160)))

    [whole] = decide_gates([one], [baseline], [candidate]).results
    within = decide_gates([each], [baseline], [candidate]).results

    assert "(95 % interval" in whole.because
    assert all("(98.75 % interval" in result.because for result in within)


def test_slices_that_no_item_has_are_refused() -> None:
    gate = Gate(metric="latency.p95_ms", at_most=1.0, slices="tenant")

    with pytest.raises(Rejected, match=r"no item has metadata\.tenant"):
        decide_gates([gate], [report([1.0])], [report([1.0])])


def test_a_gate_may_ask_for_a_gain() -> None:
    gate = Gate(metric="s.accuracy", better_than_baseline_by=0.1)
    baseline = report([0.0] * 100)

    better = decide_gates([gate], [baseline], [report([1.0] * 60 + [0.0] * 40)])
    same = decide_gates([gate], [baseline], [baseline])

    assert better.passed
    assert better.results[0].because.endswith("which shows the wanted gain of 0.1")
    assert not same.passed
    assert "which does not show the wanted gain of 0.1" in same.because
    assert same.results[0].items_wanted is None
    assert gate.describe() == "s.accuracy better than the baseline by 0.1"


def test_too_few_items_say_how_many_would_do() -> None:
    gate = Gate(metric="s.accuracy", not_worse_than_baseline_by=0.02)
    baseline = report([1.0, 0.0] * 50)
    candidate = report([0.0, 1.0] * 10 + [1.0, 0.0] * 40)

    unsure = decide_gates([gate], [baseline], [candidate])

    [result] = unsure.results
    assert not unsure.passed
    assert result.items_wanted is not None
    assert result.items_wanted > 100
    assert f"100 items are too few to tell, some {result.items_wanted} would" in unsure.because
    # With so many items of the same kind it does pass.
    copies = -(-result.items_wanted // 100) + 4
    many = decide_gates(
        [gate],
        [report([item.score for item in baseline.items] * copies)],
        [report([item.score for item in candidate.items] * copies)],
    )
    assert many.passed


def test_metrics_of_all_items_together() -> None:
    classes = SuiteReport(
        "s",
        "d",
        tuple(
            ItemResult(
                f"k{i}", "p", "yes" if i % 2 else "no", "yes", float(i % 2), 500.0, tokens=10
            )
            for i in range(4)
        ),
    )
    many = SuiteReport(
        "m", "d", tuple(ItemResult(f"k{i}", "p", f"{i}", "a", 0.5, 1.0) for i in range(60))
    )

    metrics = metrics_of([classes])

    assert metrics["s.score"] == metrics["s.accuracy"] == 0.5
    assert metrics["s.macro_f1"] == pytest.approx(1 / 3)
    assert metrics["tokens_per_second"] == 20.0
    assert "tokens_per_second" not in metrics_of([many])
    assert "m.macro_f1" not in metrics_of([many])
