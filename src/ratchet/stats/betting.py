"""Bounds on how much worse the canary's mean is, valid however often one looks.

For a metric X in [0, 1] (bad is high) and a canary share w, each unit gives

    Y = 1{canary} (X - m) / w  -  1{baseline} (X - m) / (1 - w),

with m the mean of both arms before it.  Its mean is the canary's regression, whatever the base rate
does meanwhile.  Against "the regression is at least d" one bets

    K_d = prod (1 - lambda (Y - d)),

with lambda so small that no factor is below zero, and averages over several sizes of lambda.  K_d
is an e-process under that hypothesis; where it reaches 1/a, a regression of d or more is excluded.
The smallest excluded d is an upper bound, valid at all times together with probability 1 - a.

Reference: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(2024); importance weights as in Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro,
"Anytime-valid off-policy inference for contextual bandits" (2024).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ratchet.stats.exchangeable import Counts, Floats, log_sum_exp

# Of the largest safe bet.
FRACTIONS: Floats = np.array([0.01, 0.02, 0.035, 0.06, 0.1, 0.16, 0.25, 0.4, 0.6, 0.9])
# Margins that a bound is looked for among, of the metric's range.
MARGINS: Floats = np.concatenate((np.geomspace(5e-4, 0.05, 25), np.geomspace(0.06, 1.0, 15)))
# The mean before anything was seen is a guess; it costs power, not validity.
_MEAN_PRIOR_UNITS = 20.0
_MEAN_PRIOR = 0.05


@dataclass(frozen=True, slots=True)
class RegressionBound:
    """The betting process for every margin of a grid: ln capital, shape (..., D, L)."""

    log_capital: Floats
    units: Floats
    """Of both arms, shape (...)."""
    total: Floats
    """Sum of the metric over both arms."""
    margins: Floats = field(default_factory=lambda: MARGINS)
    """That bounds are looked for among; ascending."""

    @classmethod
    def fresh(cls, shape: tuple[int, ...] = (), margins: Floats = MARGINS) -> RegressionBound:
        return cls(
            np.zeros((*shape, len(margins), len(FRACTIONS))),
            np.zeros(shape),
            np.zeros(shape),
            margins,
        )

    def observe(
        self,
        canary_share: Floats,
        canary: tuple[Counts, Floats],
        baseline: tuple[Counts, Floats],
        values: tuple[Floats, Floats] | None = None,
    ) -> RegressionBound:
        """After a block that was assigned with this share.

        Each arm: its units and the sum of its metric.  For a yes-or-no metric that is all; for
        others `values` has both arms' units, padded with not-a-number, shape (..., N).
        """
        share = canary_share[..., None, None]
        mean = (self.total + _MEAN_PRIOR * _MEAN_PRIOR_UNITS) / (self.units + _MEAN_PRIOR_UNITS)
        m = mean[..., None, None]
        margins = self.margins[:, None]
        # The largest Y that there can be: a bad canary unit, or a good baseline one.
        highest = np.maximum((1.0 - m) / share, m / (1.0 - share))
        bets = FRACTIONS / (highest - margins + 1e-12)
        bets = np.where(highest > margins, bets, 0.0)

        def gain(y: Floats) -> Floats:
            return np.asarray(np.log1p(-bets * (y - margins)))

        log_capital = self.log_capital
        if values is None:
            for (units, bad), sign, part in (
                (canary, 1.0, share),
                (baseline, -1.0, 1.0 - share),
            ):
                for times, x in ((bad, 1.0), (units - bad, 0.0)):
                    step = gain(sign * (x - m) / part)
                    log_capital = log_capital + times[..., None, None] * step
        else:
            for arm, sign, part in ((values[0], 1.0, share), (values[1], -1.0, 1.0 - share)):
                for x in np.moveaxis(arm, -1, 0):
                    step = gain(sign * (x[..., None, None] - m) / part)
                    log_capital = log_capital + np.where(np.isnan(x)[..., None, None], 0.0, step)
        return RegressionBound(
            log_capital,
            self.units + canary[0] + baseline[0],
            self.total + canary[1] + baseline[1],
            self.margins,
        )

    def log_evidence(self) -> Floats:
        """ln of the evidence against each margin, shape (..., D)."""
        return np.asarray(log_sum_exp(self.log_capital) - np.log(len(FRACTIONS)))

    def upper(self, risk: float) -> Floats:
        """The smallest margin that is excluded together with all above it; 1 when none is."""
        excluded = self.log_evidence() >= -np.log(risk)
        # A margin counts only when every larger one is excluded, too.
        from_above = np.flip(np.cumprod(np.flip(excluded, axis=-1), axis=-1), axis=-1)
        first = np.argmax(from_above, axis=-1)
        return np.where(from_above.any(axis=-1), self.margins[first], 1.0)
