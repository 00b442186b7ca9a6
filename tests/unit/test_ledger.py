"""Money and budgets as values."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.ledger import Budget, BudgetState, Period, Price, SubjectKind, Unit


def budget(**changes: object) -> Budget:
    values: dict[str, object] = {
        "project": "p",
        "kind": SubjectKind.TEAM,
        "subject": "search",
        "period": Period.MONTH,
        "unit": Unit.USD,
        "amount": Decimal(10),
    }
    return Budget(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spent", "state"),
    [
        ("0", BudgetState.OK),
        ("7.999999", BudgetState.OK),
        ("8", BudgetState.WARNED),
        ("9.999999", BudgetState.WARNED),
        ("10", BudgetState.EXHAUSTED),
        ("11", BudgetState.EXHAUSTED),
    ],
)
def test_a_budget_warns_at_four_fifths_and_ends_at_its_amount(
    spent: str, state: BudgetState
) -> None:
    assert budget().state(Decimal(spent)) is state


def test_a_budget_says_whose_it_is() -> None:
    assert budget().describe() == "10 usd a month for team search"
    whole = budget(kind=SubjectKind.PROJECT, subject="", unit=Unit.TOKENS, period=Period.DAY)
    assert whole.describe() == "10 tokens a day for the project"


@pytest.mark.parametrize(
    "impossible",
    [{"amount": Decimal(0)}, {"subject": ""}, {"kind": SubjectKind.PROJECT, "subject": "x"}],
)
def test_an_impossible_budget_is_refused(impossible: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        budget(**impossible)


def test_a_price_below_zero_is_refused() -> None:
    with pytest.raises(Rejected):
        Price(Decimal(-1), Decimal(0))
