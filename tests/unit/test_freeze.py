"""Windows of the week in which nothing goes up."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.freeze import Window, frozen

WEEKEND = "fri 16:00 - mon 08:00 Europe/Berlin"


@pytest.mark.parametrize(
    ("at", "inside"),
    [
        (datetime(2026, 11, 27, 14, 59, tzinfo=UTC), False),  # Friday, 15:59 in Berlin
        (datetime(2026, 11, 27, 15, 0, tzinfo=UTC), True),
        (datetime(2026, 11, 29, 23, 59, tzinfo=UTC), True),
        (datetime(2026, 11, 30, 6, 59, tzinfo=UTC), True),
        (datetime(2026, 11, 30, 7, 0, tzinfo=UTC), False),
        # In summer Berlin is two hours ahead.
        (datetime(2026, 7, 3, 14, 0, tzinfo=UTC), True),
        (datetime(2026, 7, 3, 13, 59, tzinfo=UTC), False),
    ],
)
def test_a_window_runs_over_the_end_of_the_week_in_its_time_zone(
    at: datetime, inside: bool
) -> None:
    assert Window.of(WEEKEND).holds(at) is inside
    assert frozen(("tue 01:00-tue 02:00", WEEKEND), at) == (WEEKEND if inside else "")


def test_without_a_zone_times_are_utc_and_a_day_ends_at_24() -> None:
    window = Window.of("sat 00:00 - sun 24:00")

    assert window.holds(datetime(2026, 11, 28, 0, 0, tzinfo=UTC))
    assert window.holds(datetime(2026, 11, 29, 23, 59, tzinfo=UTC))
    assert not window.holds(datetime(2026, 11, 30, 0, 0, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("friday", "expected like"),
        ("fri 16:00 - xyz 08:00", "expected like"),
        ("fri 25:00 - mon 08:00", "00:00 to 24:00"),
        ("fri 16:00 - mon 08:61", "00:00 to 24:00"),
        ("fri 16:00 - mon 08:00 Mars/Base", "no time zone"),
    ],
)
def test_what_is_no_window_is_refused_with_an_example(text: str, words: str) -> None:
    with pytest.raises(Rejected, match=words):
        Window.of(text)
