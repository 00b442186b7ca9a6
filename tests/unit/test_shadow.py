"""Pairs of answers: what counts, what is proven, and what waits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ratchet.core.analysis import LOG_SHADOW, Sight, judge_shadow
from ratchet.core.detectors import Detector
from ratchet.core.errors import Rejected
from ratchet.core.evidence import first_evidence
from ratchet.core.guards import KNOWN, Group, with_always
from ratchet.core.replay import Recorded, replay
from ratchet.core.rollout import Signal
from ratchet.core.shadow import (
    SHARE,
    Outcome,
    Pair,
    PairJudge,
    Preference,
    Shadow,
    comes_first,
    compared,
    outcome_of,
    shadowed,
)
from ratchet.core.spec import ReleasePlan
from ratchet.stats.paired import log_e_paired

LABELS = Detector("format", labels=("red", "blue"))
PLAN = ReleasePlan(
    guards=with_always([KNOWN["format"]]), detectors=(LABELS,), shadow=Shadow(pairs=50)
)
SEEN = Sight(seconds_since_record=0.0, canary_engine_down_seconds=0.0)
BEGUN = first_evidence(PLAN, {})
WORSE, SAME, BETTER = (Pair({"format": outcome}) for outcome in Outcome)


def test_the_evidence_of_a_fair_coin_is_one_on_average() -> None:
    """Exactly, over every way that ten pairs can come out."""
    lost: NDArray[np.int64] = np.array([sum(ways) for ways in itertools.product((0, 1), repeat=10)])

    assert float(np.exp(log_e_paired(lost, 10 - lost)).mean()) == pytest.approx(1.0, abs=1e-12)


def test_a_canary_that_is_no_worse_is_seldom_sent_back_however_long() -> None:
    chance = np.random.default_rng(1)
    lost: NDArray[np.int64] = np.cumsum(chance.random((2_000, 400)) < 0.5, axis=1)
    won = np.arange(1, 401) - lost

    stopped = (log_e_paired(lost, won) >= LOG_SHADOW).any(axis=1)

    assert stopped.mean() <= 0.01 * SHARE * 2


def test_a_pair_counts_where_one_of_the_two_is_bad() -> None:
    texts = [("red", "blue"), ("red", "green"), ("green", "red"), ("green", "grey")]

    found = [compared([LABELS], old, new)["format"] for old, new in texts]

    assert found == [Outcome.SAME, Outcome.WORSE, Outcome.BETTER, Outcome.SAME]


def test_a_judge_sees_the_two_in_an_order_of_chance_that_stays() -> None:
    orders = [comes_first("rel_1", f"q{number}") for number in range(400)]

    assert orders == [comes_first("rel_1", f"q{number}") for number in range(400)]
    assert 150 < sum(orders) < 250
    assert outcome_of(Preference.FIRST, is_new_first=True) is Outcome.BETTER
    assert outcome_of(Preference.FIRST, is_new_first=False) is Outcome.WORSE
    assert outcome_of(Preference.SECOND, is_new_first=True) is Outcome.WORSE
    assert outcome_of(Preference.NEITHER, is_new_first=True) is Outcome.SAME


def test_what_is_known_ends_at_the_first_pair_that_is_not_compared() -> None:
    seen = shadowed([WORSE, SAME, Pair(), BETTER, None, WORSE])

    assert (seen.known, seen.compared, seen.left) == (4, 3, 2)
    [check] = seen.checks
    assert (check.worse, check.same, check.better) == (1, 1, 1)


def test_checks_are_averaged_and_without_one_there_is_no_evidence() -> None:
    both = [Pair({"format": Outcome.WORSE, "judge": Outcome.SAME})] * 12
    single = [WORSE] * 12

    assert shadowed([]).log_harm == 0.0
    assert shadowed(both).log_harm == pytest.approx(
        math.log((math.exp(shadowed(single).log_harm) + 1.0) / 2.0)
    )


def test_a_shadow_ends_in_the_canary_or_in_nothing() -> None:
    def say(
        pairs: Sequence[Pair | None], sight: Sight = SEEN, problem: str = ""
    ) -> tuple[object, str]:
        verdict = judge_shadow(PLAN, shadowed(pairs), BEGUN, sight, problem)
        return verdict.signal, verdict.because

    silent = Pair(silence="connection refused")
    assert say([SAME] * 50)[0] is Signal.HEALTHY
    assert say([])[0] is Signal.HEALTHY
    assert say([SAME] * 49 + [None], problem="judge m: 401") == (
        None,
        "of 49 replayed prompts format: 0 worse, 0 better; 1 to go, waiting: judge m: 401",
    )
    signal, because = say([WORSE] * 30 + [None] * 20)
    assert signal is Signal.UNHEALTHY
    assert because.startswith("of 30 replayed prompts format: 30 worse, 0 better; evidence ")
    assert because.endswith("against a limit of 400; no user met it")
    signal, because = say([SAME, silent, silent, silent, silent, silent, None])
    assert (signal, because) == (
        Signal.DEAD,
        "the canary had no answer to 5 replayed prompts in a row: connection refused",
    )
    assert say([silent] * 4 + [SAME])[0] is Signal.HEALTHY
    assert say([SAME, SAME, SAME, silent] * 5 + [None]) == (
        Signal.DEAD,
        "the canary had no answer to 5 of 20 replayed prompts: connection refused",
    )
    down = Sight(seconds_since_record=0.0, canary_engine_down_seconds=31.0)
    assert say([None], down)[0] is Signal.DEAD
    frozen = Sight(seconds_since_record=0.0, canary_engine_down_seconds=0.0, freeze="fri")
    assert say([SAME] * 50, frozen)[0] is None
    long = Sight(
        seconds_since_record=0.0, canary_engine_down_seconds=0.0, seconds_since_verdict=8e5
    )
    assert say([SAME, None], long)[0] is Signal.ASK


def test_what_the_shadow_may_bet_is_taken_from_the_rest() -> None:
    plain = first_evidence(ReleasePlan(guards=PLAN.guards, detectors=PLAN.detectors), {})

    assert BEGUN.spent == SHARE
    for group in (Group.FAST, Group.JUDGED):
        assert BEGUN.shares()[group] == pytest.approx(plain.shares()[group] * 0.75)


def test_a_shadow_needs_something_that_compares() -> None:
    with pytest.raises(Rejected, match="expected a judge, or a guard that looks at answers"):
        ReleasePlan(shadow=Shadow())
    assert ReleasePlan(shadow=Shadow(judge=PairJudge(url="http://j", model="m"))).shadow
    with pytest.raises(Rejected, match="expected 1 to 10000"):
        Shadow(pairs=0)


def test_a_verdict_of_the_shadow_comes_out_again() -> None:
    pairs = [WORSE, SAME, *[BETTER] * 9]
    numbers = judge_shadow(PLAN, shadowed(pairs), BEGUN, SEEN, "").numbers
    recorded = Recorded("healthy", 0.0, "", numbers, {Group.FAST: 0, Group.JUDGED: 0})

    [same] = replay(BEGUN, {}, [recorded], pairs)
    [other] = replay(BEGUN, {}, [recorded], [SAME, *pairs[1:]])

    assert same.differences == []
    assert other.differences == ["shadow.format.e", "shadow.format.worse"]
