"""A guard over counters of a real Prometheus: sampled, judged, and what is wrong with a query said.

Needs the `prometheus` binary (Debian: apt-get install prometheus).
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2 as httpx
import pytest
from psycopg.types.json import Jsonb

from ratchet.adapters.postgres.codec import plan_to_json
from ratchet.adapters.postgres.evidence import evidence_to_json
from ratchet.adapters.postgres.pool import Database
from ratchet.adapters.postgres.releases import PostgresReleases
from ratchet.adapters.postgres.samples import PostgresSamples
from ratchet.adapters.prometheus import Prometheus
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.evidence import count, first_evidence
from ratchet.core.findings import LOG_THRESHOLD
from ratchet.core.guards import Group, Guard, Kind, with_always
from ratchet.core.rollout import Signal, decide
from ratchet.core.scrapes import CountQuery
from ratchet.kit.clock import SystemClock
from ratchet.kit.network import free_port
from ratchet.operations.scrapes import ScrapeParts, scrape
from ratchet.ports import StoredRelease, Taken
from tests.stored import ACT, NOW, a_canary, with_database

pytestmark = pytest.mark.deep

RETURNS = Guard(name="returns", kind=Kind.RATE, group=Group.SCRAPED, margin=0.02)
QUERY = CountQuery(
    guard="returns",
    bad='sum(returns_total{version="$version"})',
    all='sum(orders_total{version="$version"})',
)


@dataclass
class Shop:
    """Orders and returns by version, for Prometheus to scrape."""

    counters: dict[tuple[str, str], int] = field(default_factory=dict)

    def sells(self, version: str, orders: int, returns: int) -> None:
        for name, more in (("orders_total", orders), ("returns_total", returns)):
            self.counters[name, version] = self.counters.get((name, version), 0) + more

    def page(self) -> bytes:
        lines = [
            f'{name}{{version="{version}"}} {value}'
            for (name, version), value in sorted(self.counters.items())
        ]
        return ("\n".join(lines) + "\n").encode()


@contextmanager
def prometheus(shop: Shop, folder: Path) -> Iterator[str]:
    binary = shutil.which("prometheus")
    assert binary, "apt-get install prometheus"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = shop.page()
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms}\n"
        "scrape_configs: [{job_name: shop, static_configs: "
        f"[{{targets: ['127.0.0.1:{server.server_address[1]}']}}]}}]\n"
    )
    process = subprocess.Popen(
        [binary, f"--config.file={folder / 'prometheus.yml'}",
         f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _until_ready(url)
        yield url
    finally:
        process.terminate()
        process.wait(20)
        server.shutdown()
        server.server_close()


def _until_ready(url: str) -> None:
    """It has scraped the shop: it finds out about targets a few seconds after it is ready."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            up = httpx.get(f"{url}/api/v1/query", params={"query": "up == 1"}).json()
            if up["data"]["result"]:
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        time.sleep(0.1)
    raise AssertionError("Prometheus has scraped nothing")


async def _counting(database: Database) -> StoredRelease:
    """A canary at half whose plan asks for returns."""
    stored = await a_canary(database)
    plan = replace(stored.plan, guards=with_always([RETURNS]), queries=(QUERY,))
    evidence = Jsonb(evidence_to_json(first_evidence(plan, {})))
    async with database.transaction() as tx:
        await tx.execute(
            "UPDATE releases SET plan = %s, evidence = %s, begun = %s",
            (Jsonb(plan_to_json(plan)), evidence, evidence),
        )
    return await PostgresReleases(database).get(stored.release.id)


def test_returns_that_only_prometheus_knows_are_judged(database_url: str, tmp_path: Path) -> None:
    shop = Shop()

    async def scenario(database: Database) -> None:
        stored = await _counting(database)
        release, samples = stored.release, PostgresSamples(database)
        shop.sells(release.candidate, 0, 0)
        shop.sells(release.baseline, 0, 0)
        with prometheus(shop, tmp_path) as url:
            parts = ScrapeParts(
                PostgresReleases(database), Prometheus(url), samples, SystemClock()
            )  # fmt: skip
            for _ in range(8):
                await asyncio.sleep(0.7)
                assert await scrape(parts) == 1
                shop.sells(release.candidate, 20, 8)
                shop.sells(release.baseline, 80, 2)
            known = await samples.after(release.id, 0)
            evidence = count(stored.evidence, known)

            # Weights that move between reading and writing: the sample belongs to neither.
            begun = await samples.position(release)
            paused = decide(release, Signal.PAUSE)
            await PostgresReleases(database).commit(stored, paused, ACT, Taken(), NOW)
            back = decide(paused.release, Signal.ABORT)
            stored = replace(stored, release=paused.release)
            await PostgresReleases(database).commit(stored, back, ACT, Taken(), NOW)
            with pytest.raises(Exception, match="the weights moved"):
                await samples.add(release, begun, {}, NOW)
            assert await scrape(parts) == 0

        assert len(known) == 8
        assert evidence.log_harm >= LOG_THRESHOLD
        tally = evidence.meter("returns").tally
        assert (tally.canary_units, tally.canary_total) == (140, 56.0)

    with_database(database_url, scenario)


def test_what_prometheus_does_not_have_or_understand_is_said(tmp_path: Path) -> None:
    shop = Shop()
    shop.sells("v_1", 3, 1)

    async def scenario(url: str) -> None:
        source = Prometheus(url)
        await asyncio.sleep(0.7)
        assert await source.value('sum(orders_total{version="v_1"})') == 3.0
        assert await source.value("vector(1) / 0") is None
        assert await source.value("scalar(vector(2))") == 2.0
        assert await source.value("nothing_total") is None
        with pytest.raises(Rejected, match="parse error"):
            await source.value("sum(")

    with prometheus(shop, tmp_path) as url:
        asyncio.run(scenario(url))
    with pytest.raises(Unavailable, match="Prometheus at"):
        asyncio.run(Prometheus(url).value("up"))
    with pytest.raises(Unavailable, match="RATCHET_PROMETHEUS_URL is not set"):
        asyncio.run(Prometheus("").value("up"))
