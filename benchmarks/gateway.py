"""What our gateway costs: CPU a request and latency, beside a plain Envoy and other gateways.

One after the other in every round: the upstream itself, a plain Envoy that only routes, ours open,
ours with all that a project gets (keys, limits by key and tier, a pinned principal, usage, access
records), the same without reading usage from the answers, the same with 10,000 revoked keys, and
nginx, FastAPI with httpx, Portkey and LiteLLM,
each installed below `build/peers`.  The load is a client of our own on keep-alive connections.  CPU
is user and system time of the gateway's processes as the kernel counts it, so it does not depend on
how fast the client is.  LiteLLM and Portkey do more with a request than we do; what they are
compared by is the price of the product.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from peers import PEERS, Missing
from report import Result, publish

from ratchet.adapters.envoy.files import EnvoyFiles, prepare
from ratchet.adapters.envoy.listener import GatewayPlaces
from ratchet.adapters.tokens import Tokens
from ratchet.core.access import Admission, Key, KeyId, Scope, SigningKeyId
from ratchet.core.artifact import VersionId
from ratchet.core.routing import WEIGHT_TOTAL, Arm, Endpoint, GatewaySnapshot
from ratchet.core.serving import Access, Rate, Serving
from ratchet.entrypoints.local.supervisor import envoy_command
from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent
from ratchet.kit.secret import Secret

REVOKED = 10_000
CONNECTIONS = 16
VERSION = VersionId("v_1")
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "x" * 800}}],
        "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
    }
)  # fmt: skip
STREAMS = 512
HCM = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
    "HttpConnectionManager"
)
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


@dataclass
class Envoy:
    """One running Envoy with its port."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    headers: str = ""
    cpu_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        """Of the process and its living children."""
        ticks = 0
        for pid in (self.process.pid, *_children(self.process.pid)):
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(stat[11]) + int(stat[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def request(self) -> bytes:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "y" * 200}]})
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n{self.headers}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found + [grand for child in found for grand in _children(child)]


@contextmanager
def running(name: str, command: list[str], port: int, folder: Path) -> Iterator[Envoy]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent)
    try:
        yield Envoy(name, port, process)
    finally:
        process.terminate()
        process.wait(10)


def configured(name: str, config: dict[str, Any], folder: Path) -> list[str]:
    """An Envoy that gets all it needs to know at its start."""
    file = folder / f"{name}.json"
    file.write_text(json.dumps(config))
    return envoy_command(file)


