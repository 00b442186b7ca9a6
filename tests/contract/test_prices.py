"""Lists of prices in files and behind a real HTTP server."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import threading
from datetime import UTC, datetime
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ratchet.adapters.prices import PriceLists
from ratchet.core.errors import Rejected
from ratchet.kit.clock import SystemClock

LISTED = {"machines": {"m": {"on_demand": 1.0}}}


def lists(*places: str) -> PriceLists:
    return PriceLists(places, SystemClock())


def test_a_list_is_as_old_as_its_file_says(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(json.dumps(LISTED))
    os.utime(file, (1_764_000_000, 1_764_000_000))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        found = asyncio.run(lists(str(file), f"{url}/prices.json").prices())
        with pytest.raises(Rejected, match=r"RATCHET_PRICES: .*no.json cannot be read: .*404"):
            asyncio.run(lists(f"{url}/no.json").prices())
    finally:
        server.shutdown()
        server.server_close()

    assert [each.at for each in found] == [datetime.fromtimestamp(1_764_000_000, UTC)] * 2
    assert found[0].on_demand == {"m": 1.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        (json.dumps({"machines": {"m": {"on_demand": 0}}}), "machines.m.on_demand: found 0"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, says: str) -> None:
    file = tmp_path / "prices.json"
    if text is not None:
        file.write_text(text)

    with pytest.raises(Rejected, match=f"RATCHET_PRICES: {file}.*{says}"):
        asyncio.run(lists(str(file)).prices())
