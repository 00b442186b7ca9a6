"""A real Envoy with our listener, in front of an upstream that tells what reached it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2 as httpx

from ratchet.adapters.envoy.files import EnvoyFiles
from ratchet.adapters.envoy.resources import GatewayPlaces, bootstrap
from ratchet.core.access import Admission
from ratchet.core.artifact import VersionId
from ratchet.core.routing import WEIGHT_TOTAL, Arm, Endpoint, GatewaySnapshot
from ratchet.entrypoints.local.state import free_port
from ratchet.entrypoints.local.supervisor import envoy_binary
from ratchet.kit.processes import die_with_parent

VERSION = VersionId("v_1")


class Echo(BaseHTTPRequestHandler):
    """Answers with the request's headers: what an engine would have seen."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        seen = {name.lower(): value for name, value in self.headers.items()}
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        kind = "application/json"
        content = json.dumps({**seen, "usage": usage}).encode()
        if seen.get("x-test-kind") == "stream":
            kind = "text/event-stream"
            events = [{"choices": [{"delta": {"content": "hi"}}]}, {"choices": [], "usage": usage}]
            lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            content = f"{lines}data: [DONE]\n\n".encode()
        elif seen.get("x-test-kind") == "silent":
            content = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        return


@dataclass
class Gateway:
    """One Envoy and the files that it is told by."""

    places: GatewayPlaces
    upstream_port: int
    revision: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.places.port}"

    def serve(self, admission: Admission, *, alive: bool = True) -> None:
        """Bring an admission into force, as the agent does; with or without an engine behind."""
        self.revision += 1
        snapshot = GatewaySnapshot(
            revision=self.revision,
            route_revision=self.revision,
            arms=(Arm(VERSION, WEIGHT_TOTAL),),
            endpoints={VERSION: (Endpoint("127.0.0.1", self.upstream_port),) if alive else ()},
            fallback=None,
            blind_hold_seconds=60.0,
            admission=admission,
        )
        self._with_files(lambda files: files.apply(snapshot))

    def _with_files(self, work: Callable[[EnvoyFiles], Awaitable[None]]) -> None:
        async def run() -> None:
            files = EnvoyFiles(self.places.folder, self.places.admin_socket)
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
            return httpx.get(self.url + path, headers=headers, timeout=5.0)
        return httpx.post(self.url + path, headers=headers, json={"model": "m"}, timeout=5.0)


@contextmanager
def running_gateway() -> Iterator[Gateway]:
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="ratchet-gw-") as root:
        folder = Path(root)
        places = GatewayPlaces(
            host="127.0.0.1",
            port=free_port(),
            admin_socket=folder / "admin.sock",
            folder=folder / "xds",
            telemetry_host="127.0.0.1",
            telemetry_port=free_port(),
        )
        EnvoyFiles(places.folder, places.admin_socket).prepare()
        (folder / "boot.json").write_text(json.dumps(bootstrap(places)))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [envoy_binary(), "-c", folder / "boot.json", "--concurrency", "1",
                 "--use-dynamic-base-id", "--log-level", "warn"],
                stdout=log, stderr=log, preexec_fn=die_with_parent,
            )  # fmt: skip
        gateway = Gateway(places, upstream.server_address[1])
        try:
            _until_up(gateway, process, folder / "log")
            yield gateway
        finally:
            process.terminate()
            process.wait(10)
            upstream.shutdown()


def _until_up(gateway: Gateway, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{gateway.url}/health", timeout=1.0).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(log.read_text()[-2000:])
