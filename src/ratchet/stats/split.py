"""Was the traffic split as it was asked for?  An e-process against the asked share.

Of n units, c went to the canary.  Against "each with probability w" stands a beta distribution
around w, worth `PRIOR_UNITS` units, that learns from what came before:

    e = B(a + c, b + n - c) / B(a, b) / (w^c (1 - w)^(n - c)),   a = w PRIOR_UNITS + c so far, ...

Its mean is one when the split is right, however often it is looked at.  When the asked share
changes, counting begins anew and the evidence goes on.

Reference: Lindon and Malek, "Anytime-valid inference for multinomial count data" (2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PRIOR_UNITS = 200.0


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """What was seen of the split; `log_e` is ln of the evidence that it is wrong."""

    log_e: float = 0.0
    share: float = 0.0
    """That counts are of, from 0 to 1."""
    units: int = 0
    canary: int = 0

    def observe(self, share: float, units: int, canary: int) -> SplitCheck:
        """After units that were to be split with this share; a share of 0 or 1 tells nothing."""
        if not 0.0 < share < 1.0:
            return self
        before = self if share == self.share else SplitCheck(self.log_e, share)
        a = share * PRIOR_UNITS + before.canary
        b = (1.0 - share) * PRIOR_UNITS + before.units - before.canary
        others = units - canary
        gained = (
            _log_beta(a + canary, b + others)
            - _log_beta(a, b)
            - canary * math.log(share)
            - others * math.log1p(-share)
        )
        return SplitCheck(
            before.log_e + gained, share, before.units + units, before.canary + canary
        )

    @property
    def realised(self) -> float:
        """The canary's share of what was seen since the asked share changed."""
        return self.canary / self.units if self.units else math.nan


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
