"""A whole stack for tests: `ratchet up` as a user starts it, on free ports, with a tiny model."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psycopg

from ratchet.core.errors import RatchetError
from ratchet.entrypoints.cli.client import Client
from ratchet.entrypoints.local.postgres import Postgres
from ratchet.entrypoints.local.state import Ports, StateDir
from ratchet.kit.network import free_port
from tests import tiny

SPEC = """\
project: colours
model: {{base: ../model, name: colours}}
data: {{train: {train}}}
train: {{epochs: {epochs}, batch_size: 8, learning_rate: 5.0e-3, lora: {{rank: 16, alpha: 32}},
        max_length: 64, checkpoint_every_steps: {checkpoint_every}}}
evaluate: {{suites: [held-out.yaml]}}
gates:
  - {{metric: held-out.accuracy, at_least: {floor}}}
gateway: {{access: {access}}}
release: {{notches: [10, 50, 100], units_per_notch: 5, blind_hold: 20s,
          guards: {{latency_p95: {{margin: 100%}}}}{drill}}}
"""
SUITE = "suite: held-out\nitems: held-out.jsonl\ncheck: exact\nmax_tokens: 4\n"
# Of the rate, while nothing is released.
QUIET_SHARE = 0.2
DRILL = ", drill: {error_rate: 60%, delay: 300ms}"


@dataclass
class Stack:
    """One state directory and the process that runs it."""

    root: Path
    ports: Ports = field(
        default_factory=lambda: Ports(gateway=free_port(), http=free_port(), grpc=free_port())
    )
    process: subprocess.Popen[bytes] | None = None
    env: dict[str, str] = field(default_factory=dict)
    """Set besides the test's own environment."""

    @property
    def state(self) -> StateDir:
        return StateDir(self.root / ".ratchet")

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.ports.gateway}"

    def client(self, patience_seconds: float = 0.0) -> Client:
        token = self.state.token_file.read_text().strip()
        url = f"http://127.0.0.1:{self.ports.http}"
        return Client(url, token, patience_seconds=patience_seconds)

    def prepare(self) -> None:
        """A tiny model, data, and specs: good, spoiled, drill."""
        folder = self.root / "project"
        folder.mkdir(parents=True)
        tiny.build(self.root / "model")
        tiny.write_rows(folder / "good.jsonl", 240, seed=1)
        tiny.write_rows(folder / "more.jsonl", 240, seed=3)
        tiny.write_rows(folder / "spoiled.jsonl", 64, seed=1, wrong=True)
        tiny.write_rows(folder / "held-out.jsonl", 40, seed=20)
        _without(folder / "held-out.jsonl", folder / "good.jsonl", folder / "more.jsonl")
        _without(folder / "held-out.jsonl", folder / "spoiled.jsonl")
        (folder / "held-out.yaml").write_text(SUITE)
        self.spec("good", train="good.jsonl")
        self.spec("spoiled", train="spoiled.jsonl", epochs=6)
        self.spec("drill", train="more.jsonl", drill=DRILL)
        self.spec("long", train="good.jsonl", epochs=40, checkpoint_every=5)

    def spec(self, name: str, **values: Any) -> Path:
        path = self.root / "project" / f"{name}.yaml"
        defaults = {
            "epochs": 3,
            "checkpoint_every": 20,
            "floor": 0.8,
            "drill": "",
            "access": "open",
        }
        filled = {**defaults, **values}
        path.write_text(SPEC.format(**filled))
        return path

    def start(self) -> None:
        """Start and wait until the baseline answers."""
        self.up("--project", str(self.root / "project" / "good.yaml"))
        self.until(lambda: ask(self.gateway).status_code == 200, 60, "baseline answers")

    def up(self, *more: str) -> None:
        """`ratchet up` on this state directory."""
        self.launch(
            "up", *more,
            "--gateway-port", str(self.ports.gateway),
            "--http-port", str(self.ports.http),
            "--grpc-port", str(self.ports.grpc),
        )  # fmt: skip

    def launch(self, *arguments: str) -> None:
        """A command that runs a stack; what it prints goes to `up.log`."""
        with (self.root / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ratchet.entrypoints.cli.main", *arguments,
                 "--state-dir", str(self.state.root)],
                stdout=log, stderr=log, cwd=self.root, env={**os.environ, **self.env},
            )  # fmt: skip

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def until(self, done: Callable[[], Any], seconds: float, what: str) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if answer := done():
                    return answer
            except (RatchetError, httpx.HTTPError):
                pass
            time.sleep(0.1)
        logs = "\n".join(
            f"--- {p.name}\n{p.read_text(errors='replace')[-1500:]}"
            for p in [self.root / "up.log", *self.state.folder("logs").glob("*.log")]
        )
        raise AssertionError(f"not within {seconds} s: {what}\n{logs}")

    def start_run(self, name: str, key: str = "") -> str:
        path = self.root / "project" / f"{name}.yaml"
        body = {"spec": path.read_text(), "path": str(path), "kind": "merge", "who": "test"}
        # Sent again by its key, if the control plane is being killed.
        client = self.client(patience_seconds=30.0)
        return str(client.post("/runs", body, key or f"{name}-{random.random()}")["id"])

    def database(self) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection to the stack's own PostgreSQL."""
        postgres = Postgres.of(self.state)
        return psycopg.connect(postgres.url.reveal(), autocommit=True)

    def end_of(self, run_id: str, seconds: float = 150) -> dict[str, Any]:
        def ended() -> Any:
            run = self.client().get(f"/runs/{run_id}")
            return run if run["ended_at"] else None

        return dict(self.until(ended, seconds, f"run {run_id} ends"))

    def pids(self, *words: str) -> list[int]:
        """Processes of this stack whose command line has all the words."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (entry / "environ").read_bytes()
            except (OSError, UnicodeDecodeError):
                continue
            # Valkey puts its socket into its title, and nothing else.
            mine = str(self.state.root).encode() in environment or any(
                str(place) in command for place in (self.root, self.state.sockets)
            )
            if mine and all(word in command for word in words):
                found.append(int(entry.name))
        return found

    def kill(self, *words: str) -> int:
        """kill -9; answers how many processes were hit."""
        hit = 0
        for pid in self.pids(*words):
            try:
                os.kill(pid, signal.SIGKILL)
                hit += 1
            except ProcessLookupError:
                continue
        return hit


def _without(held_out: Path, *trains: Path) -> None:
    """No held-out question may be in the training data."""
    known = {
        json.loads(line)["messages"][0]["content"]
        for train in trains
        for line in train.read_text().splitlines()
    }
    lines = [
        line
        for line in held_out.read_text().splitlines()
        if json.loads(line)["messages"][0]["content"] not in known
    ]
    held_out.write_text("\n".join(lines) + "\n")


def ask(gateway: str, text: str = "the ball is red", **more: Any) -> httpx.Response:
    body = {
        "model": "colours",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 3,
        "temperature": 0,
        **more,
    }
    # Loading the authorities of a client for TLS costs more than everything else here.
    url = f"{gateway}/v1/chat/completions"
    return httpx.post(url, json=body, timeout=20.0, verify=False)


class Traffic:
    """Users in a thread; counts answers and failures by version.

    With a client of the control plane they come in a rush only while a release is judged: what
    trains or is asked a suite has the cores.
    """

    def __init__(self, gateway: str, rate: float = 15.0, steered_by: Client | None = None) -> None:
        self._gateway, self._rate, self._control = gateway, rate, steered_by
        self._is_rush = steered_by is None
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._play, args=(i,)) for i in range(3)]
        self._threads += [threading.Thread(target=self._steer)] if steered_by else []
        self.answered: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.broken = 0

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _steer(self) -> None:
        assert self._control is not None
        while not self._stop.wait(0.5):
            try:
                newest = self._control.get("/releases", limit=1)
            except (RatchetError, httpx.HTTPError):
                continue  # it is being killed; users go on as they were
            self._is_rush = bool(newest) and newest[0]["stage"] in ("starting", "canary")

    def _play(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.wait(
            chance.expovariate(self._rate / 3 * (1.0 if self._is_rush else QUIET_SHARE))
        ):
            colour = chance.choice(tiny.COLOURS)
            try:
                answer = ask(self._gateway, tiny.question(chance, colour))
            except httpx.HTTPError:
                self.broken += 1
                continue
            version = answer.headers.get("x-ratchet-version", "none")
            (self.answered if answer.status_code == 200 else self.failed)[version] += 1
