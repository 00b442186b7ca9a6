"""Evaluate versions through an engine, as users will meet them: over HTTP, with its real latency.

Candidate and baseline answer the same items, one engine after the other, so that latencies are
measured under the same conditions.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx

from ratchet.kit.digest import digest_json

# Few enough that an item's latency is its own, enough that two cores do not wait.
ITEMS_AT_ONCE = 4
START_SECONDS_MAX = 600.0
ITEM_SECONDS_MAX = 120.0
EXCERPT = 200


class EngineFailed(Exception):
    """The engine of a version does not start or does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineArguments:
    """What an engine process needs, for either kind."""

    kind: str
    base: str
    adapter: str | None
    objects: str
    cache: Path
    name: str
    vllm_python: str

    def command(self, port: int) -> list[str]:
        module = "ratchet.engine.vllm" if self.kind == "vllm" else "ratchet.engine.main"
        command = [
            sys.executable, "-m", module,
            "--base", self.base,
            "--objects", self.objects,
            "--cache", str(self.cache),
            "--name", self.name,
            "--port", str(port),
        ]  # fmt: skip
        if self.adapter:
            command += ["--adapter", self.adapter]
        if self.kind == "vllm":
            command += ["--python", self.vllm_python, "--version", self.adapter or "base"]
        return command


@contextmanager
def engine(arguments: EngineArguments, log: Path) -> Iterator[str]:
    """A running engine's address.  It dies with this process."""
    port = _free_port()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*arguments.command(port), "--parent", str(os.getpid())], stdout=file, stderr=file
        )
        try:
            _wait_until_ready(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = log.read_text(errors="replace")[-500:].strip()
            raise EngineFailed(f"engine ended with code {process.returncode}: {tail}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=2.0).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise EngineFailed(f"engine was not ready after {START_SECONDS_MAX:.0f} s")


def run_suite(
    suite: dict[str, Any], url: str, name: str, done: Callable[[int], None]
) -> dict[str, Any]:
    """One version's report on one suite, in the suite's order.  `done` hears each count of items
    and may raise to stop."""
    rows: Sequence[dict[str, Any]] = suite["rows"]
    items = []
    with (
        httpx.Client(timeout=ITEM_SECONDS_MAX) as client,
        ThreadPoolExecutor(ITEMS_AT_ONCE) as pool,
    ):
        answers = pool.map(lambda row: _ask(client, url, name, row, suite["max_tokens"]), rows)
        for number, (row, (answer, latency_ms)) in enumerate(zip(rows, answers, strict=True), 1):
            expected = row["messages"][-1]["content"]
            items.append(
                {
                    "key": digest_json(row),
                    "prompt": row["messages"][-2]["content"][:EXCERPT],
                    "expected": expected[:EXCERPT],
                    "answer": answer[:EXCERPT],
                    "score": CHECKS[suite["check"]](answer, expected),
                    "latency_ms": latency_ms,
                }
            )
            done(number)
    return {"suite": suite["name"], "digest": suite["digest"], "items": items}


def _ask(
    client: httpx.Client, url: str, name: str, row: dict[str, Any], max_tokens: int
) -> tuple[str, float]:
    body = {
        "model": name,
        "messages": row["messages"][:-1],
        "max_tokens": max_tokens,
        "temperature": 0.0,
    }
    began = time.perf_counter()
    answer = client.post(f"{url}/chat/completions", json=body)
    latency_ms = (time.perf_counter() - began) * 1000.0
    if answer.status_code != 200:
        raise EngineFailed(f"engine answered {answer.status_code}: {answer.text[:300]}")
    return answer.json()["choices"][0]["message"]["content"], latency_ms


def _exact(answer: str, expected: str) -> float:
    """The whole answer, but for white space around it."""
    return float(answer.strip() == expected.strip())


def _contains(answer: str, expected: str) -> float:
    """The expected text somewhere in the answer, whatever the case."""
    return float(expected.strip().lower() in answer.lower())


CHECKS: dict[str, Callable[[str, str], float]] = {"exact": _exact, "contains": _contains}
