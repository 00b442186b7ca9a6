"""What workers cost: before, meanwhile, and at the line."""

from __future__ import annotations

import pytest

from ratchet.core.compute import check_budget, cost_usd, estimate, is_used_up
from ratchet.core.errors import Rejected
from ratchet.core.place import Place

HOUR_OF_A_DOLLAR = Place(usd_per_hour=1.0, budget_usd=0.5)


def test_a_worker_costs_its_time() -> None:
    assert cost_usd(1800.0, HOUR_OF_A_DOLLAR) == pytest.approx(0.5)
    assert cost_usd(1800.0, Place()) == 0.0


def test_a_run_stops_before_the_look_that_would_find_it_over() -> None:
    assert not is_used_up(1797.9 / 3600, HOUR_OF_A_DOLLAR)
    assert is_used_up(1798.0 / 3600, HOUR_OF_A_DOLLAR)
    assert not is_used_up(1e9, Place(usd_per_hour=1.0)), "without a budget there is no line"


def test_without_money_there_is_no_other_attempt() -> None:
    check_budget(0.1, HOUR_OF_A_DOLLAR)
    with pytest.raises(Rejected, match=r"0.5 USD are used up .*goes on from it"):
        check_budget(0.5, HOUR_OF_A_DOLLAR)


def test_a_budget_needs_a_price() -> None:
    with pytest.raises(Rejected, match=r"train\.budget_usd needs train\.usd_per_hour"):
        Place(budget_usd=1.0)


def test_nothing_is_estimated_before_the_first_training() -> None:
    assert estimate(1e6, None, HOUR_OF_A_DOLLAR).notes == ()


def test_time_and_money_are_estimated_from_the_last_training() -> None:
    found = estimate(120_000.0, 100.0, HOUR_OF_A_DOLLAR)

    assert found.problems == ()
    assert found.notes == (
        "train: about 1200 s, 0.33 USD (120000 tokens at the last training's 100 a second)",
    )
    assert found.facts == {"estimated_seconds": 1200, "estimated_usd": 0.3333}


def test_what_cannot_be_done_in_time_or_for_the_money_is_said_before() -> None:
    place = Place(usd_per_hour=1.0, budget_usd=0.1, deadline_seconds=600.0)

    late, dear = estimate(120_000.0, 100.0, place).problems

    assert late.startswith("train.deadline: found 600 s, the training takes about 1200 s")
    assert dear.startswith("train.budget_usd: found 0.1, the training costs about 0.33 USD")
