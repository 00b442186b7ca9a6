"""Other gateways on the same request: each in an environment of its own below `build/peers`.

What cannot be installed here is left out with a message.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent

FOLDER = Path(__file__).parents[1] / "build" / "peers"
LITELLM, PORTKEY = "litellm[proxy]==1.108.7", "@portkey-ai/gateway@1.15.2"
PROXY = """
import os
import httpx
from fastapi import FastAPI, Request, Response

app = FastAPI()
client = httpx.AsyncClient(base_url=os.environ["UPSTREAM"], timeout=60)

@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    answer = await client.post(
        "/v1/chat/completions", content=await request.body(),
        headers={"content-type": "application/json"},
    )
    return Response(answer.content, answer.status_code, media_type="application/json")
"""


class Missing(Exception):
    """A peer that cannot be had here, and why."""


@contextmanager
def _process(
    name: str, command: list[str], log_folder: Path, **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    with (log_folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **env},
            preexec_fn=die_with_parent, cwd=log_folder,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{' '.join(command[:3])}: {done.stderr.strip()[-200:]}")


def _python(name: str, *packages: str) -> Path:
    """An environment with packages; made once."""
    home = FOLDER / name
    if not (home / "made").exists():
        print(f"installing {packages[0]} into {home}", flush=True)
        venv.create(home, with_pip=True)
        _run(str(home / "bin" / "python"), "-m", "pip", "install", "-q", *packages)
        (home / "made").touch()
    return home / "bin"


@contextmanager
def litellm(upstream: int, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes], str]]:
    binaries, port = _python("litellm", LITELLM), free_port()
    (folder / "litellm.yaml").write_text(
        "model_list:\n  - model_name: m\n    litellm_params:\n"
        f"      {{model: openai/m, api_base: 'http://127.0.0.1:{upstream}/v1', api_key: none}}\n"
        "general_settings: {master_key: sk-bench}\nlitellm_settings: {telemetry: false}\n"
    )
    command = [
        str(binaries / "litellm"), "--config", str(folder / "litellm.yaml"),
        "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1",
    ]  # fmt: skip
    with _process("litellm", command, folder, LITELLM_LOCAL_MODEL_COST_MAP="True") as process:
        yield port, process, "authorization: Bearer sk-bench\r\n"


@contextmanager
def portkey(upstream: int, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes], str]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise Missing("there is no Node here")
    home, port = FOLDER / "portkey", free_port()
    if not (home / "node_modules" / "@portkey-ai").exists():
        print(f"installing {PORTKEY} into {home}", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text('{"private": true}')
        _run(npm, "install", "--silent", "--no-audit", "--no-fund", PORTKEY, cwd=home)
    start = home / "node_modules/@portkey-ai/gateway/build/start-server.js"
    headers = (
        "authorization: Bearer sk-bench\r\nx-portkey-provider: openai\r\n"
        f"x-portkey-custom-host: http://127.0.0.1:{upstream}/v1\r\n"
    )
    command = [node, str(start), f"--port={port}", "--headless"]
    with _process("portkey", command, folder, TRUSTED_CUSTOM_HOSTS="127.0.0.1") as process:
        yield port, process, headers


@contextmanager
def fastapi_httpx(
    upstream: int, folder: Path
) -> Iterator[tuple[int, subprocess.Popen[bytes], str]]:
    binaries, port = _python("fastapi", "fastapi", "httpx", "uvicorn[standard]"), free_port()
    (folder / "proxy.py").write_text(PROXY)
    command = [
        str(binaries / "python"), "-m", "uvicorn", "proxy:app", "--port", str(port),
        "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    env = {"UPSTREAM": f"http://127.0.0.1:{upstream}"}
    with _process("fastapi", command, folder, **env) as process:
        yield port, process, ""


@contextmanager
def nginx(upstream: int, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes], str]]:
    binary, port = _nginx(), free_port()
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 100000000;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; }} }} }}
"""
    )
    with _process("nginx", [binary, "-c", str(folder / "nginx.conf")], folder) as process:
        yield port, process, ""


def _nginx() -> str:
    if found := shutil.which("nginx"):
        return found
    home = FOLDER / "nginx"
    binary = home / "usr/sbin/nginx"
    if not binary.exists():
        if shutil.which("apt-get") is None:
            raise Missing("there is no nginx here, and no apt-get to get it with")
        print(f"unpacking nginx into {home}", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        _run("apt-get", "download", "nginx", cwd=home)
        [package] = home.glob("nginx_*.deb")
        _run("dpkg", "-x", str(package), str(home))
    return str(binary)


Peer = Callable[[int, Path], AbstractContextManager[tuple[int, subprocess.Popen[bytes], str]]]
PEERS: dict[str, Peer] = {
    "nginx": nginx,
    "fastapi_httpx": fastapi_httpx,
    "portkey": portkey,
    "litellm": litellm,
}


if __name__ == "__main__":
    sys.exit("run benchmarks/gateway.py")
