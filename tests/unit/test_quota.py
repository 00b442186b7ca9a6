"""What a request can take at most, and budgets in whole numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.ledger import Budget, Period, Price, SubjectKind, Unit
from ratchet.core.quota import Refusal, Tokens, account, bound


def budget(unit: Unit, amount: str) -> Budget:
    return Budget(
        project="p", kind=SubjectKind.PROJECT, subject="", period=Period.DAY, unit=unit,
        amount=Decimal(amount),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("max_tokens", "choices", "most"),
    [(50, None, 50), (50, 3, 150), (None, None, 4096), (None, 2, 8192), (0, None, 0)],
)
def test_a_request_takes_no_more_than_its_bytes_and_what_it_asks_for(
    max_tokens: int | None, choices: int | None, most: int
) -> None:
    assert bound(200, max_tokens, choices, 4096) == Tokens(200, most)


@pytest.mark.parametrize(("max_tokens", "choices"), [(-1, None), (5, 0), (5, -2)])
def test_numbers_that_would_give_something_back_are_refused(
    max_tokens: int | None, choices: int | None
) -> None:
    with pytest.raises(Rejected):
        bound(200, max_tokens, choices, 4096)


def test_whole_numbers_are_rounded_against_the_spender() -> None:
    prices = [Price(Decimal("0.00015"), Decimal("0.6")), Price(Decimal("0.15"), Decimal("0.1"))]
    money = account("b", budget(Unit.USD, "2.5"), Decimal("0.0000000001"), prices)
    counted = account("b", budget(Unit.TOKENS, "100"), Decimal(7), prices)

    assert (money.limit, money.spent) == (2_500_000_000, 1)
    assert (money.prompt_nano, money.completion_nano) == (150, 600)
    assert (counted.limit, counted.spent, counted.prompt_nano) == (100, 7, 0)
    assert money.words == "2.5 usd a day for the project"


def test_without_a_price_dollars_cost_nothing() -> None:
    free = account("b", budget(Unit.USD, "1"), Decimal(0), [])

    assert (free.prompt_nano, free.completion_nano) == (0, 0)


def test_who_is_refused_is_told_which_budget_and_what_to_do() -> None:
    said = Refusal(account("b", budget(Unit.USD, "1"), Decimal(1), []).words).describe()

    assert "more than is left of 1 usd a day for the project" in said
    assert "max_tokens" in said
