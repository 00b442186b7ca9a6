"""The e-values of a block have a mean of one over all labellings, for any values at all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.stats.exchangeable import (
    SCORE_MAX,
    Floats,
    log_choose,
    log_e_binary,
    log_e_tilted,
    log_sum_exp,
)

RATIOS = np.array([1.12, 3.0, 71.0])
TILTS = np.array([-1.0, 0.05, 0.7, 2.5])


def labellings(units: int, canary: int) -> np.ndarray:
    """Every way to choose the canary, one a row."""
    rows = []
    for chosen in itertools.combinations(range(units), canary):
        row = np.zeros(units, dtype=bool)
        row[list(chosen)] = True
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("units", "canary", "bad"), [(6, 2, 3), (8, 4, 1), (7, 1, 5), (9, 8, 4)])
def test_a_yes_or_no_metric_averages_to_one_over_all_labellings(
    units: int, canary: int, bad: int
) -> None:
    ways = labellings(units, canary)
    hit = ways[:, :bad].sum(axis=1)

    values = np.exp(
        log_e_binary(
            np.full(len(ways), units), np.full(len(ways), canary), np.full(len(ways), bad), hit,
            RATIOS,
        )
    )  # fmt: skip

    assert values.mean(axis=0) == pytest.approx(np.ones(3), abs=1e-12)


scores = st.lists(st.floats(-9, 9), min_size=2, max_size=8)


@settings(max_examples=60)
@given(scores, st.data())
def test_any_scores_average_to_one_over_all_labellings(
    found: list[float], data: st.DataObject
) -> None:
    canary = data.draw(st.integers(0, len(found)))
    ways = labellings(len(found), canary)

    values = np.exp(log_e_tilted(np.tile(found, (len(ways), 1)), ways, TILTS))

    assert values.mean(axis=0) == pytest.approx(np.ones(len(TILTS)), abs=1e-12, rel=1e-11)


def test_two_values_are_a_yes_or_no_metric() -> None:
    bad = np.array([1.0, 0, 0, 1, 1, 0, 0, 0, 0, 1])
    canary = np.array([True, False, False, True, False, True, False, False, False, False])

    tilted = log_e_tilted(bad[None], canary[None], np.log(RATIOS))
    counted = log_e_binary(np.array([10]), np.array([3]), np.array([4]), np.array([2]), RATIOS)

    assert tilted == pytest.approx(counted, abs=1e-12)


def test_the_order_of_units_and_the_unit_of_a_score_do_not_matter() -> None:
    chance = np.random.default_rng(1)
    values, canary = chance.normal(size=(1, 40)), chance.random((1, 40)) < 0.3
    order = chance.permutation(40)

    one = log_e_tilted(values, canary, TILTS)

    assert log_e_tilted(values[:, order], canary[:, order], TILTS) == pytest.approx(one)
    # Shifted by any amount that keeps them inside of the cut.
    assert log_e_tilted(values + 2.0, canary, TILTS) == pytest.approx(one)


@pytest.mark.parametrize("sick", [np.nan, np.inf, 1e300])
def test_sick_numbers_count_as_worst_and_spoil_nothing(sick: float) -> None:
    values = np.array([[sick, 0.1, -0.2, 0.0]])
    canary = np.array([[True, False, False, False]])

    found = log_e_tilted(values, canary, TILTS)

    assert found == pytest.approx(
        log_e_tilted(np.array([[SCORE_MAX, 0.1, -0.2, 0.0]]), canary, TILTS)
    )


def test_scores_that_are_far_apart_stay_exact() -> None:
    values = np.array([[SCORE_MAX] * 60 + [-SCORE_MAX] * 60])
    canary = np.array([[True, False] * 60])

    found = log_e_tilted(values, canary, np.array([2.5]))
    counted = log_e_binary(
        np.array([120]), np.array([60]), np.array([60]), np.array([30]),
        np.exp(np.array([2.5 * 2 * SCORE_MAX])),
    )  # fmt: skip

    assert found == pytest.approx(counted, rel=1e-9)


@pytest.mark.parametrize("canary", [0, 5])
def test_a_block_with_one_arm_says_nothing(canary: int) -> None:
    labels = np.array([[canary > 0] * 5])
    counts = (np.array([5]), np.array([canary]), np.array([2]), np.array([2 if canary else 0]))

    assert log_e_tilted(np.arange(5.0)[None], labels, TILTS) == pytest.approx(np.zeros((1, 4)))
    assert log_e_binary(*counts, RATIOS) == pytest.approx(np.zeros((1, 3)), abs=1e-12)


def test_logs_of_sums_and_binomials() -> None:
    assert log_choose(np.array([5, 5, 5]), np.array([2, -1, 6])) == pytest.approx(
        [np.log(10), -np.inf, -np.inf]
    )
    assert log_sum_exp(np.array([-np.inf, -np.inf])) == -np.inf
    assert log_sum_exp(np.array([1000.0, 1000.0])) == pytest.approx(1000.0 + np.log(2))


def simulated(shift: float, runs: int = 400, blocks: int = 30) -> Floats:
    """The largest ln e of each run, at one tilt."""
    chance = np.random.default_rng(7)
    capital = np.zeros(runs)
    largest = capital
    for _ in range(blocks):
        canary = chance.random((runs, 50)) < 0.2
        values = chance.normal(size=(runs, 50)) + shift * canary
        capital = capital + log_e_tilted(values, canary, np.array([0.5]))[:, 0]
        largest = np.maximum(largest, capital)
    return largest


def test_without_harm_the_limit_is_seldom_reached_and_with_harm_always() -> None:
    # By Ville at most 5 %; 400 runs, so 8 % is three standard deviations away.
    assert np.mean(simulated(0.0) >= np.log(20)) <= 0.08
    assert np.mean(simulated(-0.5) >= np.log(20)) == 0.0
    assert np.mean(simulated(0.8) >= np.log(20)) == 1.0
