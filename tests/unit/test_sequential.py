"""The e-values keep their promise: a mean of one over all labellings, and one look is as good as
a thousand."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.stats.sequential import (
    LOG_PRIOR,
    ODDS_RATIOS,
    BinaryEvidence,
    Block,
    log_e_binary,
    log_mean,
    log_sum_exp,
)


@pytest.mark.parametrize("odds_ratio", [ODDS_RATIOS[0], ODDS_RATIOS[7], ODDS_RATIOS[15]])
@pytest.mark.parametrize(("units", "canary", "bad"), [(6, 2, 3), (8, 4, 1), (7, 1, 5), (5, 5, 2)])
def test_the_block_value_averages_to_one_over_all_labellings(
    units: int, canary: int, bad: int, odds_ratio: float
) -> None:
    values = []
    for chosen in itertools.combinations(range(units), canary):
        block = Block(units, canary, bad, canary_bad=sum(i < bad for i in chosen))
        values.append(math.exp(log_e_binary(block, odds_ratio)))

    assert sum(values) / len(values) == pytest.approx(1.0, abs=1e-12)


def test_a_block_with_one_arm_only_says_nothing() -> None:
    assert log_e_binary(Block(9, 0, 4, 0), 8.0) == pytest.approx(0.0, abs=1e-12)
    assert log_e_binary(Block(9, 9, 4, 4), 8.0) == pytest.approx(0.0, abs=1e-12)


def test_evidence_grows_when_all_the_bad_are_in_the_canary() -> None:
    evidence = BinaryEvidence()
    for _ in range(5):
        evidence = evidence.observe(Block(100, 5, 3, 3))

    assert evidence.log_e > math.log(1e6)
    assert (evidence.canary_units, evidence.canary_bad) == (25, 15)


def test_the_prior_is_a_distribution() -> None:
    assert log_sum_exp(LOG_PRIOR) == pytest.approx(0.0, abs=1e-12)


def test_an_impossible_block_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="impossible"):
        Block(units=4, canary_units=1, bad=2, canary_bad=2)
    with pytest.raises(ValueError, match="impossible"):
        Block(units=4, canary_units=3, bad=3, canary_bad=0)


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=8))
def test_the_mean_of_logs_lies_between_its_ends(values: list[float]) -> None:
    assert min(values) - 1e-9 <= log_mean(values) <= max(values) + 1e-9


def test_no_mass_has_the_log_of_zero() -> None:
    assert log_sum_exp([-math.inf, -math.inf]) == -math.inf


def test_a_release_that_is_no_worse_is_rolled_back_less_often_than_promised() -> None:
    """Simulated under the null with a fixed seed: 400 canaries, a look after each of 120 blocks.

    The promise is 1 %; four crossings of 400 are its expectation, and more than eleven would have
    a chance below one in a thousand if it were kept.
    """
    chance = random.Random(7)
    crossed = sum(_crosses(chance) for _ in range(400))

    assert crossed <= 11


def _crosses(chance: random.Random) -> bool:
    evidence = BinaryEvidence()
    for _ in range(120):
        arms = [chance.random() < 0.2 for _ in range(20)]
        bad = [chance.random() < 0.1 for _ in range(20)]
        both = sum(a and b for a, b in zip(arms, bad, strict=True))
        evidence = evidence.observe(Block(20, sum(arms), sum(bad), both))
        if evidence.log_e >= math.log(100.0):
            return True
    return False
