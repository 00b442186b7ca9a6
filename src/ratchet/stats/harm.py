"""Evidence that the canary is worse, for the kinds of metrics there are.

Each kind is an e-process over blocks of concurrent units (`exchangeable`), a mixture over sizes of
effects and over the time at which it began (`eprocess`).  All take the same blocks and share one
filtration, so they may be averaged, whatever depends on what among them.

Grids and priors were chosen by simulation (`make bench-canary`): small effects are likelier, and
get more of the prior; what is bet on effects that no release would live to see (1 % to 1.2 %) is
lost for those that matter.  They change how soon harm is seen, never how often it is seen where
there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.stats.eprocess import Capital
from ratchet.stats.exchangeable import (
    SCORE_MAX,
    Counts,
    Floats,
    log_e_binary,
    log_e_tilted,
    log_sum_exp,
)

Labels = NDArray[np.bool_]

# Odds ratios that are bet on: a regression may be a quarter or seventyfold.
ODDS_RATIOS: Floats = 1.0 + np.geomspace(0.28, 70.0, 16)
# Tilts of standardised scores.
TILTS: Floats = np.geomspace(0.1, 2.0, 12)
# Of the baseline, before the release: who is slower than these?
QUANTILES: Floats = np.array([0.5, 0.75, 0.9, 0.95, 0.99])


def _log_prior(sizes: Floats, power: float) -> Floats:
    weights = sizes**-power
    return np.asarray(np.log(weights / weights.sum()))


LOG_PRIOR_ODDS: Floats = _log_prior(ODDS_RATIOS - 1.0, 0.3)
LOG_PRIOR_TILTS: Floats = _log_prior(TILTS, 0.0)


@dataclass(frozen=True, slots=True)
class YesNo:
    """A metric that is bad or not: errors, refusals, broken formats."""

    capital: Capital

    @classmethod
    def fresh(cls, shape: tuple[int, ...] = ()) -> YesNo:
        return cls(Capital.fresh((*shape, len(ODDS_RATIOS))))

    def observe(self, units: Counts, canary: Counts, bad: Counts, canary_bad: Counts) -> YesNo:
        """After a block: units and bad units of both arms, and of the canary alone."""
        gained = log_e_binary(units, canary, bad, canary_bad, ODDS_RATIOS)
        return YesNo(self.capital.grow(gained))

    def observe_units(self, bad: Labels, is_canary: Labels) -> YesNo:
        """The same from the units themselves, shape (..., N)."""
        units = np.full(bad.shape[:-1], bad.shape[-1], dtype=np.int64)
        return self.observe(
            units,
            np.sum(is_canary, axis=-1),
            np.sum(bad, axis=-1),
            np.sum(bad & is_canary, axis=-1),
        )

    def begin_epoch(self) -> YesNo:
        return YesNo(self.capital.begin_epoch())

    @property
    def log_e(self) -> Floats:
        return self.capital.log_e(LOG_PRIOR_ODDS)


@dataclass(frozen=True, slots=True)
class Shift:
    """A metric with many values, higher for worse: finds what moves as a whole."""

    capital: Capital

    @classmethod
    def fresh(cls, shape: tuple[int, ...] = ()) -> Shift:
        return cls(Capital.fresh((*shape, len(TILTS))))

    def observe(self, scores: Floats, is_canary: Labels) -> Shift:
        """After a block of standardised scores, shape (..., N)."""
        return Shift(self.capital.grow(log_e_tilted(scores, is_canary, TILTS)))

    def begin_epoch(self) -> Shift:
        return Shift(self.capital.begin_epoch())

    @property
    def log_e(self) -> Floats:
        return self.capital.log_e(LOG_PRIOR_TILTS)


@dataclass(frozen=True, slots=True)
class Slower:
    """Latency: half looks at the whole, half at how many are slower than the baseline's
    quantiles, because a tail of a few is not seen in the whole, nor a small shift in a tail."""

    whole: Shift
    tails: YesNo
    """With one more axis, the quantiles: shape (..., Q)."""

    @classmethod
    def fresh(cls, shape: tuple[int, ...] = ()) -> Slower:
        return cls(Shift.fresh(shape), YesNo.fresh((*shape, len(QUANTILES))))

    def observe(self, scores: Floats, is_canary: Labels, bounds: Floats) -> Slower:
        """After a block; `bounds` are the baseline's quantiles as scores, frozen before."""
        slow = scores[..., None, :] > bounds[:, None]
        shared = np.broadcast_to(is_canary[..., None, :], slow.shape)
        return Slower(self.whole.observe(scores, is_canary), self.tails.observe_units(slow, shared))

    def begin_epoch(self) -> Slower:
        return Slower(self.whole.begin_epoch(), self.tails.begin_epoch())

    @property
    def log_e(self) -> Floats:
        tails = log_sum_exp(self.tails.log_e) - np.log(len(QUANTILES))
        return np.asarray(np.logaddexp(self.whole.log_e, tails) - np.log(2.0))


@dataclass(frozen=True, slots=True)
class Scale:
    """How a metric's values become standardised scores: frozen before the release."""

    mean: float
    deviation: float
    bounds: tuple[float, ...]
    """Scores of the quantiles."""
    is_logarithmic: bool

    def scores(self, values: Floats) -> Floats:
        """Of values as they are measured; what cannot be measured is worst."""
        with np.errstate(divide="ignore", invalid="ignore"):
            seen = np.log(values) if self.is_logarithmic else values
        scores = (seen - self.mean) / self.deviation
        return np.clip(np.nan_to_num(scores, nan=SCORE_MAX), -SCORE_MAX, SCORE_MAX)

    def values(self) -> list[float]:
        """The quantiles as they are measured."""
        seen = [self.mean + self.deviation * bound for bound in self.bounds]
        return [float(np.exp(value)) for value in seen] if self.is_logarithmic else seen


def scale_of(reference: Floats, *, is_logarithmic: bool) -> Scale:
    """From the baseline's newest values.  A poor reference costs power, never validity."""
    seen = np.log(np.maximum(reference, 1e-12)) if is_logarithmic else reference
    deviation = float(np.std(seen))
    scale = deviation if deviation > 1e-9 else 1.0
    mean = float(np.mean(seen))
    bounds = (np.quantile(seen, QUANTILES, method="higher") - mean) / scale
    return Scale(mean, scale, tuple(map(float, bounds)), is_logarithmic)