def plain(
    port: int, routes: list[dict[str, Any]], clusters: list[dict[str, Any]]
) -> dict[str, Any]:
    """A listener that routes and does nothing else."""
    manager = {
        "@type": HCM,
        "stat_prefix": "plain",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    hcm = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "main",
                    "address": address(port),
                    "filter_chains": [{"filters": [hcm]}],
                }
            ],
            "clusters": clusters,
        }
    }


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": address(port)}}
    return {
        "name": "upstream",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


# Ours with keys, roles, limits, routing and records, but without reading usage from answers.
UNREAD = "ours_usage_unread"


def without_usage(boot: Path) -> None:
    """Take the filters that read usage out of a bootstrap."""
    config = json.loads(boot.read_text())
    for listener in config["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_filters"] = [
            one for one in manager["http_filters"] if not one["name"].startswith("usage-of-")
        ]
    boot.write_text(json.dumps(config))


@contextmanager
def ours(
    name: str, admission: Admission, serving: Serving, key: str, upstream: int, root: Path
) -> Iterator[tuple[Envoy, float]]:
    """Our gateway with an admission in force, and how long a push of that admission took."""
    folder = root / name
    folder.mkdir()
    places = GatewayPlaces(
        host="127.0.0.1", port=free_port(), admin_socket=folder / "admin.sock",
        folder=folder / "xds",
    )  # fmt: skip
    prepare(places, folder / "boot.json")
    if name == UNREAD:
        without_usage(folder / "boot.json")

    async def serve(wanted: Admission, revision: int) -> float:
        files = EnvoyFiles(places.folder, places.admin_socket)
        files.prepare()
        snapshot = GatewaySnapshot(
            revision=revision, route_revision=1, arms=(Arm(VERSION, WEIGHT_TOTAL),),
            endpoints={VERSION: (Endpoint("127.0.0.1", upstream),)}, fallback=None,
            blind_hold_seconds=60.0, admission=wanted, serving=serving,
        )  # fmt: skip
        began = time.perf_counter()
        await files.apply(snapshot)
        seconds = time.perf_counter() - began
        await files.close()
        return seconds

    with running(name, envoy_command(folder / "boot.json"), places.port, folder) as envoy:
        envoy.headers = f"authorization: Bearer {key}\r\n" if key else ""
        asyncio.run(until_up(envoy.port, b"GET /health HTTP/1.1\r\nhost: g\r\n\r\n"))
        asyncio.run(serve(admission, 1))
        more = replace(admission, revoked=(*admission.revoked, KeyId("key_last")))
        yield envoy, asyncio.run(serve(more, 2))


async def until_up(port: int, request: bytes, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            if b" 200 " in await asyncio.wait_for(reader.readline(), 5):
                writer.close()
                return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"nothing answers on {port}"
        await asyncio.sleep(0.05)


class Client(asyncio.Protocol):
    """One keep-alive connection: the next request leaves when the answer is whole."""

    def __init__(self, request: bytes, until: float, tally: list[float]) -> None:
        self._request, self._until, self._tally = request, until, tally
        self._size = self._got = 0
        self._began = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError("the gateway closed a connection in use"))

    def _send(self) -> None:
        self._got, self._began = 0, time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._size:
            # All answers of one target are alike, so the first one says how all of them end.
            head, _, _ = data.partition(b"\r\n\r\n")
            if b" 200 " not in head:
                self.done.set_exception(RuntimeError(data[:500].decode()))
                self._transport.close()
                return
            self._is_chunked = b"transfer-encoding: chunked" in head.lower()
            if not self._is_chunked:
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                self._body = int(length)
            self._size = -1
        self._got += len(data)
        if self._is_chunked:
            is_whole = data.endswith(b"0\r\n\r\n")
        else:
            is_whole = data.endswith(b"}") and self._got > self._body
        if is_whole:
            self._tally.append(time.perf_counter() - self._began)
            if time.perf_counter() < self._until:
                self._send()
            else:
                self._transport.close()
                self.done.set_result(None)


async def load(envoy: Envoy, connections: int, seconds: float) -> list[float]:
    """Seconds of each answered request.  Raises on anything but 200."""
    tally: list[float] = []
    until = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    request = envoy.request()
    clients = [
        (
            await loop.create_connection(
                lambda: Client(request, until, tally), "127.0.0.1", envoy.port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for client in clients))
    return tally


def one_round(envoy: Envoy, seconds: float) -> None:
    before = envoy.cpu_seconds()
    answered = uvloop.run(load(envoy, CONNECTIONS, seconds))
    envoy.cpu_us.append((envoy.cpu_seconds() - before) / len(answered) * 1e6)
    alone = uvloop.run(load(envoy, 1, seconds / 4))
    envoy.p50_us.append(statistics.median(alone) * 1e6)


async def streams(port: int, headers: str, count: int) -> int:
    """How many streams of `count` at once are clean to their end."""
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n{headers}"
        "content-length: 2\r\nconnection: close\r\n\r\n{}"
    ).encode()

    async def one() -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        data = b""
        while more := await reader.read(65536):
            data += more
        writer.close()
        return data.endswith(b"0\r\n\r\n") and b"[DONE]" in data

    clean = await asyncio.gather(*(one() for _ in range(count)))
    return sum(clean)


async def first_bytes(port: int, headers: str, count: int) -> list[float]:
    """Seconds to the first byte of short streams, one after the other on one connection."""
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n{headers}content-length: 2\r\n\r\n[]"
    ).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        writer.write(request)
        data = await reader.read(65536)
        seconds.append(time.perf_counter() - began)
        while not data.endswith(b"0\r\n\r\n"):
            data += await reader.read(65536)
    writer.close()
    return seconds


