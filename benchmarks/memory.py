"""Does memory come to rest?  Half an hour of mixed load on a whole site.

Answers whole and streamed, some captured, some from the cache, some reserved by exact budgets,
feedback, bodies of half a megabyte, and the console's calls.  Memory is
each process's resident set, every five seconds; the slope is the line of least squares over the
second half, by when caches, pools and arenas have filled.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import threading
import time
from pathlib import Path

import uvloop
from place import Site, paced, request, running_site
from report import Result, publish

RATE = 60.0
LOOK_SECONDS = 5.0
SERVED = "access: open, capture: {sample: 30%}, cache: {ttl: 1m}, exact: true"
BODY = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "hello " * 40}]}
LONG = {**BODY, "messages": [{"role": "user", "content": "y" * 500_000}]}
WATCHED = ("envoy", "server", "agent")


def mix() -> list[bytes]:
    """What a minute's traffic is made of."""
    said = {"request_id": "r", "thumbs": "up"}
    return [
        *[request({**BODY, "seed": number, "temperature": 0}) for number in range(20)],
        *[request(BODY) for _ in range(60)],
        *[request({**BODY, "stream": True}, "x-test-kind: stream") for _ in range(10)],
        *[request({**said, "comment": str(n)}, path="/v1/feedback") for n in range(10)],
        request(LONG),
    ]


def look_at_console(site: Site, stop: threading.Event) -> None:
    paths = itertools.cycle(("/projects", "/usage", "/turns", "/capture", "/engines", "/audit"))
    query = {"project": "p", "since": "2020-01-01T00:00:00Z"}
    while not stop.wait(0.5):
        site.api.get(next(paths), params=query).raise_for_status()


def slope_mb_per_hour(times: list[float], values: list[float]) -> float:
    return statistics.linear_regression(times, values).slope * 3600


async def watched(site: Site, seconds: float) -> tuple[list[float], dict[str, list[float]]]:
    """Load, and memory of each process meanwhile."""
    times: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in WATCHED}

    async def look() -> None:
        began = time.monotonic()
        while True:
            times.append(time.monotonic() - began)
            for name in WATCHED:
                found[name].append(site.memory_mb(name))
            await asyncio.sleep(LOOK_SECONDS)

    looking = asyncio.create_task(look())
    statuses = await paced(site.port, mix(), RATE, seconds)
    looking.cancel()
    assert set(statuses) <= {200, 202}, statuses
    print(dict(statuses), flush=True)
    return times, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    seconds = 100.0 if parser.parse_args().quick else 1800.0
    with tempfile.TemporaryDirectory(prefix="rb-") as folder, running_site(Path(folder)) as site:
        site.serve(SERVED)
        budget = {"project": "p", "kind": "project", "subject": "", "period": "day"}
        site.api.put("/budgets", json={**budget, "unit": "tokens", "amount": "1000000000"})
        stop = threading.Event()
        console = threading.Thread(target=look_at_console, args=(site, stop))
        console.start()
        try:
            times, found = uvloop.run(watched(site, seconds))
        finally:
            stop.set()
            console.join()
    half = len(times) // 2
    results = []
    for name, values in found.items():
        goal = None if name == "agent" else 1.0
        slope = slope_mb_per_hour(times[half:], values[half:])
        results += [
            Result(f"{name}.first_minute", statistics.median(values[: 60 // 5]), "MB"),
            Result(f"{name}.middle", values[half], "MB"),
            Result(f"{name}.end", values[-1], "MB"),
            Result(f"{name}.slope", slope, "MB/h", goal),
        ]
    publish("memory", f"{seconds / 60:.0f} minutes, {RATE:.0f} requests a second", results)


if __name__ == "__main__":
    main()
