"""Was the traffic split as it was asked for?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.stats.split import SplitCheck


@given(st.floats(0.01, 0.99), st.integers(1, 12), st.integers(0, 30), st.data())
def test_over_all_splits_that_there_can_be_the_evidence_averages_to_one(
    share: float, units: int, before: int, data: st.DataObject
) -> None:
    known = SplitCheck().observe(share, before, data.draw(st.integers(0, before)))
    mean = sum(
        math.comb(units, canary)
        * share**canary
        * (1 - share) ** (units - canary)
        * math.exp(known.observe(share, units, canary).log_e - known.log_e)
        for canary in range(units + 1)
    )

    assert mean == pytest.approx(1.0, abs=1e-9)


def test_a_right_split_is_seldom_doubted_and_a_wrong_one_always() -> None:
    chance = np.random.default_rng(4)

    def worst(asked: float, real: float, blocks: int) -> float:
        check, most = SplitCheck(), -math.inf
        for _ in range(blocks):
            check = check.observe(asked, 100, int(chance.binomial(100, real)))
            most = max(most, check.log_e)
        return most

    right = [worst(0.05, 0.05, 200) for _ in range(300)]
    wrong = [worst(0.05, 0.07, 200) for _ in range(20)]
    assert sum(log_e >= math.log(1000) for log_e in right) <= 2
    assert all(log_e >= math.log(1000) for log_e in wrong)


def test_another_share_counts_anew_and_keeps_the_evidence() -> None:
    first = SplitCheck().observe(0.05, 100, 20)

    second = first.observe(0.5, 100, 50)

    assert (second.units, second.canary, second.realised) == (100, 50, 0.5)
    assert second.log_e == pytest.approx(first.log_e, abs=0.5)
    assert math.isnan(SplitCheck().realised)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_one_arm_alone_is_no_split(share: float) -> None:
    assert SplitCheck().observe(share, 10, 10) == SplitCheck()
