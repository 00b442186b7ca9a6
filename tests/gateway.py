"""A real Envoy with our listener, in front of an upstream that tells what reached it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx

from ratchet.adapters.envoy.files import EnvoyFiles, prepare
from ratchet.adapters.envoy.listener import GatewayPlaces, Tls
from ratchet.core.access import Admission
from ratchet.core.artifact import VersionId
from ratchet.core.routing import WEIGHT_TOTAL, Arm, Endpoint, GatewaySnapshot
from ratchet.entrypoints.local.supervisor import envoy_command
from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent

VERSION = VersionId("v_1")
CHOICE = {"message": {"role": "assistant", "content": "ask jane@b.io"}, "finish_reason": "stop"}


class Echo(BaseHTTPRequestHandler):
    """Answers with the request's headers: what an engine would have seen."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.length = self._read_body()
        if seconds := self.headers.get("x-test-wait"):
            time.sleep(float(seconds))
        self.do_GET()

    def _read_body(self) -> int:
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            return len(self.rfile.read(int(self.headers.get("content-length", 0))))
        length = 0
        while size := int(self.rfile.readline(), 16):
            length += len(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return length

    def do_GET(self) -> None:
        seen = {name.lower(): value for name, value in self.headers.items()}
        seen["test-engine"] = str(self.connection.getsockname()[1])
        seen["test-length"] = str(getattr(self, "length", 0))
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        kind = "application/json"
        content = json.dumps({**seen, "choices": [CHOICE], "usage": usage}).encode()
        if seen.get("x-test-kind") == "stream":
            kind = "text/event-stream"
            events = [{"choices": [{"delta": {"content": "hi"}}]}, {"choices": [], "usage": usage}]
            lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            content = f"{lines}data: [DONE]\n\n".encode()
        elif seen.get("x-test-kind") == "long":
            content = json.dumps({"choices": [CHOICE], "more": "x" * 3_000_000}).encode()
        elif seen.get("x-test-kind") == "silent":
            content = json.dumps(seen).encode()
        elif seen.get("x-test-kind") == "broken":
            self._break_off()
            return
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _break_off(self) -> None:
        """An engine that is killed in the middle of a stream."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        event = b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n'
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        time.sleep(0.1)
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        return


@dataclass
class Gateway:
    """One Envoy and the files that it is told by."""

    places: GatewayPlaces
    upstream_port: int
    process: subprocess.Popen[bytes]
    region: str = ""
    env: dict[str, str] = field(default_factory=dict)
    revision: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.places.port}"

    def serve(self, admission: Admission, *, alive: bool = True, **changes: Any) -> None:
        """Bring an admission into force, as the agent does; with or without an engine behind."""
        self.revision += 1
        snapshot = snapshot_of(self, admission, alive=alive)
        self._with_files(lambda files: files.apply(replace(snapshot, **changes)))
        self._let_engines_be_checked()

    def _let_engines_be_checked(self) -> None:
        """An engine that is new to its cluster gets nothing before its first check; one that is
        dead or ill on purpose is not waited for."""
        transport = httpx.HTTPTransport(uds=str(self.places.admin_socket))
        deadline = time.monotonic() + 2.0
        with httpx.Client(transport=transport, base_url="http://envoy") as admin:
            while time.monotonic() < deadline:
                clusters = admin.get("/clusters?format=json").json()["cluster_statuses"]
                hosts = [host for each in clusters for host in each.get("host_statuses", ())]
                if not any("failed_active_health_check" in host["health_status"] for host in hosts):
                    return
                time.sleep(0.01)

    def _with_files(self, work: Callable[[EnvoyFiles], Awaitable[None]]) -> None:
        async def run() -> None:
            files = EnvoyFiles(
                self.places.folder, self.places.admin_socket, region=self.region, env=self.env
            )
            files.prepare()
            try:
                await work(files)
            finally:
                await files.close()

        asyncio.run(run())

    def ask(
        self, key: str | None, path: str = "/v1/chat/completions", **more: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        headers |= more.pop("headers", {})
        if path == "/v1/models":
            return httpx.get(self.url + path, headers=headers, timeout=5.0, verify=False)
        body = {"json": {"model": "m"}} | more
        return httpx.post(self.url + path, headers=headers, timeout=10.0, verify=False, **body)


def snapshot_of(gateway: Gateway, admission: Admission, *, alive: bool = True) -> GatewaySnapshot:
    return GatewaySnapshot(
        revision=gateway.revision,
        route_revision=gateway.revision,
        arms=(Arm(VERSION, WEIGHT_TOTAL),),
        endpoints={VERSION: (Endpoint("127.0.0.1", gateway.upstream_port),) if alive else ()},
        fallback=None,
        blind_hold_seconds=60.0,
        admission=admission,
    )


class Upstream(ThreadingHTTPServer):
    """An engine that can be killed: it then answers nothing and refuses connections."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int = 0) -> None:
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), Echo)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.server_address[1])

    def get_request(self) -> Any:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, *_: object) -> None:
        return

    def kill(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def running_gateway(tls: Tls | None = None, **more: Any) -> Iterator[Gateway]:
    upstream = Upstream()
    with tempfile.TemporaryDirectory(prefix="ratchet-gw-") as root:
        folder = Path(root)
        places = GatewayPlaces(
            host="127.0.0.1",
            port=free_port(),
            admin_socket=folder / "admin.sock",
            folder=folder / "xds",
            tls=tls,
            **more,
        )
        prepare(places, folder / "boot.json")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                envoy_command(folder / "boot.json"),
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        gateway = Gateway(places, upstream.server_address[1], process)
        try:
            _until_up(gateway, process, folder / "log")
            yield gateway
        finally:
            process.terminate()
            process.wait(10)
            upstream.kill()


def _until_up(gateway: Gateway, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if gateway.places.tls is not None:
                socket.create_connection(("127.0.0.1", gateway.places.port), 1.0).close()
                return
            if httpx.get(f"{gateway.url}/health", timeout=1.0, verify=False).status_code == 200:
                return
        except (httpx.TransportError, OSError):
            time.sleep(0.05)
    raise AssertionError(log.read_text()[-2000:])


class UpstreamProcess:
    """The same engine in a process of its own, so that a kill is a kill."""

    def __init__(self, port: int = 0) -> None:
        self.endpoint = Endpoint("127.0.0.1", port or free_port())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway", str(self.endpoint.port)],
            cwd=Path(__file__).parents[1],
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.endpoint.port), 1.0).close()
                return
            time.sleep(0.05)
        raise AssertionError("the stand-in engine does not listen")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


if __name__ == "__main__":
    Upstream(int(sys.argv[1]))
    threading.Event().wait()
