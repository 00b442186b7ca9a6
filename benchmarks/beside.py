"""What the agent does beside the gateway: what capture loses, what cache and exact budgets take.

A whole site with a stand-in engine.  Capture: requests leave on time for a while, then what the
access records say was sampled is compared with the turns that came.  Latency: one connection, one
request after the other, the ways in turn, medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from place import Site, answer_to, paced, request, running_site
from report import Result, publish

PROMPT = "My parcel has not come, I am ann@example.com and my number is +49 30 1234567. " * 4
ASK = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": PROMPT}]}
LOADS = ((200.0, 1.0), (1000.0, 0.1))
WAYS = {
    "plain": ("access: open", {}),
    "captured": ("access: open, capture: {sample: 100%}", {}),
    "cache_miss": ("access: open, cache: true", {"temperature": 0}),
    "cache_hit": ("access: open, cache: true", {"temperature": 0}),
    "exact": ("access: open, exact: true", {}),
}


def capture(site: Site, rate: float, sample: float, seconds: float) -> list[Result]:
    site.serve(f"access: open, capture: {{sample: {sample:.0%}}}")
    before = site.api.get("/capture", params={"project": "p"}).json()
    cpu = site.cpu_seconds("agent"), site.cpu_seconds("envoy")
    statuses = uvloop.run(paced(site.port, [request(ASK)], rate, seconds))
    assert set(statuses) == {200}, statuses
    spent = site.cpu_seconds("agent") - cpu[0]
    time.sleep(5.0)
    after = site.api.get("/capture", params={"project": "p"}).json()
    sampled, kept = (after[name] - before[name] for name in ("sampled", "kept"))
    name = f"capture_{rate:.0f}rps_{sample:.0%}".replace("%", "pct")
    return [
        Result(f"{name}.requests", statuses.total(), ""),
        Result(f"{name}.sampled", sampled, ""),
        Result(f"{name}.lost", sampled - kept, "turns", 0.0),
        Result(f"{name}.agent_cpu_per_turn", spent / max(1, kept) * 1e6, "us"),
        Result(f"{name}.agent_memory", site.memory_mb("agent"), "MB"),
    ]


async def latencies(port: int, requests: Sequence[bytes]) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took = []
    for sent in requests:
        began = time.perf_counter()
        assert await answer_to(reader, writer, sent) == 200
        took.append(time.perf_counter() - began)
    writer.close()
    return took


def ways(site: Site, rounds: int) -> list[Result]:
    medians: dict[str, list[float]] = {name: [] for name in WAYS}
    number = 0
    for _ in range(rounds):
        for name, (gateway, more) in WAYS.items():
            site.serve(gateway)
            time.sleep(1.0)
            number += 1
            took = uvloop.run(latencies(site.port, _requests(name, more, number)))
            medians[name].append(statistics.median(took[20:]) * 1e3)
    return [
        Result(f"{name}.p50", statistics.median(found), "ms") for name, found in medians.items()
    ]


def _requests(name: str, more: dict[str, Any], number: int) -> list[bytes]:
    """Of 300; those of a miss ask something new each time."""
    if name == "cache_miss":
        return [request({**ASK, **more, "seed": number * 1000 + n}) for n in range(300)]
    return [request({**ASK, **more})] * 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rounds, seconds = (3, 10.0) if parser.parse_args().quick else (9, 60.0)
    with tempfile.TemporaryDirectory(prefix="rb-") as folder, running_site(Path(folder)) as site:
        budget = {"project": "p", "kind": "project", "subject": "", "period": "day"}
        site.api.put("/budgets", json={**budget, "unit": "tokens", "amount": "1000000000"})
        results = [r for load in LOADS for r in capture(site, *load, seconds)]
        results += ways(site, rounds)
    publish("beside", f"{seconds:g} s a load, {rounds} rounds of 300 requests a way", results)


if __name__ == "__main__":
    main()
