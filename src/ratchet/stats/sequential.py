"""Evidence that stays valid however often one looks.

An *e-process* is a running product of *e-values*: non-negative numbers whose mean is at
most one if the null hypothesis holds.  By Ville's inequality the chance that it ever
reaches 1/a is at most a.  So one may look after every block, stop at any moment, and the
error rate still holds.

The null hypothesis here is that inside a block the arm labels are exchangeable: which of
the units went to the canary says nothing about which were bad.  Conditioning on the
block's number of bad units and on the realised arm sizes takes base rate, time of day,
load and the traffic split out of the problem.

Everything is in log space and deterministic, so that a replay gives the same bits.

References: Vovk and Wang, "E-values" (2021); Turner, Ly and Gruenwald, "Generic E-variables
for exact sequential k-sample tests" (2021); Ville (1939).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Odds ratios that are bet on: psi - 1 geometric from 0.12 to 70, because a regression may be a
# tenth or a hundredfold.  Small effects are likelier and get more of the prior.
ODDS_RATIOS: tuple[float, ...] = tuple(1.0 + 0.12 * (70.0 / 0.12) ** (i / 15) for i in range(16))
_PRIOR_UNSCALED = tuple((psi - 1.0) ** -0.4 for psi in ODDS_RATIOS)
LOG_PRIOR: tuple[float, ...] = tuple(math.log(w / sum(_PRIOR_UNSCALED)) for w in _PRIOR_UNSCALED)


@dataclass(frozen=True, slots=True)
class Block:
    """A run of units that were assigned under one weight.

    `units` and `bad` count both arms together; `canary_units` and `canary_bad` the canary alone.
    """

    units: int
    canary_units: int
    bad: int
    canary_bad: int

    def __post_init__(self) -> None:
        if not 0 <= self.canary_bad <= min(self.bad, self.canary_units):
            raise ValueError(f"impossible block: {self}")
        if self.bad - self.canary_bad > self.units - self.canary_units:
            raise ValueError(f"impossible block: {self}")


def log_sum_exp(terms: Sequence[float]) -> float:
    """ln of the sum of exponentials, without overflow; minus infinity for no mass."""
    largest = max(terms)
    if math.isinf(largest):
        return largest
    return largest + math.log(sum(math.exp(term - largest) for term in terms))


def log_e_binary(block: Block, odds_ratio: float) -> float:
    """ln of the exact block e-value against "the canary is not worse", for one odds ratio.

    e = psi^k * C(N, c) / sum_j C(K, j) * C(N - K, c - j) * psi^j : the likelihood ratio of
    Fisher's non-central against the central hypergeometric distribution, with N units, c of
    them canary, K bad, k of these in the canary.  Its mean over all labellings is exactly one.
    """
    n, c, bad = block.units, block.canary_units, block.bad
    log_psi = math.log(odds_ratio)
    lowest, highest = max(0, c - (n - bad)), min(bad, c)
    mixture = log_sum_exp(
        [
            _log_choose(bad, j) + _log_choose(n - bad, c - j) + j * log_psi
            for j in range(lowest, highest + 1)
        ]
    )
    return block.canary_bad * log_psi + _log_choose(n, c) - mixture


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


@dataclass(frozen=True, slots=True)
class BinaryEvidence:
    """The e-process of one yes-or-no metric: ln capital for each odds ratio, and what was seen."""

    log_capital: tuple[float, ...] = (0.0,) * len(ODDS_RATIOS)
    units: int = 0
    canary_units: int = 0
    bad: int = 0
    canary_bad: int = 0

    def observe(self, block: Block) -> BinaryEvidence:
        """The evidence after one more block.  A block with one arm only moves nothing."""
        gains = [log_e_binary(block, psi) for psi in ODDS_RATIOS]
        return BinaryEvidence(
            log_capital=tuple(a + b for a, b in zip(self.log_capital, gains, strict=True)),
            units=self.units + block.units,
            canary_units=self.canary_units + block.canary_units,
            bad=self.bad + block.bad,
            canary_bad=self.canary_bad + block.canary_bad,
        )

    @property
    def log_e(self) -> float:
        """ln of the prior-weighted average capital, itself an e-process."""
        pairs = zip(LOG_PRIOR, self.log_capital, strict=True)
        return log_sum_exp([prior + capital for prior, capital in pairs])


def log_mean(log_values: Sequence[float]) -> float:
    """ln of the plain average.  The average of e-processes of one filtration is an e-process."""
    return log_sum_exp(list(log_values)) - math.log(len(log_values))
