"""Windows of the week in which no release goes up: "fri 16:00 - mon 08:00 Europe/Berlin"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ratchet.core.errors import Rejected

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(
    r"^(?P<day>[a-z]{3}) (?P<at>\d{2}:\d{2}) ?- ?(?P<last_day>[a-z]{3}) (?P<end>\d{2}:\d{2})"
    r"(?: (?P<zone>[A-Za-z_/+-]+\d*))?$"
)
_WEEK = 7 * 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """From one minute of the week to another, in a time zone; it may run over Sunday night."""

    begins: int
    """Minutes since Monday's midnight."""
    ends: int
    zone: str

    @classmethod
    def of(cls, text: str) -> Window:
        """Raises `Rejected` with an example."""
        found = _WINDOW.match(text)
        if found is None or found["day"] not in DAYS or found["last_day"] not in DAYS:
            raise Rejected(
                f'release.freeze: found {text!r}, expected like "fri 16:00 - mon 08:00 '
                'Europe/Berlin" (UTC without a time zone)'
            )
        zone = found["zone"] or "UTC"
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise Rejected(f"release.freeze: found no time zone {zone!r}") from None
        begins = _minute(found["day"], found["at"], text)
        ends = _minute(found["last_day"], found["end"], text)
        return cls(begins, ends, zone)

    def holds(self, now: datetime) -> bool:
        """Is this moment inside?"""
        there = now.astimezone(ZoneInfo(self.zone))
        minute = (there.weekday() * 24 + there.hour) * 60 + there.minute
        return (minute - self.begins) % _WEEK < (self.ends - self.begins) % _WEEK


def _minute(day: str, at: str, text: str) -> int:
    hours, minutes = map(int, at.split(":"))
    if hours > 24 or minutes > 59 or (hours == 24 and minutes):
        raise Rejected(f"release.freeze: found {text!r}, expected times from 00:00 to 24:00")
    return (DAYS.index(day) * 24 + hours) * 60 + minutes


def frozen(windows: tuple[str, ...], now: datetime) -> str:
    """The window that this moment is in, as it was written; empty for none."""
    return next((text for text in windows if Window.of(text).holds(now)), "")
