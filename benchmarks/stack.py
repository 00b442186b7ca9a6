"""The embedded stack: time to ready, first and second start, and its memory."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from report import Result, publish

from ratchet.entrypoints.local.state import Ports, open_state
from ratchet.entrypoints.local.supervisor import running
from ratchet.kit.network import free_port


async def start(root: Path, ports: Ports) -> tuple[float, dict[str, float]]:
    began = time.monotonic()
    async with running(open_state(root), ports, dict(os.environ), lambda _: None) as stack:
        seconds = time.monotonic() - began
        await asyncio.sleep(1.0)
        memory = {
            name: _pss_mb(child.process.pid)
            for name, child in stack.children.items()
            if child.process
        }
    return seconds, memory


def _pss_mb(pid: int) -> float:
    """Proportional set size of a process and all below it."""
    pids, total = [pid], 0
    while pids:
        one = pids.pop()
        children = Path(f"/proc/{one}/task/{one}/children").read_text()
        pids += [int(child) for child in children.split()]
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rounds = 3 if parser.parse_args().quick else 7
    firsts, seconds = [], []
    memory: dict[str, float] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            ports = Ports(gateway=free_port(), http=free_port(), grpc=free_port())
            first, _ = asyncio.run(start(Path(folder) / "state", ports))
            again, memory = asyncio.run(start(Path(folder) / "state", ports))
        firsts.append(first)
        seconds.append(again)
    stores = memory["postgres"] + memory["valkey"] + memory["envoy"]
    results = [
        Result("first_start_median", statistics.median(firsts), "s"),
        Result("second_start_median", statistics.median(seconds), "s", 3.0),
        Result("memory_postgres_valkey_envoy", stores, "MB", 150.0),
        Result("memory_server", memory["server"], "MB"),
        Result("memory_agent", memory["agent"], "MB"),
    ]
    publish("stack", f"{rounds} rounds, medians, without engines", results)


if __name__ == "__main__":
    main()
