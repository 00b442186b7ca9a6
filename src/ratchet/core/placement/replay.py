"""One job through a series of availability, tick by tick, under a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ratchet.core.placement.availability import Availability, Frailty
from ratchet.core.placement.guard import guarded
from ratchet.core.placement.terms import Action, Machine, Situation, Terms

HOUR = 3600.0
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a zone at a tick."""

    is_up: bool
    age_seconds: float
    loss_factor: float = 1.0
    recovery_factor: float = 1.0


def watched(series: Sequence[bool], tick_seconds: float, model: Availability) -> list[Seen]:
    """A zone as it looks at each tick to who knows its past and nothing of its future."""
    frailty, found, age = Frailty(), [], 0.0
    for number, is_up in enumerate(series):
        if number:
            has_changed = is_up != series[number - 1]
            frailty.see(model, bool(series[number - 1]), age, tick_seconds, has_changed)
            age = 0.0 if has_changed else age + tick_seconds
        found.append(Seen(bool(is_up), age, frailty.factor(True), frailty.factor(False)))
    return found


@dataclass(slots=True)
class Outcome:
    """How it went."""

    usd: float = 0.0
    late_seconds: float = 0.0
    spot_seconds: float = 0.0
    on_demand_seconds: float = 0.0
    launches: int = 0
    preemptions: int = 0
    actions: list[Action] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Guess:
    """What is thought of a job's work before it has shown how fast it is."""

    factor: float = 1.0
    """Of the true work."""
    uncertainty: float = 1.0
    """The work may be this many times the guess."""
    known_after_seconds: float = 0.0
    """Work after which what is left is known."""


EXACT = Guess()


@dataclass(slots=True)
class Job:
    """A job under way in a replay."""

    work_seconds: float
    deadline_seconds: float
    terms: Terms
    guess: Guess = EXACT
    done_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    machine: Machine = Machine.NONE
    pending_seconds: float = 0.0
    zone: int = 0
    """Where its spot machine is, or would be."""
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def left_seconds(self) -> float:
        return self.work_seconds - self.done_seconds

    def situation(self, seen: Seen) -> Situation:
        guessed = most = self.left_seconds
        if self.done_seconds < self.guess.known_after_seconds:
            whole = self.work_seconds * self.guess.factor
            guessed, most = (
                max(EPSILON, work - self.done_seconds)
                for work in (whole, whole * self.guess.uncertainty)
            )
        return Situation(
            time_left_seconds=self.deadline_seconds - self.elapsed_seconds,
            work_left_seconds=guessed,
            work_left_max_seconds=most,
            machine=self.machine,
            pending_seconds=self.pending_seconds,
            spot_is_up=seen.is_up,
            spot_age_seconds=seen.age_seconds,
            elapsed_seconds=self.elapsed_seconds,
            work_done_seconds=self.done_seconds,
            loss_factor=seen.loss_factor,
            recovery_factor=seen.recovery_factor,
        )

    def look(self, zones: Sequence[Seen]) -> Seen:
        """What the zone of its machine looks like, or that which has been up for longest.

        Spot that is down takes its machine with it.
        """
        has_spot = self.machine in (Machine.SPOT, Machine.BOTH)
        if has_spot and zones[self.zone].is_up:
            return zones[self.zone]
        if has_spot:
            self.outcome.preemptions += 1
            self.machine = Machine.NONE if self.machine is Machine.SPOT else Machine.ON_DEMAND
            self.pending_seconds = 0.0
        self.zone = best_zone(zones)
        return zones[self.zone]

    def act(self, action: Action) -> None:
        """Do as decided for a tick, or until the job is done."""
        self._switch(action)
        tick = self.terms.tick_seconds
        pending = 0.0 if self.machine is Machine.BOTH else self.pending_seconds
        used = 0.0 if self.machine is Machine.NONE else min(tick, pending + self.left_seconds)
        self._pay(tick if used and self.terms.bills_whole_ticks else used)
        if self.machine is not Machine.NONE:
            self.done_seconds += max(0.0, used - pending)
        over = self.pending_seconds <= tick + EPSILON
        if self.machine is Machine.BOTH and over and self.left_seconds > EPSILON:
            # The hand-over costs a checkpoint's work.
            self.machine = Machine.SPOT
            self.done_seconds -= self.terms.handover_seconds or 0.0
        self.pending_seconds = 0.0 if over else self.pending_seconds - tick
        self.elapsed_seconds += used if self.left_seconds <= EPSILON else tick

    def _switch(self, action: Action) -> None:
        self.outcome.actions.append(action)
        wanted = {
            Action.WAIT: Machine.NONE,
            Action.SPOT: Machine.SPOT,
            Action.ON_DEMAND: Machine.ON_DEMAND,
            Action.OVERLAP: Machine.BOTH,
        }[action]
        if wanted is self.machine:
            return
        is_new = not (self.machine is Machine.BOTH and wanted is Machine.ON_DEMAND)
        self.machine = wanted
        self.pending_seconds = self.terms.delay_seconds if is_new else 0.0
        if wanted is Machine.NONE:
            self.pending_seconds = 0.0
        elif is_new:
            self.outcome.launches += 1

    def _pay(self, seconds: float) -> None:
        out, terms = self.outcome, self.terms
        if self.machine in (Machine.SPOT, Machine.BOTH):
            out.spot_seconds += seconds
            out.usd += seconds / HOUR * terms.spot_usd_per_hour
        if self.machine is Machine.BOTH:
            seconds = min(seconds, self.pending_seconds)
        if self.machine in (Machine.ON_DEMAND, Machine.BOTH):
            out.on_demand_seconds += seconds
            out.usd += seconds / HOUR * terms.on_demand_usd_per_hour


def best_zone(zones: Sequence[Seen]) -> int:
    """The one that has been up for longest; if none is up, the one that went last."""
    if len(zones) == 1:
        return 0
    return max(
        range(len(zones)),
        key=lambda z: (zones[z].is_up, zones[z].age_seconds * (1 if zones[z].is_up else -1)),
    )


def replay(
    rule: Callable[[Situation, Terms], Action],
    zones: Sequence[Sequence[Seen]],
    work_seconds: float,
    deadline_seconds: float,
    terms: Terms,
    guess: Guess = EXACT,
) -> Outcome:
    """The job starts at the first tick of what was seen of the zones.  It goes on past its deadline
    if it must, on demand."""
    job = Job(work_seconds, deadline_seconds, terms, guess)
    for seen in zip(*zones, strict=True):
        if job.left_seconds <= EPSILON:
            break
        at = job.situation(job.look(seen))
        job.act(guarded(rule(at, terms), at, terms))
    nothing = [replace(zone[-1], is_up=False) for zone in zones]
    while job.left_seconds > EPSILON:
        job.look(nothing)
        job.act(Action.ON_DEMAND)
    job.outcome.late_seconds = max(0.0, job.elapsed_seconds - deadline_seconds)
    return job.outcome
