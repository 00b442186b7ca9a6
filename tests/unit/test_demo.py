"""How many users the demo plays."""

from __future__ import annotations

import pytest

from ratchet.entrypoints.demo.story import pace_of


@pytest.mark.parametrize(
    ("answer_seconds", "usual", "rush"),
    [(0.05, 2.0, 8.0), (0.1, 1.5, 8.0), (0.7, 0.214, 1.143), (1e-9, 2.0, 8.0)],
)
def test_users_come_as_fast_as_the_machine_can_answer(
    answer_seconds: float, usual: float, rush: float
) -> None:
    pace = pace_of(answer_seconds)

    assert (pace.usual, pace.rush) == pytest.approx((usual, rush), abs=1e-3)
