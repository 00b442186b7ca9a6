"""What a plan says to one run, and why, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.core.errors import Rejected
from ratchet.core.fleet.claims import Claim, Pool, Share, slots_taken
from ratchet.core.fleet.plan import Plan, decide
from ratchet.core.place import Capacity, Place

WORDS = {Capacity.SPOT: "spot", Capacity.ON_DEMAND: "on-demand"}


@dataclass(frozen=True, slots=True)
class Grant:
    """Of a run, until its next look."""

    kind: Capacity | None
    """What it may use; None: nothing."""
    leaves: bool
    """Its worker shall save and leave."""
    because: str


def answer(run: str, pool: Pool, claims: Sequence[Claim], shares: Mapping[str, Share]) -> Grant:
    """What a run that looks is told.  Raises `KeyError` if it has no claim among these."""
    mine = {claim.run: claim for claim in claims}[run]
    plan = decide(pool, claims, shares)
    kind = plan.granted.get(run)
    leaves = mine.alive is not None and mine.alive is not kind
    return Grant(kind, leaves, _because(mine, kind, plan, pool, claims, shares))


def _because(
    mine: Claim,
    kind: Capacity | None,
    plan: Plan,
    pool: Pool,
    claims: Sequence[Claim],
    shares: Mapping[str, Share],
) -> str:
    share = shares.get(mine.project)
    if share is not None and share.is_spent:
        return (
            f"pool {pool.name}: {mine.project} has used its {share.usd_per_month:g} USD of this "
            "month"
        )
    if mine.run in plan.leaves:
        other = next(claim for claim in claims if claim.run == plan.leaves[mine.run])
        why = "would be late otherwise" if other.run in plan.urgent else "has a higher priority"
        return f"pool {pool.name}: {other.run} of {other.project} {why}"
    if kind is not None:
        why = ""
        if mine.run in plan.urgent and mine.wants is not kind and mine.alive is None:
            why = ": with all that is due, it cannot wait any longer"
        return f"pool {pool.name}: {_room(kind, pool, claims)}{why}"
    wants = Capacity.ON_DEMAND if mine.run in plan.urgent else mine.wants
    if wants is None:
        return f"pool {pool.name}: asks for nothing now"
    if mine.is_leaving:
        return f"pool {pool.name}: waits until its worker has left"
    line = plan.ahead.get(mine.run, 0)
    before = f", {line} before it" if line else ""
    return f"pool {pool.name}: waits for {_slots(mine.slots, wants)}{before}; " + _room(
        wants, pool, claims
    )


def _room(kind: Capacity, pool: Pool, claims: Sequence[Claim]) -> str:
    taken = slots_taken(kind, claims)
    limit = pool.spot if kind is Capacity.SPOT else pool.on_demand
    return f"{taken} of {'any number of' if limit is None else limit} {WORDS[kind]} slots taken"


def _slots(number: int, kind: Capacity) -> str:
    return f"{number} {WORDS[kind]} slot{'' if number == 1 else 's'}"


def kind_of(place: Place) -> Capacity:
    """The kind of slot that a worker there takes: what may not be spot is counted as what stays."""
    return Capacity.SPOT if place.capacity is Capacity.SPOT else Capacity.ON_DEMAND


def check_slots(wish: Place, pool: Pool) -> None:
    """Raises `Rejected` for what the pool will never have."""
    needed = {kind_of(wish.at_once)} | (set() if wish.chooses else {kind_of(wish)})
    for kind in needed:
        if wish.slots > pool.slots(kind):
            raise Rejected(
                f"train.pool: a worker needs {_slots(wish.slots, kind)}, and pool {pool.name} has "
                f"{pool.slots(kind):.0f}: take another pool, fewer train.resources.gpus, or make "
                "it larger with `ratchet fleet apply`"
            )
