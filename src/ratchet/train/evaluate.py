"""Evaluate versions through an engine, as users will meet them: over HTTP, with its real latency.

Candidate and baseline answer the same items, one engine after the other, so that latencies are
measured under the same conditions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jsonschema_rs

from ratchet.core.checks import CHECKS, JSON_SCHEMA, JUDGE, LM_EVAL, PYTHON
from ratchet.harness import Harness
from ratchet.kit.digest import digest_json
from ratchet.kit.network import free_port
from ratchet.kit.processes import end
from ratchet.train.grading import Scorer, asked, grader
from ratchet.train.judge import judge

# Few enough that an item's latency is its own, enough that two cores do not wait.
ITEMS_AT_ONCE = 4
START_SECONDS_MAX = 600.0
ITEM_SECONDS_MAX = 120.0
EXCERPT = 200
OURS = Harness(sys.executable)
# With the first answer the harness loads the task, and may have to fetch it.
HARNESS_SECONDS_MAX = 900.0
# Of an item: its answer, latency, tokens and score.
KEPT_VALUES = 4


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


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """Ready to answer."""

    url: str
    pid: int


@contextmanager
def engine(arguments: EngineArguments, log: Path) -> Iterator[RunningEngine]:
    """An engine that dies with this process."""
    port = free_port()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*arguments.command(port), "--parent", str(os.getpid())], stdout=file, stderr=file
        )
        try:
            _wait_until_ready(process, port, log)
            yield RunningEngine(f"http://127.0.0.1:{port}/v1", process.pid)
        finally:
            end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=2.0, verify=False) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                tail = log.read_text(errors="replace")[-500:].strip()
                raise EngineFailed(f"engine ended with code {process.returncode}: {tail}")
            try:
                if client.get("/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise EngineFailed(f"engine was not ready after {START_SECONDS_MAX:.0f} s")


def run_suite(
    suite: dict[str, Any],
    url: str,
    name: str,
    kept: Path,
    done: Callable[[int], None],
    *,
    harness: Harness = OURS,
) -> dict[str, Any]:
    """One version's report on one suite, in the suite's order.

    Answers and scores are kept in a file as they come, so that a killed evaluation asks for the
    rest only.  `done` hears each count of items and may raise to stop.
    """
    known, items = _kept(kept), []
    with (
        httpx.Client(timeout=ITEM_SECONDS_MAX, verify=False) as client,
        ThreadPoolExecutor(ITEMS_AT_ONCE) as pool,
        kept.open("a") as file,
        _scorer(suite, kept.parent, harness) as score,
    ):

        def ask(row: dict[str, Any], key: str) -> list[Any]:
            if key in known:
                return known[key]
            answer, latency_ms, tokens = _ask(client, url, name, row, suite["max_tokens"])
            return [answer, latency_ms, tokens, score(answer, row)]

        file.write("\n")  # the last line may have been cut
        keys = [digest_json(row) for row in suite["rows"]]
        answers = pool.map(ask, suite["rows"], keys)
        for number, (row, key, (answer, latency_ms, tokens, marks)) in enumerate(
            zip(suite["rows"], keys, answers, strict=True), 1
        ):
            if key not in known:
                file.write(json.dumps([key, answer, latency_ms, tokens, marks]) + "\n")
                file.flush()
            expected = row["messages"][-1]["content"]
            items.append(
                {
                    "key": key,
                    "prompt": row["messages"][-2]["content"][:EXCERPT],
                    "expected": expected[:EXCERPT],
                    "answer": answer[:EXCERPT],
                    "score": marks,
                    "latency_ms": latency_ms,
                    "metadata": row.get("metadata", {}),
                    "tokens": tokens,
                }
            )
            done(number)
    return {"suite": suite["name"], "digest": suite["digest"], "items": items}


def answers_in(file: Path) -> int:
    """How many items a killed evaluation had answered."""
    return len(_kept(file))


def _kept(file: Path) -> dict[str, list[Any]]:
    """What was answered before a kill, by item; a line that was cut is not there."""
    known = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            key, *answered = json.loads(line)
        except ValueError:
            continue
        if len(answered) == KEPT_VALUES:
            known[key] = answered
    return known


def _ask(
    client: httpx.Client, url: str, name: str, row: dict[str, Any], max_tokens: int
) -> tuple[str, float, int]:
    """The answer, how long it took, and its tokens."""
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
    value = answer.json()
    tokens = int((value.get("usage") or {}).get("completion_tokens") or 0)
    return value["choices"][0]["message"]["content"] or "", latency_ms, tokens


@contextmanager
def _scorer(suite: dict[str, Any], folder: Path, harness: Harness) -> Iterator[Scorer]:
    if suite["check"] == PYTHON:
        with grader(suite["name"], suite["code"], folder) as score:
            yield score
    elif suite["check"] == LM_EVAL:
        command = harness.score(suite["task"])
        with asked(suite["name"], command, HARNESS_SECONDS_MAX) as score:
            yield score
    elif suite["check"] == JUDGE:
        with judge(suite["name"], suite["judge"]) as score:
            yield score
    elif suite["check"] == JSON_SCHEMA:
        schema = jsonschema_rs.validator_for(suite["schema"])
        yield lambda answer, _: _meets(schema, answer)
    else:
        check = CHECKS[suite["check"]]
        yield lambda answer, row: check(answer, row["messages"][-1]["content"])


def _meets(schema: Any, answer: str) -> float:
    try:
        return float(schema.is_valid(json.loads(answer)))
    except ValueError:
        return 0.0
