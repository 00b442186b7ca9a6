"""What answers cost, and budgets that bound it.

Money is decimal and exact.  Days and months are those of UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from ratchet.core.errors import Rejected

WARN_SHARE = Decimal("0.8")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    prompt_usd: Decimal
    completion_usd: Decimal

    def __post_init__(self) -> None:
        if self.prompt_usd < 0 or self.completion_usd < 0:
            raise Rejected("a price is not below zero")


class SubjectKind(Enum):
    """Whose budget it is."""

    KEY = "key"
    TEAM = "team"
    PROJECT = "project"


class Period(Enum):
    DAY = "day"
    MONTH = "month"


class Unit(Enum):
    USD = "usd"
    TOKENS = "tokens"


class BudgetState(Enum):
    OK = "ok"
    WARNED = "warned"  # 80 % are used
    EXHAUSTED = "exhausted"  # its keys are refused until the next period


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a key, a team or a project may use in a day or a month."""

    project: str
    kind: SubjectKind
    subject: str
    """Id of the key or name of the team; empty for the project."""
    period: Period
    unit: Unit
    amount: Decimal

    def __post_init__(self) -> None:
        if self.amount <= 0:
            raise Rejected(f"budget of {self.amount}: expected more than zero")
        if (self.subject == "") != (self.kind is SubjectKind.PROJECT):
            raise Rejected("a budget is of a key or a team with its name, or of the project")

    def state(self, spent: Decimal) -> BudgetState:
        if spent >= self.amount:
            return BudgetState.EXHAUSTED
        return BudgetState.WARNED if spent >= self.amount * WARN_SHARE else BudgetState.OK

    def describe(self) -> str:
        whose = (
            "the project"
            if self.kind is SubjectKind.PROJECT
            else f"{self.kind.value} {self.subject}"
        )
        return f"{self.amount:f} {self.unit.value} a {self.period.value} for {whose}"
