"""How long spot capacity stays, and stays away: learned from history, adapted to a zone.

A zone is up (a launch of spot would succeed) or down.  How likely that is to change depends mostly
on how long it has been so: the model is semi-Markov, with a rate of change for each state and age.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HOUR = 3600.0
# Between probes of ten minutes, so that a probe that is a little late falls where it belongs.
AGE_EDGES_SECONDS = tuple(60.0 * x for x in (5, 15, 25, 45, 75, 125, 205, 355, 715, 1435))
AGES = len(AGE_EDGES_SECONDS) + 1
NODES = 2 * AGES
DOWN_JUST_NOW = (0.0,) * AGES + (1.0,) + (0.0,) * (AGES - 1)
# How many changes the mean over all ages is worth where an age was hardly seen.
SHRINK_CHANGES = 4.0
# Nothing lasts for ever, however little was seen of it.
PER_HOUR_MIN, PER_HOUR_MAX = 1e-3, 60.0
# Without any history.  Of seventeen public series the median up-spell lasts half an hour to two.
UP_HOURS_GUESSED, DOWN_HOURS_GUESSED = 2.0, 2.0


def age_bin(seconds: float) -> int:
    return bisect_right(AGE_EDGES_SECONDS, seconds)


def node_of(is_up: bool, age_seconds: float) -> int:
    """State and age as one number below `NODES`: first the ages of up."""
    return age_bin(age_seconds) + (0 if is_up else AGES)


@dataclass(frozen=True, slots=True)
class Spell:
    """For how long a zone was up or down without a break."""

    is_up: bool
    seconds: float
    has_ended: bool
    """False for the last of a series: it may have gone on."""
    joined_seconds: float = 0.0
    """How old it was when it began to count."""


def spells_of(series: Iterable[bool], probe_seconds: float) -> list[Spell]:
    """Runs of equal answers to probes that were made at equal distances."""
    found: list[Spell] = []
    value, count = None, 0
    for is_up in series:
        if is_up == value:
            count += 1
            continue
        if value is not None:
            found.append(Spell(value, count * probe_seconds, has_ended=True))
        value, count = is_up, 1
    if value is not None:
        found.append(Spell(value, count * probe_seconds, has_ended=False))
    return found


@dataclass(frozen=True, slots=True)
class Availability:
    """Rates of change an hour by age, of zones that are up and of zones that are down."""

    up_per_hour: tuple[float, ...]
    down_per_hour: tuple[float, ...]
    after_loss: tuple[float, ...] = DOWN_JUST_NOW
    """Probability of each node in which a loss ends: with several zones, another may be up."""

    def per_hour(self, is_up: bool, age_seconds: float) -> float:
        return (self.up_per_hour if is_up else self.down_per_hour)[age_bin(age_seconds)]

    def scaled(self, loss: float, recovery: float) -> Availability:
        """The same where spot is lost and comes back so many times as often."""
        return Availability(
            tuple(_bounded(rate * loss) for rate in self.up_per_hour),
            tuple(_bounded(rate * recovery) for rate in self.down_per_hour),
            self.after_loss,
        )


# Where a zone has no past: as 17 series of AWS GPU zones were in 2022 and 2023, published with
# Wu et al., NSDI 2024.  Old, scarce machines: `Frailty` tells how a zone differs from them.
PUBLIC = Availability(
    (1.93, 1.34, 0.92, 0.796, 0.483, 0.39, 0.222, 0.194, 0.11, 0.0902, 0.0322),
    (2.37, 1.58, 1.03, 0.784, 0.542, 0.359, 0.318, 0.296, 0.189, 0.14, 0.0438),
)


def fit(histories: Sequence[Sequence[Spell]], probe_seconds: float) -> Availability:
    """Rates by age from what was seen, drawn towards the mean rate where little was.

    An hour's rate is -ln(1 - p) over the time between two probes, p the share of probes of an age
    that were the last of their spell.
    """
    spells = [spell for history in histories for spell in history]
    return Availability(
        _rates([spell for spell in spells if spell.is_up], probe_seconds, UP_HOURS_GUESSED),
        _rates([spell for spell in spells if not spell.is_up], probe_seconds, DOWN_HOURS_GUESSED),
    )


def fit_zones(series: Sequence[Sequence[bool]], probe_seconds: float) -> Availability:
    """The same of several zones that were probed together, seen as one.

    Whoever may choose takes the zone that has been up for longest and stays until it goes.  So "up"
    and its age are that zone's, "down" is all of them, and a loss may end in another zone.
    """
    ages = [0.0] * len(series)
    spells: list[Spell] = []
    losses = np.zeros(NODES)
    held: int | None = None
    joined = since = 0.0
    for tick in range(len(series[0])):
        is_up = [bool(zone[tick]) for zone in series]
        was_up = [tick > 0 and bool(zone[tick - 1]) for zone in series]
        ages = [
            age + probe_seconds if now == before and tick else 0.0
            for age, now, before in zip(ages, is_up, was_up, strict=True)
        ]
        if tick and (held is None) == (not any(is_up)) and (held is None or is_up[held]):
            since += probe_seconds
            continue
        up = [zone for zone, now in enumerate(is_up) if now]
        best = max(up, key=lambda zone: ages[zone]) if up else None
        if tick:
            end = since + probe_seconds
            spells.append(Spell(held is not None, end, has_ended=True, joined_seconds=joined))
            if held is not None:
                losses[node_of(best is not None, 0.0 if best is None else ages[best])] += 1
        held = best
        joined = since = 0.0 if best is None else ages[best]
    found = fit([spells], probe_seconds)
    after = losses + SHRINK_CHANGES * np.asarray(DOWN_JUST_NOW)
    return Availability(found.up_per_hour, found.down_per_hour, tuple(after / after.sum()))


def _rates(
    spells: Sequence[Spell], probe_seconds: float, hours_guessed: float
) -> tuple[float, ...]:
    changes, probes = np.zeros(AGES), np.zeros(AGES)
    for spell in spells:
        count = round(spell.seconds / probe_seconds)
        for number in range(round(spell.joined_seconds / probe_seconds), count):
            probes[age_bin(number * probe_seconds)] += 1
        if spell.has_ended and count:
            changes[age_bin((count - 1) * probe_seconds)] += 1
    # As if a guess had been seen for one change.
    guess = 1.0 - math.exp(-probe_seconds / HOUR / hours_guessed)
    mean = (changes.sum() + 1.0) / (probes.sum() + 1.0 / guess)
    shares = (changes + SHRINK_CHANGES) / (probes + SHRINK_CHANGES / mean)
    return tuple(_bounded(-math.log1p(-min(p, 0.999)) * HOUR / probe_seconds) for p in shares)


def _bounded(per_hour: float) -> float:
    return min(max(per_hour, PER_HOUR_MIN), PER_HOUR_MAX)


@dataclass(frozen=True, slots=True)
class Chain:
    """What the next tick may bring: from node to node, and whether spot that runs survives it."""

    survives: NDArray[np.float64]
    """[node, node]: probability to come to the node with the machine kept."""
    dies: NDArray[np.float64]
    """[node, node]: ... with the machine lost; from a node that is down there is none to lose."""

    @property
    def moves(self) -> NDArray[np.float64]:
        return self.survives + self.dies

    def usual(self) -> NDArray[np.float64]:
        """How much of the time is spent in each node, in the long run."""
        share = np.full(len(self.survives), 1.0 / len(self.survives))
        for _ in range(20):
            share = share @ np.linalg.matrix_power(self.moves, 64)
        return share

    @property
    def is_up(self) -> NDArray[np.bool_]:
        return np.arange(len(self.survives)) < AGES


def chain_of(model: Availability, tick_seconds: float) -> Chain:
    """What one sees who looks every tick."""
    after_loss = np.asarray(model.after_loss)
    survives, dies = np.zeros((NODES, NODES)), np.zeros((NODES, NODES))
    for is_up, rates in ((True, model.up_per_hour), (False, model.down_per_hour)):
        mine = 0 if is_up else AGES
        for age, rate in enumerate(rates):
            change = 1.0 - math.exp(-rate * tick_seconds / HOUR)
            older = _ages_on(age, tick_seconds)
            row = mine + age
            if is_up:
                dies[row] += change * after_loss
            else:
                survives[row, 0] += change
            survives[row, row] += (1.0 - change) * (1.0 - older)
            survives[row, mine + min(age + 1, AGES - 1)] += (1.0 - change) * older
    return Chain(survives, dies)


def _ages_on(age: int, tick_seconds: float) -> float:
    """The chance to leave an age's bin in a tick: it is left after its width, on average."""
    if age == AGES - 1:
        return 0.0
    width = AGE_EDGES_SECONDS[age] - (AGE_EDGES_SECONDS[age - 1] if age else 0.0)
    return min(1.0, tick_seconds / width)


# Of what was seen of a zone, half is forgotten after so long.
HALF_LIFE_HOURS = 48.0
# How many changes "as the model says" is worth before anything was seen.
PRIOR_CHANGES = 2.0


@dataclass(slots=True)
class Frailty:
    """How much more often one zone changes than the model says: two factors, learned online.

    Gamma-Poisson: with prior Gamma(a, a), after n changes where the model expected e, the factor's
    mean is (a + n) / (a + e).
    """

    changes: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    expected: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})

    def see(
        self,
        model: Availability,
        is_up: bool,
        age_seconds: float,
        seconds: float,
        has_changed: bool,
    ) -> None:
        """A zone was in a state of an age for some time, and then it changed or did not."""
        keep = 0.5 ** (seconds / HOUR / HALF_LIFE_HOURS)
        for state in (True, False):
            self.changes[state] *= keep
            self.expected[state] *= keep
        self.expected[is_up] += model.per_hour(is_up, age_seconds) * seconds / HOUR
        self.changes[is_up] += has_changed

    def factor(self, is_up: bool) -> float:
        return (PRIOR_CHANGES + self.changes[is_up]) / (PRIOR_CHANGES + self.expected[is_up])
