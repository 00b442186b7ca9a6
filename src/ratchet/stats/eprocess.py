"""Capital that grows by e-values: mixtures over bets and over the time at which harm began.

An *e-process* is non-negative and has a mean of at most one whenever it is stopped, if the null
hypothesis holds.  By Ville's inequality the chance that it ever reaches 1/a is at most a.  Products
of e-values of successive blocks are e-processes; so are averages of e-processes of one filtration,
with weights that were fixed before.

A regression may begin late.  So capital is put in at later epochs, too: with weights p_0, p_1, ...
that sum to at most one, epoch j's part starts at its epoch, and what has not started yet counts as
itself.  (A weighted Shiryaev-Roberts statistic; unlike a restarted one it is an e-process for ever.
The idea: Shin, Ramdas and Rinaldo, "E-detectors", 2023.)

References: Ville (1939); Vovk and Wang, "E-values" (2021).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ratchet.stats.exchangeable import Floats, log_sum_exp

# Of the capital, so much is there from the start; the rest is spread over later epochs.
FIRST_SHARE = 0.8
# Spread evenly over this many: five hours of five-minute epochs.
LATER_EPOCHS = 60


def epoch_share(epoch: int) -> float:
    """What begins at an epoch, of a capital of one."""
    if epoch == 0:
        return FIRST_SHARE
    return (1.0 - FIRST_SHARE) / LATER_EPOCHS if epoch <= LATER_EPOCHS else 0.0


@dataclass(frozen=True, slots=True)
class Capital:
    """ln of the capital of each bet, shape (..., G), and how much has not started."""

    log_bets: Floats
    epoch: int = 0
    waiting: float = 1.0 - FIRST_SHARE

    @classmethod
    def fresh(cls, shape: tuple[int, ...]) -> Capital:
        """At the first epoch; `shape` ends in the number of bets."""
        return cls(np.full(shape, np.log(FIRST_SHARE)))

    def grow(self, log_e: Floats) -> Capital:
        """After a block whose e-values are these."""
        return replace(self, log_bets=self.log_bets + log_e)

    def begin_epoch(self) -> Capital:
        """Let the next part start."""
        share = epoch_share(self.epoch + 1)
        started = self.log_bets
        if share > 0.0:
            started = np.logaddexp(started, np.log(share))
        # Counted, not subtracted: so it ends at zero and not beside it.
        left = max(0, LATER_EPOCHS - self.epoch - 1)
        return Capital(started, self.epoch + 1, (1.0 - FIRST_SHARE) * left / LATER_EPOCHS)

    def log_e(self, log_prior: Floats) -> Floats:
        """ln of the e-process, shape (...): bets weighted by a prior that sums to one."""
        running = log_sum_exp(self.log_bets + log_prior)
        if self.waiting <= 0.0:
            return running
        return np.asarray(np.logaddexp(running, np.log(self.waiting)))


def log_average(log_values: Floats, weights: Floats) -> Floats:
    """ln of the weighted average over the last axis; weights sum to one."""
    return log_sum_exp(log_values + np.log(weights))
