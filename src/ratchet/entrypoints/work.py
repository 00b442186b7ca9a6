"""To hear at once that the control plane wants other work done."""

from __future__ import annotations

import asyncio

import httpx2 as httpx

WAIT_SECONDS = 10.0
PAUSE_SECONDS = 1.0


async def follow_work(client: httpx.AsyncClient, changed: asyncio.Event) -> None:
    """Set `changed` whenever there is other work than before, until cancelled.

    It only saves time: whoever does the work looks by itself, too.
    """
    seen = ""
    while True:
        try:
            answer = await client.get(
                "/api/v1/node/work",
                params={"after": seen, "wait": WAIT_SECONDS},
                timeout=2 * WAIT_SECONDS,
            )
            answer.raise_for_status()
        except httpx.HTTPError:
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        if answer.json()["digest"] != seen:
            seen = answer.json()["digest"]
            changed.set()
