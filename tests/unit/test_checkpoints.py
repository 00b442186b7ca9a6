"""How often to save."""

from __future__ import annotations

import pytest

from ratchet.core.checkpoints import (
    INTERVAL_SECONDS_MAX,
    INTERVAL_SECONDS_MIN,
    interval_seconds,
)


def wasted_share(interval: float, save: float, between_stops: float) -> float:
    """Of the time: saving, and repeating half an interval at each stop."""
    return save / interval + interval / (2.0 * between_stops)


@pytest.mark.parametrize(("save", "between_stops"), [(0.5, 3600.0), (2.0, 7200.0), (20.0, 7200.0)])
def test_no_other_interval_wastes_less(save: float, between_stops: float) -> None:
    best = interval_seconds(save, between_stops)

    least = wasted_share(best, save, between_stops)
    assert all(
        wasted_share(best * factor, save, between_stops) > least for factor in (0.5, 0.9, 1.1, 2.0)
    )


def test_the_interval_stays_within_bounds() -> None:
    assert interval_seconds(0.0) == INTERVAL_SECONDS_MIN
    assert interval_seconds(3600.0, 1e6) == INTERVAL_SECONDS_MAX
