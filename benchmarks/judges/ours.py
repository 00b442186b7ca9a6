"""Ratchet's judge on many runs at once: the same code as the live one, with one more axis."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from judges.world import SEGMENTS, UNITS, Block, Floats, Labels, World, stream
from ratchet.core.ramp import Exposure, Ramp, first_weight, next_weight
from ratchet.stats.betting import RegressionBound
from ratchet.stats.harm import Scale, Shift, Slower, YesNo, scale_of

EPOCH_BLOCKS = 30
FALSE_ROLLBACK = 0.01
REFERENCE_UNITS = 5_000


def take(value: Any, kept: Labels) -> Any:
    """Only some of the runs of an evidence."""
    if isinstance(value, np.ndarray):
        return value[kept]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: take(getattr(value, f.name), kept) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


class Ours:
    """One metric; with `share`, as one of several that share the error rate."""

    name = "ratchet"

    def __init__(self, world: World, runs: int, *, share: float = 1.0) -> None:
        self._kind = world.kind
        self._limit = np.log(1.0 / (FALSE_ROLLBACK * share))
        self._scale = self._frozen(world)
        fresh: Any = {"failures": YesNo, "latency": Slower}.get(world.kind, Shift)
        self.evidence: Any = fresh.fresh((runs,))

    @staticmethod
    def _frozen(world: World) -> Scale | None:
        """From the baseline's answers before the release."""
        if world.kind == "failures":
            return None
        nobody = np.zeros((1, REFERENCE_UNITS), dtype=bool)
        before = world.values(np.random.default_rng(99), nobody, -1)[0]
        return scale_of(before, is_logarithmic=world.kind != "scores")

    def step(self, block: Block, alive: Labels) -> Labels:
        """Which of the living runs are rolled back by this block."""
        self.observe(block, alive)
        hit: Labels = self.evidence.log_e >= self._limit
        self.evidence = take(self.evidence, ~hit)
        return hit

    def observe(self, block: Block, alive: Labels) -> None:
        if block.number and block.number % EPOCH_BLOCKS == 0:
            self.evidence = self.evidence.begin_epoch()
        values, is_canary = block.values[alive], block.is_canary[alive]
        if self._scale is None:
            self.evidence = self.evidence.observe_units(values > 0.5, is_canary)
            return
        scores = self._scale.scores(values)
        if block.is_judged is not None:
            # Who is judged was drawn blindly, so leaving out the others is blind to the arm.
            scores, is_canary = _judged(scores, is_canary, block.is_judged[alive])
        if self._kind == "latency":
            bounds = np.array(self._scale.bounds)
            self.evidence = self.evidence.observe(scores, is_canary, bounds)
        else:
            self.evidence = self.evidence.observe(scores, is_canary)


class Within:
    """Failures in the whole at half of the error rate, and at the other half within each of ten
    segments, in blocks of two hundred units: what `release.segments` does."""

    name = "ratchet, within segments"

    def __init__(self, world: World, runs: int) -> None:
        self._whole = Ours(world, runs, share=0.5)
        self._limit = np.log(2.0 / FALSE_ROLLBACK)
        self._within: Any = YesNo.fresh((runs, SEGMENTS))
        self._half: list[tuple[Floats, Labels]] = []

    def step(self, block: Block, alive: Labels) -> Labels:
        self._whole.observe(block, alive)
        self._observe(block, alive)
        most = np.logaddexp.reduce(self._within.log_e, axis=-1) - np.log(SEGMENTS)
        hit: Labels = (most >= self._limit) | (self._whole.evidence.log_e >= self._limit)
        self._whole.evidence = take(self._whole.evidence, ~hit)
        self._within = take(self._within, ~hit)
        self._half = [(values[~hit], canary[~hit]) for values, canary in self._half]
        return hit

    def _observe(self, block: Block, alive: Labels) -> None:
        self._half.append((block.values[alive], block.is_canary[alive]))
        if len(self._half) < 2:
            return
        if (block.number + 1) % EPOCH_BLOCKS == 0:
            self._within = self._within.begin_epoch()
        values, is_canary = (
            np.concatenate(parts, axis=1) for parts in zip(*self._half, strict=True)
        )
        # One segment after the other: (runs, segments, units).
        shape = (len(values), -1, SEGMENTS)
        bad = (values.reshape(shape) > 0.5).swapaxes(1, 2)
        self._within = self._within.observe_units(bad, is_canary.reshape(shape).swapaxes(1, 2))
        self._half = []


