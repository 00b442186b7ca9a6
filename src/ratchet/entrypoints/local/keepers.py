"""Make this machine run what the control plane wants: engines, and workers for attempts.

The keeper asks for the wanted state, compares it with its own children and acts.  What the control
plane knows of an engine is compared, too, and told again until it is right, so that a report that
was lost with a killed server is no loss.  When the control plane is away nothing changes here: what
serves goes on serving, what trains goes on training.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2 as httpx
import structlog

from ratchet.core.errors import Unavailable
from ratchet.core.place import Executor, Place
from ratchet.entrypoints.local.children import Child, answers
from ratchet.entrypoints.local.cloud import SimulatedCloud
from ratchet.entrypoints.local.state import Ports, StateDir
from ratchet.kit.clock import SystemClock
from ratchet.kit.network import free_port
from ratchet.kit.peers import peer_files
from ratchet.kit.processes import die_with_parent

log = structlog.get_logger()

# Engines must keep answering while a training takes every cycle it can get.
WORKER_NICENESS = 10
# Several programs compute on the same cores.  By default OpenMP's helpers wait awake for
# milliseconds while the other core works for somebody else: two engines at once then answer in
# 240 to 1,240 ms instead of 144.  Waiting for some 15 microseconds costs one engine alone 8 %
# (docs/log.md).
SHARED_CORES = {"GOMP_SPINCOUNT": "1000"}
# glibc gives large blocks back to the kernel after every step and asks for them again; keeping them
# makes a step on a CPU 5 to 25 % faster.
WORKER_MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}
ENGINE_STOP_SECONDS = 35.0


@dataclass(slots=True)
class _Engine:
    child: Child
    port: int
    state: str = "starting"
    because: str = ""
    deaths: int = 0
    """Not told yet."""

    def is_known_by(self, wanted: Mapping[str, Any]) -> bool:
        """Whether the control plane knows how this engine is."""
        place = self.port if self.state == "ready" else None
        return not self.deaths and (wanted["state"], wanted["port"]) == (self.state, place)


@dataclass(slots=True)
class Keeper:
    """The engines and workers of one machine."""

    state: StateDir
    ports: Ports
    client: httpx.AsyncClient
    vllm_python: str
    env: Mapping[str, str]
    engines: dict[str, _Engine] = field(default_factory=dict)
    workers: dict[str, Child] = field(default_factory=dict)
    cloud: SimulatedCloud | None = None
    places: dict[str, Place] = field(default_factory=dict)
    """Of the workers that run."""
    deadlines: dict[str, float] = field(default_factory=dict)
    """Seconds from the start of an attempt, where it has such a limit."""
    stopping: list[Child] = field(default_factory=list)

    @property
    def _objects_url(self) -> str:
        return self.env.get("RATCHET_OBJECTS_URL", self.state.objects_url)

    async def tend(self) -> None:
        """One comparison.  Raises httpx errors when the control plane is away."""
        await self._watch_engines()
        await self._watch_workers()
        answer = await self.client.get("/api/v1/node/work")
        answer.raise_for_status()
        work = answer.json()
        for wanted in work["engines"]:
            await self._settle_engine(wanted)
        for attempt in work["attempts"]:
            await self._settle_attempt(attempt)
        self.stopping = [child for child in self.stopping if child.exit_code() is None]

    async def _settle_engine(self, wanted: dict[str, Any]) -> None:
        version = wanted["version"]
        if wanted["wanted"]:
            if version not in self.engines:
                self.engines[version] = self._start_engine(wanted)
            await self._tell(version, wanted)
            return
        mine = self.engines.pop(version, None)
        if mine is not None and mine.child.process is not None:
            mine.child.process.terminate()
            self.stopping.append(mine.child)
        if wanted["state"] != "stopped":
            await self._report(version, "stopped", None)

    def _start_engine(self, wanted: dict[str, Any]) -> _Engine:
        port = free_port()
        child = Child(
            name=f"engine-{wanted['version']}",
            command=self._engine_command(wanted, port),
            log_file=self.state.log(f"engine-{wanted['version']}"),
            env=self.env if wanted["kind"] == "vllm" else {**SHARED_CORES, **self.env},
            stop_seconds=ENGINE_STOP_SECONDS,
        )
        child.start()
        return _Engine(child, port)

    async def _tell(self, version: str, wanted: dict[str, Any]) -> None:
        """Report an engine, unless all that there is to say is known."""
        mine = self.engines[version]
        if mine.is_known_by(wanted):
            return
        deaths = mine.deaths
        place = mine.port if mine.state == "ready" else None
        await self._report(version, mine.state, place, mine.because, restarts=deaths)
        mine.deaths -= deaths

    def _engine_command(self, wanted: dict[str, Any], port: int) -> list[str]:
        is_vllm = wanted["kind"] == "vllm"
        module = "ratchet.engine.vllm" if is_vllm else "ratchet.engine.main"
        command = [
            sys.executable, "-m", module,
            "--base", wanted["base"],
            "--objects", self._objects_url,
            "--cache", str(self.state.folder("cache")),
            "--name", wanted["served_name"],
            "--version", wanted["version"],
            "--port", str(port),
        ]  # fmt: skip
        if wanted["adapter_uri"]:
            command += ["--adapter", wanted["adapter_uri"]]
        if is_vllm:
            command += ["--python", self.vllm_python]
        else:
            command += ["--journal", str(self.state.folder("usage"))]
        drill = wanted["drill"]
        if drill and not is_vllm:
            command += ["--drill-error-rate", str(drill["error_rate"])]
            command += ["--drill-delay-seconds", str(drill["delay_seconds"])]
            command += ["--drill-delay-share", str(drill.get("delay_share", 1.0))]
        return command

    async def _watch_engines(self) -> None:
        """See how the engines are, and start again what died.  Tells nobody."""
        for engine in self.engines.values():
            code = engine.child.exit_code()
            if code is not None:
                tail = engine.child.log_file.read_text(errors="replace")[-300:].strip()
                engine.because = f"ended with code {code}: {tail.splitlines()[-1] if tail else ''}"
                engine.state = "down"
                engine.deaths += 1
                engine.child.keep_alive()
            elif engine.child.process is None:
                engine.child.keep_alive()
            elif engine.state != "ready" and await answers(
                f"http://127.0.0.1:{engine.port}/health"
            ):
                engine.state, engine.because = "ready", ""

    async def _report(
        self, version: str, state: str, port: int | None, because: str = "", restarts: int = 0
    ) -> None:
        body = {"state": state, "port": port, "because": because, "restarts": restarts}
        answer = await self.client.post(f"/api/v1/node/engines/{version}", json=body)
        answer.raise_for_status()

    async def _settle_attempt(self, attempt: dict[str, Any]) -> None:
        place = Place.from_json(attempt["place"])
        if attempt["id"] in self.workers or place.executor is not Executor.LOCAL:
            return
        if attempt["state"] == "running":
            # It ran under an earlier supervisor, and workers die with theirs.
            await self._lost(attempt["id"], "the supervisor of its machine was restarted")
            return
        if self.cloud is not None and not self.cloud.has(place, SystemClock().now()):
            because = f"spot in {place.zone} was gone before the worker began"
            await self._ended(attempt["id"], "preempted", because)
            return
        child = Child(
            name=f"worker-{attempt['id']}",
            command=[
                "nice", "-n", str(WORKER_NICENESS),
                sys.executable, "-m", "ratchet.train.main",
                "--attempt", attempt["id"],
                "--server", f"127.0.0.1:{self.ports.grpc}",
                "--token-file", str(self.state.token_file),
                "--objects", self._objects_url,
                "--work", str(self.state.folder("work")),
                "--cache", str(self.state.folder("cache")),
                "--vllm-python", self.vllm_python,
                *_harness(self.env),
                *_peers(self.env),
            ],
            log_file=self.state.log(f"worker-{attempt['run']}-{attempt['stage']}"),
            env={**SHARED_CORES, **WORKER_MALLOC, **self.env},
            prepare=partial(_within, place),
        )  # fmt: skip
        child.start()
        self.workers[attempt["id"]] = child
        self.places[attempt["id"]] = place
        if place.deadline_seconds:
            self.deadlines[attempt["id"]] = place.deadline_seconds

    async def report_answers(self, lines: Sequence[str]) -> None:
        """Lines of engines' journals.  Raises `Unavailable` when they are to be sent again.

        Over HTTP: gRPC and the forks of a supervisor do not get on.
        """
        answers = []
        for line in lines:
            try:
                answers.append(json.loads(line))
            except ValueError:
                log.error("answer_unreadable", line=line[:200])
        try:
            answer = await self.client.post("/api/v1/node/answers", json={"answers": answers})
        except httpx.TransportError as error:
            raise Unavailable(f"control plane does not answer: {error!r}") from error
        if answer.status_code >= 500:
            raise Unavailable(f"control plane: {answer.text[:200]}")
        if answer.status_code >= 400:
            # Sent again it would be refused again.
            log.error("answers_refused", lines=len(lines), because=answer.text[:500])

    async def _watch_workers(self) -> None:
        for attempt_id, child in list(self.workers.items()):
            code = child.exit_code()
            if code is None:
                self._take_back(attempt_id, child)
                if child.age_seconds > self.deadlines.get(attempt_id, math.inf):
                    # Told first: nothing that it says when it is stopped counts any more.
                    await self._ended(attempt_id, "timed_out", "train.deadline passed")
                    await child.stop()
                continue
            self.deadlines.pop(attempt_id, None)
            self.places.pop(attempt_id, None)
            if self.cloud is not None:
                self.cloud.forget(attempt_id)
            if code != 0:
                tail = child.log_file.read_text(errors="replace")[-400:].strip()
                last = tail.splitlines()[-1] if tail and code > 0 else ""
                await self._lost(attempt_id, f"worker ended with code {code} {last}".strip())
            del self.workers[attempt_id]

    def _take_back(self, attempt_id: str, child: Child) -> None:
        now = SystemClock().now()
        if self.cloud is not None and not self.cloud.has(self.places[attempt_id], now):
            self.cloud.take(attempt_id, child, now)

    async def _lost(self, attempt_id: str, because: str) -> None:
        await self._ended(attempt_id, "lost", because)

    async def _ended(self, attempt_id: str, how: str, because: str) -> None:
        log.warning("worker_ended", attempt=attempt_id, how=how, because=because)
        answer = await self.client.post(
            f"/api/v1/node/attempts/{attempt_id}/ended", json={"how": how, "because": because}
        )
        answer.raise_for_status()

    def children(self) -> list[Child]:
        """Everything to stop, workers first."""
        engines = [engine.child for engine in self.engines.values()]
        return [*self.workers.values(), *self.stopping, *engines]


def _within(place: Place) -> None:
    """In the child, before its program: no more cores and memory than it asked for."""
    die_with_parent()
    if place.cpus:
        cores = sorted(os.sched_getaffinity(0))
        # The last ones: engines and servers begin with the first.
        os.sched_setaffinity(0, cores[-max(1, math.ceil(place.cpus)) :])
    if place.memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (place.memory_bytes, place.memory_bytes))


def _harness(env: Mapping[str, str]) -> list[str]:
    """Arguments of a worker that asks tasks of lm-evaluation-harness."""
    named = {
        "--lm-eval-python": env.get("RATCHET_LM_EVAL_PYTHON"),
        "--lm-eval-include": env.get("RATCHET_LM_EVAL_INCLUDE"),
    }
    return [part for name, value in named.items() if value for part in (name, value)]


def _peers(env: Mapping[str, str]) -> list[str]:
    """Arguments of a worker that speaks with the control plane by mutual TLS."""
    peers = peer_files(env)
    if peers is None:
        return []
    return ["--peers", *map(str, (peers.certificate, peers.key, peers.authority))]
