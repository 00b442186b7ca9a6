"""What workers cost: estimated before, counted while they run, ended at the line."""

from __future__ import annotations

from ratchet.core.errors import Rejected
from ratchet.core.place import Place
from ratchet.core.precheck import Found

# How often running attempts are looked at.
METER_SECONDS = 2.0
# A worker that was asked to save and leave, and does not, is ended after this.
LEAVE_SECONDS_MAX = 60.0
HOUR = 3600.0


def cost_usd(seconds: float, place: Place) -> float:
    """Of workers that ran for so long."""
    return seconds / HOUR * place.usd_per_hour


def is_used_up(spent_usd: float, place: Place) -> bool:
    """Whether a run must stop now, so that it is not over its budget at the next look."""
    if not place.budget_usd:
        return False
    return spent_usd + cost_usd(METER_SECONDS, place) >= place.budget_usd


def check_budget(spent_usd: float, place: Place) -> None:
    """Raises `Rejected` when there is no money for another attempt."""
    if is_used_up(spent_usd, place):
        raise Rejected(
            f"train.budget_usd: {place.budget_usd:g} USD are used up (workers cost "
            f"{spent_usd:.4f} USD). The checkpoint is kept: a run of the same data and recipe with "
            "a larger budget goes on from it"
        )


def estimate(tokens: float, tokens_per_second: float | None, place: Place) -> Found:
    """How long so many tokens will take and what that costs, by how fast the last training was.

    A problem when that cannot be within the deadline or the budget.
    """
    if not tokens_per_second or not tokens:
        return Found()
    seconds = tokens / tokens_per_second
    usd = cost_usd(seconds, place)
    facts: dict[str, object] = {"estimated_seconds": round(seconds), "estimated_usd": round(usd, 4)}
    basis = f"{tokens:.0f} tokens at the last training's {tokens_per_second:.0f} a second"
    problems = []
    if place.deadline_seconds and seconds > place.deadline_seconds:
        problems.append(
            f"train.deadline: found {place.deadline_seconds:.0f} s, the training takes about "
            f"{seconds:.0f} s ({basis}): raise it, or train on fewer rows or epochs"
        )
    if place.budget_usd and usd > place.budget_usd:
        problems.append(
            f"train.budget_usd: found {place.budget_usd:g}, the training costs about {usd:.2f} USD "
            f"({basis}): raise it, or train on fewer rows or epochs"
        )
    money = f", {usd:.2f} USD" if place.usd_per_hour else ""
    notes = (f"train: about {seconds:.0f} s{money} ({basis})",)
    return Found(tuple(problems), notes, facts)
