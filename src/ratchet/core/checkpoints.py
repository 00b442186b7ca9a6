"""How often to save, so that saving and repeating together cost the least."""

from __future__ import annotations

import math

# A machine of which nothing is known is taken away about every other hour.
SECONDS_BETWEEN_STOPS = 7200.0
# Before anything was measured: what a LoRA's optimizer takes to write.
SAVE_SECONDS_GUESSED = 1.0
INTERVAL_SECONDS_MIN = 5.0
INTERVAL_SECONDS_MAX = 900.0


def interval_seconds(
    save_seconds: float, seconds_between_stops: float = SECONDS_BETWEEN_STOPS
) -> float:
    """Work between two checkpoints: the square root of 2 S M, within bounds.

    J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17 (1974):
    S is what a save costs, M the mean time between two stops.
    """
    best = math.sqrt(2.0 * save_seconds * seconds_between_stops)
    return min(max(best, INTERVAL_SECONDS_MIN), INTERVAL_SECONDS_MAX)
