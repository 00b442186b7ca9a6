"""Worlds that a canary may live in: streams of units with a seed, in blocks of ten seconds.

A block has its units' arms and what each unit's answer was like; every judge of a row sees the
same stream.  The ramp is that of the study: 5, 10 and 25 % for ten minutes each, then half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]

UNITS = 100
BLOCK_SECONDS = 10
BLOCKS_PER_HOUR = 360


@dataclass(frozen=True, slots=True)
class Block:
    """Ten seconds of all runs; arrays are (runs, units)."""

    number: int
    weight: Floats
    """That was configured, a run."""
    is_canary: Labels
    values: Floats
    """Higher is worse: 1 for a failure, milliseconds, dollars, 1 - score."""
    is_judged: Labels | None = None
    """Where only some answers have a value."""


Values = Callable[[np.random.Generator, Labels, int], Floats]
Weights = Callable[[int], float]


def fixed_ramp(block: int) -> float:
    minutes = block * BLOCK_SECONDS / 60
    return 0.05 if minutes < 10 else 0.10 if minutes < 20 else 0.25 if minutes < 30 else 0.5


def always(weight: float) -> Weights:
    return lambda _: weight


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    name: str
    kind: str
    """failures, latency, scores or costs: which engine looks at it."""
    values: Values
    excess: float = 0.0
    """Bad answers that a canary answer is worse by, for the harm; 0 where it is no rate."""
    blocks: int = BLOCKS_PER_HOUR
    weights: Weights = fixed_ramp
    realised: Callable[[float], float] = field(default=lambda weight: weight)
    """What becomes of the configured weight."""
    onset: int = 0
    """The block from which the canary is worse."""
    judged_share: float = 1.0
    sticky_users: int = 0
    """Users whose requests all go to one arm, each with a rate of their own."""


def failures(baseline: float, canary: float) -> Values:
    def draw(chance: np.random.Generator, is_canary: Labels, _: int) -> Floats:
        rates = np.where(is_canary, canary, baseline)
        return (chance.random(is_canary.shape) < rates).astype(np.float64)

    return draw


SEGMENTS = 10


def failures_in_a_segment(baseline: float, canary: float) -> Values:
    """Units come from ten segments in turn; the canary is worse in one of them."""

    def draw(chance: np.random.Generator, is_canary: Labels, _: int) -> Floats:
        is_worse = is_canary & (np.arange(is_canary.shape[1]) % SEGMENTS == 0)
        rates = np.where(is_worse, canary, baseline)
        return (chance.random(is_canary.shape) < rates).astype(np.float64)

    return draw


def drifting_failures(first: float, last: float, blocks: int) -> Values:
    """Both arms get worse together."""

    def draw(chance: np.random.Generator, is_canary: Labels, block: int) -> Floats:
        rate = first + (last - first) * block / blocks
        return (chance.random(is_canary.shape) < rate).astype(np.float64)

    return draw


def late(before: Values, after: Values, onset: int) -> Values:
    def draw(chance: np.random.Generator, is_canary: Labels, block: int) -> Floats:
        return (after if block >= onset else before)(chance, is_canary, block)

    return draw


def latencies(slower: float = 1.0, tail_share: float = 0.0, tail: float = 5.0) -> Values:
    """Log-normal around 300 ms with a deviation of 0.6."""

    def draw(chance: np.random.Generator, is_canary: Labels, _: int) -> Floats:
        values = 300.0 * np.exp(chance.normal(0.0, 0.6, size=is_canary.shape))
        values = np.where(is_canary, values * slower, values)
        hit = is_canary & (chance.random(is_canary.shape) < tail_share)
        return np.where(hit, values * tail, values)

    return draw


def costs(dearer: float) -> Values:
    """Log-normal with a deviation of 1: heavy."""

    def draw(chance: np.random.Generator, is_canary: Labels, _: int) -> Floats:
        values = np.exp(chance.normal(0.0, 1.0, size=is_canary.shape))
        return np.where(is_canary, values * dearer, values)

    return draw


def losses(baseline: float, canary: float) -> Values:
    """One minus a judge's score; scores are beta-distributed, with the strength of four votes."""

    def draw(chance: np.random.Generator, is_canary: Labels, _: int) -> Floats:
        means = np.where(is_canary, canary, baseline)
        return np.asarray(1.0 - chance.beta(4.0 * means, 4.0 * (1.0 - means)))

    return draw


def stream(world: World, runs: int, seed: int, weights: Floats | None = None) -> StreamOfBlocks:
    return StreamOfBlocks(world, runs, np.random.default_rng(seed), weights)


@dataclass(slots=True)
class StreamOfBlocks:
    """Draws block after block; a judge that ramps by itself sets `weights` between them."""

    world: World
    runs: int
    chance: np.random.Generator
    weights: Floats | None = None
    _users: tuple[Labels, Floats] | None = None

    def draw(self, number: int) -> Block:
        world, chance = self.world, self.chance
        weight = self.weights
        if weight is None:
            weight = np.full(self.runs, world.weights(number))
        if world.sticky_users:
            return self._sticky(number, weight)
        share = np.array([world.realised(float(w)) for w in weight])
        is_canary = chance.random((self.runs, UNITS)) < share[:, None]
        values = world.values(chance, is_canary, number)
        is_judged = None
        if world.judged_share < 1.0:
            # So many of each block, drawn blindly.
            order = chance.random(is_canary.shape).argsort(axis=1)
            is_judged = order < round(world.judged_share * UNITS)
        return Block(number, weight, is_canary, values, is_judged)

    def _sticky(self, number: int, weight: Floats) -> Block:
        """Conversations of a few turns, each drawn anew; its user has a rate of its own.

        The unit is the conversation: a block's rows are first requests, so what is correlated is
        only the user's rate, and it is so in both arms.
        """
        if self._users is None:
            rates = self.chance.beta(0.3, 29.7, size=(self.runs, self.world.sticky_users))
            self._users = np.zeros((self.runs, 0), dtype=bool), rates
        _, rates = self._users
        who = self.chance.integers(0, self.world.sticky_users, size=(self.runs, UNITS))
        is_canary = self.chance.random(who.shape) < weight[:, None]
        hit = self.chance.random(who.shape) < np.take_along_axis(rates, who, axis=1)
        return Block(number, weight, is_canary, hit.astype(np.float64))
