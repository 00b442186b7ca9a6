"""Where a training ran, piece by piece, and what that cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

HOUR = 3600.0
# One letter a kind, in a line of text.
LETTERS = {"spot": "s", "on_demand": "D", "any": "#", "waits": "."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One machine, or a wait between two."""

    kind: str
    """`spot`, `on_demand`, `any`, or `waits`."""
    zone: str
    began_at: datetime
    ended_at: datetime
    end: str
    """How it ended: the state of its attempt; empty for a wait."""
    usd_per_hour: float = 0.0

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.began_at).total_seconds()


def with_waits(machines: Sequence[Piece], began_at: datetime) -> list[Piece]:
    """The machines in their order, and the waits before and between them."""
    found: list[Piece] = []
    last = began_at
    for piece in machines:
        if piece.began_at > last:
            wait = Piece(kind="waits", zone="", began_at=last, ended_at=piece.began_at, end="")
            found.append(wait)
        found.append(piece)
        last = max(last, piece.ended_at)
    return found


def bar(pieces: Sequence[Piece], width: int) -> str:
    """A letter for each part of the time: what most of it was."""
    if not pieces:
        return ""
    began = pieces[0].began_at
    whole = max(1e-9, (pieces[-1].ended_at - began).total_seconds())
    found = []
    for place in range(width):
        middle = (place + 0.5) / width * whole
        here = next(
            (p for p in pieces if (p.ended_at - began).total_seconds() >= middle), pieces[-1]
        )
        found.append(LETTERS[here.kind])
    return "".join(found)


def cost_usd(pieces: Sequence[Piece]) -> float:
    return sum(piece.seconds / HOUR * piece.usd_per_hour for piece in pieces)


def cost_on_demand_usd(pieces: Sequence[Piece], usd_per_hour: float) -> float:
    """Of the same hours of machines at another price."""
    return sum(piece.seconds for piece in pieces if piece.kind != "waits") / HOUR * usd_per_hour
