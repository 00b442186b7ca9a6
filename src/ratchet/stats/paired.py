"""Evidence from pairs: of two answers to one prompt, which is worse?

Where both are alike a pair says nothing.  Of the others each arm loses half when neither is worse,
whatever the prompts are; so the evidence is of a coin that is not fair (McNemar, 1947), bet on at
several odds at once (Vovk and Wang, 2021).
"""

from __future__ import annotations

import numpy as np

from ratchet.stats.exchangeable import Counts, Floats, log_sum_exp
from ratchet.stats.harm import LOG_PRIOR_ODDS, ODDS_RATIOS

# A bet on odds psi pays 2 psi / (1 + psi) for a pair that the canary loses, 2 / (1 + psi) else.
_LOG_LOST: Floats = np.log(2.0 * ODDS_RATIOS / (1.0 + ODDS_RATIOS))
_LOG_WON: Floats = np.log(2.0 / (1.0 + ODDS_RATIOS))


def log_e_paired(lost: Counts, won: Counts) -> Floats:
    """ln of the evidence that the canary loses more pairs than it wins, shape (...).  It depends on
    the counts alone; an e-process as pairs come."""
    counts = np.asarray(lost)[..., None], np.asarray(won)[..., None]
    return log_sum_exp(counts[0] * _LOG_LOST + counts[1] * _LOG_WON + LOG_PRIOR_ODDS)
