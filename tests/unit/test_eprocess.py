"""Capital that starts at several times, and bounds by betting."""

from __future__ import annotations

import numpy as np
import pytest

from ratchet.stats.betting import MARGINS, RegressionBound
from ratchet.stats.eprocess import LATER_EPOCHS, Capital, epoch_share, log_average

PRIOR = np.log(np.array([0.5, 0.3, 0.2]))


def test_the_shares_of_all_epochs_are_one_capital() -> None:
    assert sum(epoch_share(epoch) for epoch in range(LATER_EPOCHS + 50)) == pytest.approx(1.0)


def test_capital_that_wins_nothing_stays_one_however_many_epochs_begin() -> None:
    capital = Capital.fresh((4, 3))
    for _ in range(LATER_EPOCHS + 3):
        assert np.exp(capital.log_e(PRIOR)) == pytest.approx(np.ones(4))
        capital = capital.grow(np.zeros((4, 3))).begin_epoch()

    assert np.exp(capital.log_e(PRIOR)) == pytest.approx(np.ones(4))


def test_what_was_lost_before_harm_began_does_not_hide_it_for_long() -> None:
    bet = np.full((1, 3), -0.5)
    lost, later = Capital.fresh((1, 3)), Capital.fresh((1, 3))
    for _ in range(40):
        lost = lost.grow(bet)
        later = later.grow(bet).begin_epoch()
    for _ in range(30):
        lost, later = lost.grow(-bet), later.grow(-bet)

    assert later.log_e(PRIOR)[0] > lost.log_e(PRIOR)[0] + 5


def test_an_average_is_one_of_its_weights() -> None:
    values = np.log(np.array([[1.0, 3.0]]))

    assert np.exp(log_average(values, np.array([0.25, 0.75]))) == pytest.approx([2.5])


def played(
    rates: tuple[float, float], blocks: int, runs: int = 300, share: float = 0.5
) -> RegressionBound:
    """Baseline and canary with these rates of bad units."""
    chance = np.random.default_rng(3)
    bound = RegressionBound.fresh((runs,))
    for _ in range(blocks):
        canary = chance.binomial(100, share, size=runs)
        bad = chance.binomial(canary, rates[1]), chance.binomial(100 - canary, rates[0])
        bound = bound.observe(
            np.full(runs, share),
            (canary, bad[0].astype(float)),
            (100 - canary, bad[1].astype(float)),
        )
    return bound


def test_the_bound_comes_down_to_the_regression_and_seldom_below() -> None:
    # The true regression is 1 %; the bound may be below it in 5 % of the runs at most.
    uppers = played((0.01, 0.02), blocks=200).upper(0.05)

    assert np.mean(uppers < 0.01) <= 0.07
    assert np.median(uppers) < 0.02


def test_a_canary_that_is_no_worse_is_proven_so() -> None:
    assert np.median(played((0.01, 0.01), blocks=100).upper(0.01)) <= 0.01


def test_before_anything_was_seen_nothing_is_excluded() -> None:
    assert RegressionBound.fresh((2,)).upper(0.01) == pytest.approx([1.0, 1.0])


def test_whole_values_and_counts_say_the_same() -> None:
    counted = RegressionBound.fresh((1,)).observe(
        np.array([0.2]), (np.array([3]), np.array([1.0])), (np.array([4]), np.array([2.0]))
    )
    nan = np.nan
    valued = RegressionBound.fresh((1,)).observe(
        np.array([0.2]), (np.array([3]), np.array([1.0])), (np.array([4]), np.array([2.0])),
        values=(np.array([[0.0, 1.0, 0.0, nan]]), np.array([[1.0, 0.0, 1.0, 0.0]])),
    )  # fmt: skip

    assert valued.log_capital == pytest.approx(counted.log_capital)
    assert counted.log_evidence().shape == (1, len(MARGINS))


def test_no_bet_can_lose_more_than_there_is() -> None:
    bound = RegressionBound.fresh((1,))
    for share in (0.01, 0.5, 0.99):
        bound = bound.observe(
            np.array([share]), (np.array([50]), np.array([50.0])), (np.array([50]), np.array([0.0]))
        )

    assert np.all(np.isfinite(bound.log_capital))
