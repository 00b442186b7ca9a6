"""Who of a pool gets a slot, who waits, and who has to leave: one pure pass over all claims.

Order: who would be late otherwise; then priority, which grows with waiting; then the project that
has had least for its weight.  Nobody is asked to leave for a share: only for who would be late and
is due before it, and for a higher priority.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ratchet.core.fleet.claims import KINDS, Claim, Pool, Share
from ratchet.core.place import Capacity

# A line that is long now gets longer: waiting in it counts so many times.
QUEUE_FACTOR = 4.0
# After waiting so long a claim is not held up by smaller ones: it would never see enough at once.
PATIENCE_SECONDS = 600.0
# Each such while of waiting is worth one priority: whoever waits comes first in the end.
AGING_SECONDS = 6 * 3600.0
# What a slot that is given now counts as already used.
FORESEEN_SECONDS = 3600.0


@dataclass(slots=True)
class Plan:
    """Of one moment.  What is not in `granted` has no right to a slot."""

    granted: dict[str, Capacity] = field(default_factory=dict)
    """By run."""
    leaves: dict[str, str] = field(default_factory=dict)
    """Runs whose worker shall save and leave, and for which run; "" for a spent budget."""
    ahead: dict[str, int] = field(default_factory=dict)
    """Of who was looked at and got nothing: how many came before it."""
    urgent: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Pass:
    pool: Pool
    shares: Mapping[str, Share]
    plan: Plan
    free: dict[Capacity, float]
    coming: dict[Capacity, float]
    """Slots of workers that are about to leave."""
    until: dict[Capacity, float]
    """Who takes a slot has to be gone by then."""
    claims: Sequence[Claim]
    holders: dict[Capacity, list[Claim]]
    """Who could be asked to leave, the lowest priority first, then who can spare most time."""
    used: dict[str, float]
    """By project, for its weight: what it has had, and what it holds."""


def decide(pool: Pool, claims: Sequence[Claim], shares: Mapping[str, Share]) -> Plan:
    """The plan of a pool.  The same claims give the same plan, in whatever order they come."""
    plan = Plan()
    spent = {project for project, share in shares.items() if share.is_spent}
    able = [claim for claim in claims if claim.project not in spent]
    plan.leaves = {c.run: "" for c in claims if c.project in spent and c.alive is not None}
    plan.urgent = _urgent(pool, able)
    keeps = [claim for claim in able if _keeps(claim, claim.run in plan.urgent)]
    plan.granted = {claim.run: claim.granted for claim in keeps if claim.granted is not None}
    at = _Pass(
        pool=pool,
        shares=shares,
        plan=plan,
        free=_free(pool, claims, plan.granted),
        coming={
            kind: sum(
                claim.slots
                for claim in claims
                if claim.alive is kind and plan.granted.get(claim.run) is not kind
            )
            for kind in KINDS
        },
        until=dict.fromkeys(KINDS, math.inf),
        claims=claims,
        holders={kind: _holders(keeps, kind, plan) for kind in KINDS},
        used=_used(claims, shares),
    )
    waiting = [claim for claim in able if _asks(claim, plan)]
    for number, claim in enumerate(_in_order(waiting, at)):
        if not _serve(claim, at):
            plan.ahead[claim.run] = number
    return plan


def _keeps(claim: Claim, is_urgent: bool) -> bool:
    """It goes on with what it was given: its worker lives, or has been asked for since."""
    if claim.granted is None:
        return False
    return claim.alive is None or claim.wants is not None or is_urgent


def _asks(claim: Claim, plan: Plan) -> bool:
    kept = plan.granted.get(claim.run)
    if claim.is_leaving and kept is None:
        # First its worker has to be gone.
        return False
    if kept is None:
        return claim.wants is not None or claim.run in plan.urgent
    is_safe = kept is Capacity.ON_DEMAND and claim.run in plan.urgent
    return claim.wants not in (None, kept) and claim.alive is kept and not is_safe


def _holders(keeps: Sequence[Claim], kind: Capacity, plan: Plan) -> list[Claim]:
    able = [claim for claim in keeps if claim.granted is kind and claim.may_leave]
    return sorted(able, key=lambda claim: (claim.priority, -_due(claim), claim.run))


def _free(
    pool: Pool, claims: Sequence[Claim], granted: Mapping[str, Capacity]
) -> dict[Capacity, float]:
    free = {kind: pool.slots(kind) for kind in KINDS}
    for claim in claims:
        # What was given and is not used yet may be in use since.
        for kind in KINDS:
            holds = claim.holds(kind) or granted.get(claim.run) is kind
            free[kind] -= claim.slots * holds
    return free


def _used(claims: Sequence[Claim], shares: Mapping[str, Share]) -> dict[str, float]:
    used = {name: share.used_slot_seconds / share.weight for name, share in shares.items()}
    for claim in claims:
        if claim.alive is not None:
            _count(claim, shares, used)
    return used


def _count(claim: Claim, shares: Mapping[str, Share], used: dict[str, float]) -> None:
    """A claim that has slots, among what its project has used."""
    weight = shares.get(claim.project, Share()).weight
    used[claim.project] = used.get(claim.project, 0.0) + claim.slots * FORESEEN_SECONDS / weight


def _urgent(pool: Pool, claims: Sequence[Claim]) -> frozenset[str]:
    """Who has to work from now on, lest somebody be late on machines that stay.

    If all began now, the earliest deadline first, each as soon as there are slots for it: where one
    would not be in time, it cannot wait, nor can those before it in whose way it would be.  Spot
    may go at any time and is not counted on.
    """
    slots = pool.on_demand
    if not slots:
        return frozenset()
    due = [c for c in claims if c.time_left_seconds is not None or not c.may_leave]
    if pool.spot == 0:
        # There is nothing to wait for.
        return frozenset(claim.run for claim in due)
    due.sort(key=lambda c: (c.may_leave, _due(c), c.run))
    free, late, last = [0.0] * slots, set[str](), -1
    for number, claim in enumerate(due):
        taken = [heapq.heappop(free) for _ in range(min(slots, claim.slots))]
        starts = 0.0 if claim.alive is Capacity.ON_DEMAND else claim.delay_seconds
        ends = taken[-1] + starts + claim.work_left_seconds
        for _ in taken:
            heapq.heappush(free, ends)
        reserve = pool.turnover_seconds + (QUEUE_FACTOR - 1.0) * taken[-1]
        if ends + reserve > _due(claim):
            late.add(claim.run)
            last = number if taken[-1] else last
    return frozenset(late | {claim.run for claim in due[: last + 1]})


def _in_order(waiting: Sequence[Claim], at: _Pass) -> Iterator[Claim]:
    """Who comes first.  Within a tier, by turns of the projects: as each is served, its turn is
    later."""
    tiers: dict[tuple[bool, int], list[Claim]] = {}
    for claim in waiting:
        is_urgent = claim.run in at.plan.urgent
        grown = 0 if is_urgent else int(claim.waiting_seconds // AGING_SECONDS)
        tiers.setdefault((is_urgent, claim.priority + grown), []).append(claim)
    for tier in sorted(tiers, reverse=True):
        if tier[0]:
            yield from sorted(tiers[tier], key=lambda c: (_due(c), c.run))
        else:
            yield from _by_turns(tiers[tier], at)


def _by_turns(tier: Sequence[Claim], at: _Pass) -> Iterator[Claim]:
    lines: dict[str, list[Claim]] = {}
    for claim in sorted(tier, key=lambda c: (-c.waiting_seconds, c.slack_seconds, c.run)):
        lines.setdefault(claim.project, []).append(claim)
    turns = [(at.used.get(project, 0.0), project) for project in lines]
    heapq.heapify(turns)
    following = {project: iter(line) for project, line in lines.items()}
    while turns:
        _, project = heapq.heappop(turns)
        for claim in following[project]:
            yield claim
            heapq.heappush(turns, (at.used.get(project, 0.0), project))
            break


def _serve(claim: Claim, at: _Pass) -> bool:
    """Give it slots, or see to it that it gets some; answers whether it has them now."""
    kinds = [claim.wants]
    if claim.run in at.plan.urgent:
        kinds = [Capacity.ON_DEMAND, Capacity.SPOT if claim.sees_spot else claim.wants]
    kept = at.plan.granted.get(claim.run)
    wanted = [kind for kind in kinds if kind is not None and kind is not kept]
    for kind in wanted:
        if claim.slots <= at.free[kind] and _takes(claim) <= at.until[kind]:
            _take(claim, kind, at)
            return True
    _reserve(claim, wanted[0], at)
    return False


def _reserve(claim: Claim, kind: Capacity, at: _Pass) -> None:
    """What gets free is its own, if that is enough.  Once it has waited, others go first only if
    they are gone by the time when it would have enough (EASY backfilling, Lifka 1995)."""
    if claim.slots > at.pool.slots(kind):
        return
    free = max(0.0, at.free[kind])
    lacking = claim.slots - free - at.coming[kind]
    for victim in _victims(claim, kind, lacking, at):
        at.plan.leaves[victim.run] = claim.run
        del at.plan.granted[victim.run]
        at.holders[kind].remove(victim)
        at.coming[kind] += victim.slots
        lacking -= victim.slots
    if lacking <= 0:
        at.free[kind] -= free
        at.coming[kind] -= claim.slots - free
    elif claim.waiting_seconds >= PATIENCE_SECONDS and at.until[kind] == math.inf:
        # Of the first in line alone: who comes after it has its turn when it has had its own.
        at.until[kind] = _frees(claim.slots - free, kind, at)


def _takes(claim: Claim) -> float:
    """How long it will hold what it is given, as it thinks; infinity where it cannot tell."""
    return claim.delay_seconds + claim.work_left_seconds if claim.work_left_seconds else math.inf


def _frees(lacking: float, kind: Capacity, at: _Pass) -> float:
    """When so many slots will have got free, as far as those who hold them know."""
    holding = [claim for claim in at.claims if claim.holds(kind)]
    for claim in sorted(holding, key=lambda claim: (claim.work_left_seconds, claim.run)):
        lacking -= claim.slots
        if lacking <= 0:
            return claim.work_left_seconds
    return 0.0


def _take(claim: Claim, kind: Capacity, at: _Pass) -> None:
    at.free[kind] -= claim.slots
    at.plan.granted[claim.run] = kind
    _count(claim, at.shares, at.used)


def _victims(claim: Claim, kind: Capacity, lacking: float, at: _Pass) -> list[Claim]:
    """Who leaves for it, none if all that may would not be enough."""
    is_urgent = claim.run in at.plan.urgent
    chosen: list[Claim] = []
    for held in at.holders[kind]:
        if lacking <= 0 or (not is_urgent and held.priority >= claim.priority):
            break
        if held.priority < claim.priority or _due(held) > _due(claim):
            chosen.append(held)
            lacking -= held.slots
    return chosen if lacking <= 0 else []


def _due(claim: Claim) -> float:
    return math.inf if claim.time_left_seconds is None else claim.time_left_seconds
