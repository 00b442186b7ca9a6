"""What checking keys costs at the gateway: CPU a request and latency, against a plain Envoy.

Four gateways, one after the other in every round: a plain Envoy that only routes, and ours open,
with keys, and with keys and 10,000 revoked ones.  The upstream is an Envoy that answers by itself;
the load is a client of our own on keep-alive connections.  CPU is user and system time of the
gateway's process as the kernel counts it, so it does not depend on how fast the client is.

Peers (LiteLLM, Portkey, nginx) and the rest of the gateway's numbers are to come.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from report import Result, publish

from ratchet.adapters.envoy.files import EnvoyFiles
from ratchet.adapters.envoy.listener import GatewayPlaces, bootstrap
from ratchet.adapters.tokens import Tokens
from ratchet.core.access import Admission, Key, KeyId, Scope, SigningKeyId
from ratchet.core.artifact import VersionId
from ratchet.core.routing import WEIGHT_TOTAL, Arm, Endpoint, GatewaySnapshot
from ratchet.entrypoints.local.state import free_port
from ratchet.entrypoints.local.supervisor import envoy_binary
from ratchet.kit.processes import die_with_parent
from ratchet.kit.secret import Secret

REVOKED = 10_000
CONNECTIONS = 16
VERSION = VersionId("v_1")
ANSWER = json.dumps({"object": "chat.completion", "choices": [{"message": {"content": "x" * 900}}]})
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
    key: str = ""
    cpu_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)

    def cpu_seconds(self) -> float:
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def request(self) -> bytes:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "y" * 200}]})
        key = f"authorization: Bearer {self.key}\r\n" if self.key else ""
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\n{key}"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()


@contextmanager
def running(name: str, config: dict[str, Any], port: int, folder: Path) -> Iterator[Envoy]:
    file = folder / f"{name}.json"
    file.write_text(json.dumps(config))
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [envoy_binary(), "-c", file, "--concurrency", "1", "--use-dynamic-base-id",
             "--log-level", "error"],
            stdout=log, stderr=log, preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        yield Envoy(name, port, process)
    finally:
        process.terminate()
        process.wait(10)


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


@contextmanager
def ours(
    name: str, admission: Admission, key: str, upstream: int, root: Path
) -> Iterator[tuple[Envoy, float]]:
    """Our gateway with an admission in force, and how long a push of that admission took."""
    folder = root / name
    folder.mkdir()
    places = GatewayPlaces(
        host="127.0.0.1", port=free_port(), admin_socket=folder / "admin.sock",
        folder=folder / "xds",
    )  # fmt: skip
    files = EnvoyFiles(places.folder, places.admin_socket)
    files.prepare()
    with running(name, bootstrap(places), places.port, folder) as envoy:
        envoy.key = key
        asyncio.run(until_up(envoy.port, b"GET /health HTTP/1.1\r\nhost: g\r\n\r\n"))

        async def serve(wanted: Admission, revision: int) -> float:
            fresh = EnvoyFiles(places.folder, places.admin_socket)
            fresh.prepare()
            snapshot = GatewaySnapshot(
                revision=revision, route_revision=1, arms=(Arm(VERSION, WEIGHT_TOTAL),),
                endpoints={VERSION: (Endpoint("127.0.0.1", upstream),)}, fallback=None,
                blind_hold_seconds=60.0, admission=wanted,
            )  # fmt: skip
            began = time.perf_counter()
            await fresh.apply(snapshot)
            seconds = time.perf_counter() - began
            await fresh.close()
            return seconds

        asyncio.run(serve(admission, 1))
        more = Admission(
            is_open=admission.is_open, project=admission.project,
            served_name=admission.served_name, jwks=admission.jwks,
            revoked=(*admission.revoked, KeyId("key_last")),
        )  # fmt: skip
        yield envoy, asyncio.run(serve(more, 2))


async def until_up(port: int, request: bytes) -> None:
    deadline = time.monotonic() + 20
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

    def _send(self) -> None:
        self._got, self._began = 0, time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._size:
            # All answers of one target are alike, so the first one gives the size of all.
            head, _, _ = data.partition(b"\r\n\r\n")
            if b" 200 " not in head:
                self.done.set_exception(RuntimeError(data[:300].decode()))
                self._transport.close()
                return
            length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
            self._body = int(length)
            self._size = -1
        self._got += len(data)
        if data.endswith(b"}") and self._got > self._body:
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


def admissions() -> dict[str, tuple[Admission, str]]:
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

    return {
        "open": (admission(is_open=True), ""),
        "keys": (admission(), token),
        "keys_10k_revoked": (admission(revoked=REVOKED), token),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rounds, seconds = (4, 3.0) if parser.parse_args().quick else (9, 8.0)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-bench-")))
        upstream = free_port()
        said = {"status": 200, "body": {"inline_string": ANSWER}}
        answer = {"match": {"prefix": "/"}, "direct_response": said}
        stack.enter_context(running("upstream", plain(upstream, [answer], []), upstream, root))
        port = free_port()
        route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}
        base = stack.enter_context(
            running("plain", plain(port, [route], [cluster(upstream)]), port, root)
        )
        targets, push_seconds = [base], 0.0
        for name, (admission, key) in admissions().items():
            envoy, push_seconds = stack.enter_context(ours(name, admission, key, upstream, root))
            targets.append(envoy)
        for envoy in targets:
            asyncio.run(until_up(envoy.port, envoy.request()))
            one_round(envoy, 1.0)
            envoy.cpu_us.clear()
            envoy.p50_us.clear()
        for _ in range(rounds):
            for envoy in targets:
                one_round(envoy, seconds)
        report(
            targets, push_seconds, f"{rounds} rounds of {seconds:g} s, {CONNECTIONS} connections"
        )


def report(targets: list[Envoy], push_seconds: float, settings: str) -> None:
    by_name = {envoy.name: envoy for envoy in targets}
    results = []
    for envoy in targets:
        results.append(Result(f"{envoy.name}.cpu", statistics.median(envoy.cpu_us), "us/request"))
        results.append(
            Result(f"{envoy.name}.p50_1_connection", statistics.median(envoy.p50_us), "us")
        )

    def ratio(name: str, one: str, other: str, target: float) -> Result:
        # Within a round, so that a neighbour's noise meets both.
        pairs = zip(by_name[one].cpu_us, by_name[other].cpu_us, strict=True)
        return Result(name, statistics.median(a / b for a, b in pairs), "x", target)

    results.append(ratio("keys_over_plain", "keys", "plain", 1.5))
    results.append(ratio("revoked_over_keys", "keys_10k_revoked", "keys", 1.1))
    added = [a - b for a, b in zip(by_name["keys"].p50_us, by_name["plain"].p50_us, strict=True)]
    results.append(Result("keys_added_latency_over_plain", statistics.median(added), "us"))
    results.append(Result("push_of_10k_revoked", push_seconds * 1000, "ms", 1000))
    publish("gateway", settings, results)


if __name__ == "__main__":
    main()
