"""Exact budgets: what a request may take at most is put aside before it is let in.

Put aside is an upper bound: a token is at least one byte of the body, and an answer has no more
tokens than was asked for.  What it really took replaces it when the answer is over, and the ledger
replaces that.  So what is spent and put aside together never passes the budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum

from ratchet.core.errors import Rejected
from ratchet.core.ledger import Budget, Price, Unit

# Money is counted in billionths of a dollar, so that whole numbers are enough.
NANO = Decimal(10) ** 9
MILLION = 10**6
ANSWER_PATHS = ("/v1/chat/completions", "/v1/completions")


class Away(Enum):
    """What a route does when nobody can say what is left."""

    ALLOW = "allow"  # and the ledger refuses within two seconds, as it does everywhere
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """Routes whose budgets are exact."""

    paths: tuple[str, ...] = ANSWER_PATHS
    away: Away = Away.ALLOW
    answer_tokens: int = 4096
    """How long an answer may become that was asked for without `max_tokens`."""

    def __post_init__(self) -> None:
        if unknown := [path for path in self.paths if path not in ANSWER_PATHS]:
            raise Rejected(
                f"gateway.exact.paths: {unknown[0]}, expected of {', '.join(ANSWER_PATHS)}"
            )
        if not self.paths or not 1 <= self.answer_tokens <= 10_000_000:
            raise Rejected("gateway.exact: expected a path, and answer_tokens from 1")


@dataclass(frozen=True, slots=True)
class Tokens:
    prompt: int
    completion: int


def bound(
    body_bytes: int, max_tokens: int | None, choices: int | None, answer_tokens: int
) -> Tokens:
    """The most that a request can take.  Raises `Rejected` for numbers that no engine takes."""
    most = answer_tokens if max_tokens is None else max_tokens
    times = 1 if choices is None else choices
    if body_bytes < 0 or most < 0 or times < 1:
        raise Rejected("max_tokens and n: expected whole numbers above zero")
    return Tokens(body_bytes, most * times)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A budget as reservations see it: in whole tokens, or billionths of a dollar."""

    id: str
    limit: int
    spent: int
    prompt_nano: int
    """Of one token; 0 for both where tokens are counted."""
    completion_nano: int
    words: str
    """The budget, for who is refused."""


def account(id_: str, budget: Budget, spent: Decimal, prices: Iterable[Price]) -> Account:
    """A budget in whole numbers, each rounded against the spender.

    The dearest of the prices counts until the ledger has the answer, because nobody knows which
    version will give it.
    """
    if budget.unit is Unit.TOKENS:
        limit, used, dear = int(budget.amount), math.ceil(spent), Price(Decimal(0), Decimal(0))
    else:
        limit, used = int(budget.amount * NANO), math.ceil(spent * NANO)
        known = list(prices)
        dear = Price(
            max((price.prompt_usd for price in known), default=Decimal(0)),
            max((price.completion_usd for price in known), default=Decimal(0)),
        )
    return Account(
        id=id_,
        limit=limit,
        spent=used,
        prompt_nano=math.ceil(dear.prompt_usd * NANO / MILLION),
        completion_nano=math.ceil(dear.completion_usd * NANO / MILLION),
        words=budget.describe(),
    )


@dataclass(frozen=True, slots=True)
class Accounts:
    """All accounts of a project, and whose they are."""

    accounts: tuple[Account, ...]
    of_keys: Mapping[str, tuple[str, ...]]
    """Ids of the accounts of a key, its team's included."""
    of_all: tuple[str, ...]
    """Those of the project."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which budget has not enough left."""

    words: str

    def describe(self) -> str:
        return (
            f"what this request may take at most is more than is left of {self.words}; "
            "ask for less (max_tokens), or wait until requests in flight have ended"
        )
