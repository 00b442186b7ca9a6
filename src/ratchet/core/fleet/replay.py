"""Many jobs over one pool, tick by tick, under a planner: what `decide` does, on a manual clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ratchet.core.fleet.claims import Claim, Pool, Share
from ratchet.core.fleet.plan import Plan, decide
from ratchet.core.place import Capacity
from ratchet.core.placement.availability import PUBLIC
from ratchet.core.placement.guard import guarded
from ratchet.core.placement.plan import SLACK_SHARE, tick_of
from ratchet.core.placement.policy import Tables
from ratchet.core.placement.replay import EPSILON, HOUR, Job, Outcome, Seen
from ratchet.core.placement.rules import Rule
from ratchet.core.placement.terms import Action, Machine, Situation, Terms

Planner = Callable[[Pool, Sequence[Claim], Mapping[str, Share]], Plan]
# Of what was used: after so long it counts half.
HALF_LIFE_SECONDS = 7 * 24 * HOUR

# Of jobs with so much time share a table.
DEADLINE_CLASSES_SECONDS = tuple(HOUR * 2.0**power for power in range(-1, 11))

_KINDS = {Machine.SPOT: Capacity.SPOT, Machine.ON_DEMAND: Capacity.ON_DEMAND}
_ACTIONS = {Capacity.SPOT: Action.SPOT, Capacity.ON_DEMAND: Action.ON_DEMAND, None: Action.WAIT}
_WANTS = {action: kind for kind, action in _ACTIONS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A job as it comes."""

    name: str
    project: str
    at_seconds: float
    work_seconds: float
    deadline_seconds: float | None
    """From its arrival; None: whenever there is room."""
    slots: int = 1
    priority: int = 0


@dataclass(slots=True)
class Member:
    """A job of the fleet under way."""

    arrival: Arrival
    job: Job
    granted: Capacity | None = None
    waiting_since: float = 0.0
    began_at: float | None = None
    """Its first worker."""
    ended_at: float | None = None

    @property
    def alive(self) -> Capacity | None:
        return _KINDS.get(self.job.machine)

    def claim(self, wants: Capacity | None, sees_spot: bool, now: float) -> Claim:
        due = self.arrival.deadline_seconds
        return Claim(
            run=self.arrival.name,
            project=self.arrival.project,
            slots=self.arrival.slots,
            priority=self.arrival.priority,
            wants=wants,
            sees_spot=sees_spot,
            alive=self.alive,
            granted=self.granted,
            waiting_seconds=0.0 if self.alive else now - self.waiting_since,
            time_left_seconds=None if due is None else due - self.job.elapsed_seconds,
            work_left_seconds=self.job.left_seconds,
            delay_seconds=self.job.terms.delay_seconds,
        ).at_its_look


@dataclass(slots=True)
class Fleet:
    """All of it at a moment."""

    pool: Pool
    shares: dict[str, Share]
    tick_seconds: float
    planner: Planner = decide
    members: list[Member] = field(default_factory=list)
    now: float = 0.0
    plan: Plan = field(default_factory=Plan)

    def tick(self, seen: Seen, rule: Rule) -> None:
        """One look of everybody, and a tick of what was decided."""
        live = [member for member in self.members if member.ended_at is None]
        wishes = {member.arrival.name: _wish(member, seen, rule) for member in live}
        claims = [
            member.claim(wishes[member.arrival.name], seen.is_up, self.now) for member in live
        ]
        self.plan = self.planner(self.pool, claims, self.shares)
        for member in live:
            self._act(member, self.plan.granted.get(member.arrival.name))
        self._fade(self.tick_seconds)

    def _act(self, member: Member, granted: Capacity | None) -> None:
        job, before = member.job, (member.job.outcome.usd, member.job.elapsed_seconds)
        member.granted = granted
        if member.alive is not None and granted is not member.alive:
            # First it saves and leaves; what it shall have it has at the next look.
            granted = None
        if member.alive is None and granted is not None:
            member.waiting_since = self.now
            member.began_at = self.now if member.began_at is None else member.began_at
        job.act(_ACTIONS[granted])
        if member.alive is None:
            member.waiting_since = min(member.waiting_since, self.now)
        if job.left_seconds <= EPSILON:
            member.ended_at = self.now + job.elapsed_seconds - before[1]
            job.machine, member.granted = Machine.NONE, None
        share = self.shares[member.arrival.project]
        worked = self.tick_seconds * member.arrival.slots * (granted is not None)
        self.shares[member.arrival.project] = replace(
            share,
            used_slot_seconds=share.used_slot_seconds + worked,
            usd_spent=share.usd_spent + job.outcome.usd - before[0],
        )

    def _fade(self, seconds: float) -> None:
        self.now += seconds
        kept = 0.5 ** (seconds / HALF_LIFE_SECONDS)
        for name, share in self.shares.items():
            self.shares[name] = replace(share, used_slot_seconds=share.used_slot_seconds * kept)


def _wish(member: Member, seen: Seen, rule: Rule) -> Capacity | None:
    """What the job's own decision asks for: behind the guard, where it has a deadline."""
    job = member.job
    job.look([seen])
    if member.arrival.deadline_seconds is None:
        return Capacity.SPOT if seen.is_up else None
    at = job.situation(seen)
    return _WANTS[guarded(rule(at, job.terms), at, job.terms)]


def tabled(terms: Terms) -> Rule:
    """Each job asks the table of its class, which looks as often until its deadline as a training
    in production does (`placement.plan`)."""
    known: dict[float, Tables] = {}

    def wish(at: Situation, _: Terms) -> Action:
        whole = at.elapsed_seconds + at.time_left_seconds
        longest = DEADLINE_CLASSES_SECONDS[-1]
        until = next((one for one in DEADLINE_CLASSES_SECONDS if whole <= one), longest)
        if until not in known:
            coarse = replace(terms, tick_seconds=max(terms.tick_seconds, tick_of(until)))
            known[until] = Tables(PUBLIC, coarse, until, SLACK_SHARE * until)
        return known[until].wish(at, terms)

    return wish


def run_fleet(
    fleet: Fleet, arrivals: Sequence[Arrival], zone: Sequence[Seen], terms: Terms, rule: Rule
) -> dict[str, Outcome]:
    """Everything that arrives, to its end or the zone's; outcomes by name.

    A job that did not end has `late_seconds` of infinity.
    """
    todo = sorted(arrivals, key=lambda arrival: arrival.at_seconds)
    for seen in zone:
        while todo and todo[0].at_seconds <= fleet.now + EPSILON:
            fleet.members.append(_member(todo.pop(0), fleet.now, terms))
        if not todo and all(member.ended_at is not None for member in fleet.members):
            break
        fleet.tick(seen, rule)
    return {member.arrival.name: _outcome(member) for member in fleet.members}


def _member(arrival: Arrival, now: float, terms: Terms) -> Member:
    due = arrival.deadline_seconds
    # A slot is paid for each.
    paid = replace(
        terms,
        spot_usd_per_hour=terms.spot_usd_per_hour * arrival.slots,
        on_demand_usd_per_hour=terms.on_demand_usd_per_hour * arrival.slots,
    )
    job = Job(arrival.work_seconds, float("inf") if due is None else due, paid)
    return Member(arrival, job, waiting_since=now)


def _outcome(member: Member) -> Outcome:
    outcome, due = member.job.outcome, member.arrival.deadline_seconds
    if member.ended_at is None:
        outcome.late_seconds = float("inf")
    elif due is not None:
        outcome.late_seconds = max(0.0, member.job.elapsed_seconds - due)
    return outcome
