"""Is a guard's value missing more often on one side?  Missing metrics are not health.

Guards leave out what was not measured, which is fair only while that does not depend on the arm.
So whether a value is there is asked as a question of its own, of answers that did not fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ratchet.core.meters import Labels, Tally
from ratchet.stats.harm import YesNo


@dataclass(frozen=True, slots=True, eq=False)
class Presence:
    """Of one guard's values."""

    missing: YesNo = field(default_factory=YesNo.fresh)
    tally: Tally = field(default_factory=Tally)

    @property
    def log_e(self) -> float:
        """ln of the evidence that the canary's are missing more often."""
        return float(self.missing.log_e)

    def observe(self, is_missing: Labels, is_canary: Labels) -> Presence:
        return replace(
            self,
            missing=self.missing.observe_units(is_missing, is_canary),
            tally=self.tally.add(is_missing.astype(np.float64), is_canary),
        )

    def sentence(self, name: str) -> str:
        tally = self.tally
        return (
            f"{name}: no value of {tally.canary_total:.0f} of {tally.canary_units} canary answers, "
            f"of {tally.total - tally.canary_total:.0f} of {tally.baseline_units} baseline "
            "answers: missing metrics are not health"
        )