async def serve_streams(port: int) -> None:
    """An upstream whose streams last two seconds, an event every 50 ms; short ones for `[]`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await one(reader, writer)
        writer.close()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /health"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            return
        is_short = await reader.readexactly(2) == b"[]"
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        event = b'data: {"choices": [{"delta": {"content": "hi "}}]}\n\n'
        for part in (*[event] * (2 if is_short else 40), b"data: [DONE]\n\n"):
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await asyncio.sleep(0.001 if is_short else 0.05)
        writer.write(b"0\r\n\r\n")

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=2048)
    async with server:
        await server.serve_forever()


def admissions() -> dict[str, tuple[Admission, Serving, str]]:
    tokens = Tokens(Secret(base64.b64encode(os.urandom(32)).decode()))
    signing = SigningKeyId("sig_1")
    public, sealed = tokens.new_signing_key(signing)
    key = Key(
        id=KeyId("key_bench"), project="p", name="bench", principal="bench",
        scopes=frozenset(Scope), models=("*",), tier="standard", role=None, signing_key=signing,
        created_at=datetime.now(UTC), expires_at=None,
    )  # fmt: skip
    token = tokens.sign(signing, sealed, key.claims())

    def admission(*, is_open: bool = False, revoked: int = 0) -> Admission:
        ids = tuple(KeyId(f"key_{number:016x}") for number in range(revoked))
        return Admission(is_open=is_open, project="p", served_name="m", jwks=(public,), revoked=ids)

    limits = Serving(
        key_rates={"*": Rate(10**8, 1.0)}, tier_rates={"standard": Rate(10**8, 1.0)},
        pinned=("acme",),
    )  # fmt: skip
    return {
        "open": (admission(is_open=True), Serving(access=Access.OPEN), ""),
        "ours": (admission(), limits, token),
        UNREAD: (admission(), limits, token),
        "ours_10k_revoked": (admission(revoked=REVOKED), limits, token),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rounds, seconds = (4, 2.0) if parser.parse_args().quick else (9, 6.0)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-bench-")))
        targets, push_seconds = started(stack, root)
        for envoy in targets:
            asyncio.run(until_up(envoy.port, envoy.request(), 120))
            print(f"warming {envoy.name}", flush=True)
            one_round(envoy, 1.0)
            envoy.cpu_us.clear()
            envoy.p50_us.clear()
        for _ in range(rounds):
            for envoy in targets:
                one_round(envoy, seconds)
        flow = stream_results(root)
        settings = f"{rounds} rounds of {seconds:g} s, {CONNECTIONS} connections"
        report(targets, push_seconds, flow, settings)


def started(stack: ExitStack, root: Path) -> tuple[list[Envoy], float]:
    """Everything that is compared, and how long the push of a revocation onto 10,000 took."""
    upstream, port = free_port(), free_port()
    (root / "answer.json").write_text(ANSWER)
    server = Path(__file__).with_name("upstream.py")
    command = [sys.executable, str(server), str(upstream), str(root / "answer.json")]
    direct = stack.enter_context(running("direct", command, upstream, root))
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}
    command = configured("plain", plain(port, [route], [cluster(upstream)]), root)
    targets, push_seconds = [stack.enter_context(running("plain", command, port, root))], 0.0
    for name, (admission, serving, key) in admissions().items():
        made = ours(name, admission, serving, key, upstream, root)
        envoy, push_seconds = stack.enter_context(made)
        targets.append(envoy)
    for name, peer in PEERS.items():
        folder = root / f"peer-{name}"
        folder.mkdir()
        try:
            peer_port, process, headers = stack.enter_context(peer(upstream, folder))
        except Missing as missing:
            print(f"left out {name}: {missing}", flush=True)
            continue
        targets.append(Envoy(name, peer_port, process, headers))
    return [direct, *targets], push_seconds


def stream_results(root: Path) -> list[Result]:
    """512 streams at once through ours and beside it, and what is added until their first byte."""
    upstream = free_port()
    server = threading.Thread(target=lambda: asyncio.run(serve_streams(upstream)), daemon=True)
    server.start()
    admission, serving, key = admissions()["ours"]
    serving = replace(serving, in_flight_per_engine=STREAMS * 2)
    with ours("streams", admission, serving, key, upstream, root) as (envoy, _):
        clean = asyncio.run(streams(envoy.port, envoy.headers, STREAMS))
        added = []
        for _ in range(9):
            through = asyncio.run(first_bytes(envoy.port, envoy.headers, 100))
            beside = asyncio.run(first_bytes(upstream, "", 100))
            added.append(statistics.median(through) - statistics.median(beside))
        return [
            Result("clean_streams_of_512", clean, "", STREAMS, "higher"),
            Result("added_time_to_first_byte_p50", statistics.median(added) * 1e3, "ms", 0.3),
            Result("memory_after_512_streams", envoy.memory_mb(), "MB"),
        ]


def report(targets: list[Envoy], push_seconds: float, flow: list[Result], settings: str) -> None:
    by_name = {envoy.name: envoy for envoy in targets}
    results = []
    for envoy in targets:
        results.append(Result(f"{envoy.name}.cpu", statistics.median(envoy.cpu_us), "us/request"))
        results.append(
            Result(f"{envoy.name}.p50_1_connection", statistics.median(envoy.p50_us), "us")
        )

    def ratio(
        name: str, one: str, other: str, target: float, better: str = "lower"
    ) -> list[Result]:
        if one not in by_name or other not in by_name:
            return []
        # Within a round, so that a neighbour's noise meets both.
        pairs = zip(by_name[one].cpu_us, by_name[other].cpu_us, strict=True)
        return [Result(name, statistics.median(a / b for a, b in pairs), "x", target, better)]

    results += ratio("ours_over_plain", "ours", "plain", 1.5)
    # What the goal names: keys, roles, limits, routing and records.
    results += ratio("ours_usage_unread_over_plain", UNREAD, "plain", 1.5)
    results += ratio("revoked_over_ours", "ours_10k_revoked", "ours", 1.1)
    results += ratio("litellm_over_ours", "litellm", "ours", 100, "higher")
    results += ratio("portkey_over_ours", "portkey", "ours", 10, "higher")
    results += ratio("fastapi_httpx_over_ours", "fastapi_httpx", "ours", 1, "higher")
    pairs = zip(by_name["ours"].p50_us, by_name["direct"].p50_us, strict=True)
    added = statistics.median(a - b for a, b in pairs) / 1000
    results.append(Result("added_latency_p50_1_connection", added, "ms", 0.3))
    results.append(Result("push_of_a_revocation_onto_10k", push_seconds * 1000, "ms", 1000))
    publish("gateway", settings, [*results, *flow])


if __name__ == "__main__":
    main()