def _judged(scores: Floats, is_canary: Labels, is_judged: Labels) -> tuple[Floats, Labels]:
    count = int(is_judged[0].sum())
    order = np.argsort(~is_judged, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(is_canary, order, axis=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How each run of a harm-budgeted ramp ended."""

    promoted: Labels
    rolled_back: Labels
    held: Labels
    canary_units: Floats
    units: Floats
    harm: Floats


def harm_budgeted(world: World, runs: int, seed: int, *, budget: float, margin: float) -> Ending:
    """Ramp by the budget until harm is proven, or it is proven that there is less than `margin`."""
    ramp = Ramp(harm_budget=budget)
    margins = np.unique(np.concatenate((np.geomspace(5e-4, 1.0, 40), [margin])))
    harm, bound = YesNo.fresh((runs,)), RegressionBound.fresh((runs,), margins)
    weights = np.full(runs, first_weight(ramp, UNITS))
    source = stream(world, runs, seed, weights)
    alive = np.ones(runs, dtype=bool)
    promoted, rolled_back = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    held = np.zeros(runs, dtype=bool)
    canary_units, units = np.zeros(runs), np.zeros(runs)
    for number in range(world.blocks):
        source.weights = weights
        block = source.draw(number)
        bad, is_canary = (block.values > 0.5)[alive], block.is_canary[alive]
        shown, hit = is_canary.sum(axis=1), (bad & is_canary).sum(axis=1)
        count = np.full(shown.shape, bad.shape[1])
        canary_units[alive] += shown
        units[alive] += count
        if number and number % EPOCH_BLOCKS == 0:
            harm = harm.begin_epoch()
        harm = harm.observe(count, shown, bad.sum(axis=1), hit)
        others = (count - shown, bad.sum(axis=1) - hit.astype(np.float64))
        bound = bound.observe(weights[alive], (shown, hit.astype(np.float64)), others)
        uppers, suspicion = bound.upper(FALSE_ROLLBACK), harm.log_e
        is_harm = suspicion >= np.log(1.0 / FALSE_ROLLBACK)
        is_safe = ~is_harm & (uppers <= margin)
        where = np.flatnonzero(alive)
        rolled_back[where[is_harm]], promoted[where[is_safe]] = True, True
        kept = ~(is_harm | is_safe)
        alive[where[~kept]] = False
        harm, bound = take(harm, kept), _kept(bound, kept)
        for run, upper, log_e in zip(where[kept], uppers[kept], suspicion[kept], strict=True):
            known = Exposure(
                weight=float(weights[run]),
                canary_units=float(canary_units[run]),
                judged_units=float(canary_units[run]),
                regression_max=float(upper),
                next_units=float(bad.shape[1]),
                is_suspect=bool(log_e >= np.log(3.0)),
            )
            step = next_weight(ramp, known)
            weights[run] = step.weight
            held[run] |= step.is_spent
        # A budget that is spent is a question for a person, and the canary serves nobody.
        asked = held[np.flatnonzero(alive)]
        alive[held] = False
        harm, bound = take(harm, ~asked), _kept(bound, ~asked)
        if not alive.any():
            break
    return Ending(promoted, rolled_back, held, canary_units, units, canary_units * world.excess)


def _kept(bound: RegressionBound, kept: Labels) -> RegressionBound:
    """The margins are no axis of the runs."""
    return dataclasses.replace(
        bound,
        log_capital=bound.log_capital[kept],
        units=bound.units[kept],
        total=bound.total[kept],
    )
