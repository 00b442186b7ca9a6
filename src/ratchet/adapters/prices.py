"""Lists of prices in files, or at urls that a job of yours keeps fresh."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx2 as httpx

from ratchet.core.errors import Rejected
from ratchet.core.prices import PriceList, read_prices
from ratchet.kit.clock import Clock

SECONDS_MAX = 20.0


class PriceLists:
    """Each is read when it is asked for; how old it is says its file's or its server's date."""

    def __init__(self, places: Sequence[str], clock: Clock) -> None:
        self._places, self._clock = places, clock

    async def prices(self) -> Sequence[PriceList]:
        now = self._clock.now()
        return await asyncio.gather(*(_read(place, now) for place in self._places))


async def _read(place: str, now: datetime) -> PriceList:
    try:
        if place.startswith(("http://", "https://")):
            async with httpx.AsyncClient(timeout=SECONDS_MAX, follow_redirects=True) as client:
                answer = await client.get(place)
                answer.raise_for_status()
            said = answer.headers.get("last-modified")
            at = parsedate_to_datetime(said) if said else now
            return read_prices(answer.json(), at)
        return await asyncio.to_thread(_read_file, Path(place))
    except (OSError, httpx.HTTPError) as error:
        raise Rejected(f"RATCHET_PRICES: {place} cannot be read: {error}") from error
    except ValueError as error:
        raise Rejected(f"RATCHET_PRICES: {place} is no JSON: {error}") from error
    except Rejected as problem:
        raise Rejected(f"RATCHET_PRICES: {place}: {problem}") from problem


def _read_file(file: Path) -> PriceList:
    at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return read_prices(json.loads(file.read_text()), at)
