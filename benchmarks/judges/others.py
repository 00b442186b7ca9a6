"""The decision rules of others, as their code and documents have them; not their controllers.

Argo Rollouts and Flagger compare a window's figure with a threshold and count; Kayenta compares
minutes by Mann-Whitney; sequential tests of means are asymptotic.  Query windows, scrape delay and
lag are left out, which favours them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from judges.mannwhitney import is_high
from judges.world import BLOCK_SECONDS, Block, Floats, Labels, World


def _seen(block: Block) -> Labels:
    """Which units have a value."""
    return np.ones_like(block.is_canary) if block.is_judged is None else block.is_judged


@dataclass(slots=True)
class Minutes:
    """Figures of each minute and arm, summed from blocks."""

    runs: int
    canary: list[Floats] = field(default_factory=list)
    baseline: list[Floats] = field(default_factory=list)
    _parts: list[Block] = field(default_factory=list)

    def add(self, block: Block) -> bool:
        """True when a minute is full."""
        self._parts.append(block)
        if (block.number + 1) % (60 // BLOCK_SECONDS):
            return False
        labels = np.concatenate([part.is_canary for part in self._parts], axis=1)
        values = np.concatenate([part.values for part in self._parts], axis=1)
        seen = np.concatenate([_seen(part) for part in self._parts], axis=1)
        self._parts.clear()
        for into, mine in ((self.canary, labels & seen), (self.baseline, ~labels & seen)):
            count = mine.sum(axis=1)
            total = np.where(mine, values, 0.0).sum(axis=1)
            into.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
        return True


class Threshold:
    """Argo Rollouts: a window's figure is above a limit; rolled back when that was so more often
    than `failure_limit` allows, in the whole release."""

    def __init__(
        self,
        name: str,
        runs: int,
        *,
        minutes: int,
        limit: Callable[[Floats], Floats],
        failure_limit: int,
        of_all: bool = False,
    ) -> None:
        self.name, self._minutes, self._limit = name, minutes, limit
        self._allowed, self._of_all = failure_limit, of_all
        self._seen, self._failed = Minutes(runs), np.zeros(runs, dtype=np.int64)
        self._weights: list[Floats] = []

    def step(self, block: Block, alive: Labels) -> Labels:
        self._weights.append(block.weight)
        if not self._seen.add(block) or len(self._seen.canary) % self._minutes:
            return np.zeros(int(alive.sum()), dtype=bool)
        canary = _mean(self._seen.canary[-self._minutes :])
        baseline = _mean(self._seen.baseline[-self._minutes :])
        figure = canary
        if self._of_all:
            # The documented query looks at the whole service.
            weight = block.weight
            figure = weight * canary + (1 - weight) * baseline
        with np.errstate(invalid="ignore"):
            self._failed += figure > self._limit(baseline)
        hit: Labels = (self._failed > self._allowed)[alive]
        return hit


def _mean(parts: list[Floats]) -> Floats:
    """Of windows that may be empty."""
    stacked = np.stack(parts)
    counts = np.sum(~np.isnan(stacked), axis=0)
    total = np.nansum(stacked, axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def argo_documented(runs: int) -> Threshold:
    return Threshold(
        "argo, as documented (< 95 %)", runs, minutes=5,
        limit=lambda base: np.full_like(base, 0.05), failure_limit=3, of_all=True,
    )  # fmt: skip


def argo_twice(runs: int, failure_limit: int) -> Threshold:
    return Threshold(
        f"argo, twice the base, limit {failure_limit}", runs, minutes=1,
        limit=lambda base: 2.0 * base, failure_limit=failure_limit,
    )  # fmt: skip


def flagger(runs: int, success: float) -> Threshold:
    """`threshold: 5`: the fifth failed check rolls back."""
    return Threshold(
        f"flagger, {success:.0%} success", runs, minutes=1,
        limit=lambda base: np.full_like(base, 1.0 - success), failure_limit=4,
    )  # fmt: skip


class Kayenta:
    """Every ten minutes, Mann-Whitney over all minutes so far, at the same 98 % each time."""

    name = "kayenta"

    def __init__(self, runs: int, *, every_minutes: int = 10) -> None:
        self._seen, self._every = Minutes(runs), every_minutes

    def step(self, block: Block, alive: Labels) -> Labels:
        quiet = np.zeros(int(alive.sum()), dtype=bool)
        if not self._seen.add(block) or len(self._seen.canary) % self._every:
            return quiet
        canary = np.stack(self._seen.canary, axis=1)[alive]
        baseline = np.stack(self._seen.baseline, axis=1)[alive]
        return np.array([is_high(b, c) for b, c in zip(baseline, canary, strict=True)], dtype=bool)


@dataclass(slots=True)
class _Moments:
    """Pooled counts, sums and squares of both arms, as products keep them."""

    runs: int
    n: list[Floats] = field(default_factory=list)
    total: list[Floats] = field(default_factory=list)
    squares: list[Floats] = field(default_factory=list)

    def __post_init__(self) -> None:
        for part in (self.n, self.total, self.squares):
            part += [np.zeros(self.runs), np.zeros(self.runs)]

    def add(self, block: Block) -> None:
        seen = _seen(block)
        for arm, mine in enumerate((block.is_canary & seen, ~block.is_canary & seen)):
            self.n[arm] += mine.sum(axis=1)
            self.total[arm] += np.where(mine, block.values, 0.0).sum(axis=1)
            self.squares[arm] += np.where(mine, block.values**2, 0.0).sum(axis=1)

    def difference(self) -> tuple[Floats, Floats]:
        """Of the means, with its variance."""
        n = [np.maximum(part, 1.0) for part in self.n]
        means = [t / c for t, c in zip(self.total, n, strict=True)]
        variances = [
            np.maximum(s / c - m**2, 1e-12) / c
            for s, c, m in zip(self.squares, n, means, strict=True)
        ]
        return means[0] - means[1], variances[0] + variances[1]


class AsymptoticSequence:
    """GrowthBook's: an asymptotic confidence sequence of the difference of means, pooled.

    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and
    asymptotic confidence sequences", tuned for N* = 5,000 as documented; one-sided.
    """

    def __init__(self, runs: int, risk: float, tuned_for: float = 5_000.0) -> None:
        self.name = f"asymptotic sequence, {risk:.0%}"
        self._moments, self._risk = _Moments(runs), risk
        log = -2.0 * math.log(2 * risk)
        self._rho = math.sqrt((log + math.log(log + 1.0)) / tuned_for)

    def step(self, block: Block, alive: Labels) -> Labels:
        self._moments.add(block)
        difference, variance = self._moments.difference()
        n = self._moments.n[0] + self._moments.n[1]
        rho2 = self._rho**2
        inner = (n * rho2 + 1.0) / rho2 * np.log(np.sqrt(n * rho2 + 1.0) / (2.0 * self._risk) + 1.0)
        width = np.sqrt(variance * n) * np.sqrt(2.0 * inner) / n
        enough = (self._moments.n[0] >= 2) & (self._moments.total[0] > 0)
        hit: Labels = (enough & (difference > width))[alive]
        return hit


class LikelihoodRatio:
    """TensorZero's: Gaussian GLR against log((1 + log n) / delta), pooled, at least 10 of each."""

    name = "glr, 5 %"

    def __init__(self, runs: int, risk: float = 0.05) -> None:
        self._moments, self._risk = _Moments(runs), risk

    def step(self, block: Block, alive: Labels) -> Labels:
        self._moments.add(block)
        difference, variance = self._moments.difference()
        n = self._moments.n[0] + self._moments.n[1]
        statistic = np.where(difference > 0, difference**2 / (2.0 * variance), 0.0)
        limit = np.log((1.0 + np.log(n)) / self._risk)
        enough = (self._moments.n[0] >= 10) & (self._moments.total[0] > 0)
        hit: Labels = (enough & (statistic > limit))[alive]
        return hit


def of_failures(world: World, runs: int) -> list[object]:
    """All that can judge a rate of failures."""
    return [
        argo_documented(runs), argo_twice(runs, 0), argo_twice(runs, 3),
        flagger(runs, 0.99), flagger(runs, 0.98), Kayenta(runs),
        AsymptoticSequence(runs, 0.05), AsymptoticSequence(runs, 0.01), LikelihoodRatio(runs),
    ]  # fmt: skip


def of_means(world: World, runs: int) -> list[object]:
    return [Kayenta(runs), AsymptoticSequence(runs, 0.01), LikelihoodRatio(runs)]
