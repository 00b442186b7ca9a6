"""The official clients for Python and Node, unmodified, by one shared script."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.e2e.stack import Stack, ask
from tests.e2e.test_loop import cli

SCRIPTS = Path(__file__).parents[1] / "conformance"
FOLDER = Path(__file__).parents[2] / "build" / "openai"
PACKAGE = "openai@6"
EXPECTED = {
    "chat": ["chat.completion", "assistant", True],
    "stream": [True, True],
    "models": ["colours"],
    "wrong_key": ["AuthenticationError", 401, "invalid_api_key"],
    "wrong_model": ["NotFoundError", 404, "model_not_found"],
    "bad_request": ["BadRequestError", 400, "invalid_request"],
    "limited": ["RateLimitError", 429, "rate_limit_exceeded"],
    "cancel": True,
}
TIMEOUT = {"APITimeoutError", "APIConnectionTimeoutError"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("clients"))
    made.prepare()
    made.start()
    limits = "keys, limits: {key: {slow: 1/h}}"
    spec = made.spec("keyed", train="good.jsonl", access=limits)
    made.client().post("/projects", {"spec": spec.read_text(), "path": str(spec)})
    made.until(lambda: ask(made.gateway).status_code == 401, 10, "the gateway asks for keys")
    try:
        yield made
    finally:
        made.stop()


def node() -> list[str]:
    """Node with the official client, installed once below build/."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        pytest.skip("no Node here, so its client is not tried")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "node_modules" / "openai").exists():
        (FOLDER / "package.json").write_text('{"private": true}')
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", PACKAGE]
        done = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be installed: {done.stderr[-200:]}")
    shutil.copy(SCRIPTS / "client.mjs", FOLDER)
    return [found, str(FOLDER / "client.mjs")]


@pytest.mark.parametrize("language", ["python", "node"])
def test_the_official_client_sees_what_it_would_at_openai(stack: Stack, language: str) -> None:
    command = [sys.executable, str(SCRIPTS / "client.py")] if language == "python" else node()
    key, slow = (
        stack.client().post("/keys", {"project": "colours", "name": language, "tier": tier})["key"]
        for tier in ("standard", "slow")
    )

    done = subprocess.run(
        [*command, stack.gateway, key, slow, "colours"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout)
    assert set(seen.pop("timeout")) <= TIMEOUT
    assert seen == EXPECTED
    # The cancelled stream was to have 200 tokens; nobody computes for a client that left.
    stack.until(lambda: _idle(stack), 3, "the engine stopped")


def _idle(stack: Stack) -> bool:
    port = stack.client().get("/engines")[0]["port"]
    load = httpx.get(f"http://127.0.0.1:{port}/health").json()
    return (load["running"], load["waiting"]) == (0, 0)


def test_a_new_envoy_takes_over_and_nothing_is_lost(stack: Stack) -> None:
    key = stack.client().post("/keys", {"project": "colours", "name": "restart"})["key"]
    client = openai.OpenAI(base_url=f"{stack.gateway}/v1", api_key=key, max_retries=0)
    ask_ = [{"role": "user", "content": "the ball is red"}]
    failed: list[str] = []
    answered = 0
    stop = threading.Event()

    def load(stream: bool) -> None:
        nonlocal answered
        while not stop.wait(0.02):
            try:
                answer = client.chat.completions.create(
                    model="colours", messages=ask_, max_tokens=20, stream=stream
                )
                if stream:
                    assert list(answer)[-1].choices[0].finish_reason
                answered += 1
            except openai.APIError as error:
                failed.append(repr(error))

    def envoys() -> list[int]:
        return stack.pids("/envoy ", "bootstrap.json")

    threads = [threading.Thread(target=load, args=(n % 2 == 0,)) for n in range(4)]
    for thread in threads:
        thread.start()
    before = envoys()
    done = cli(stack, "gateway", "restart")
    assert "takes over" in done.stdout
    stack.until(lambda: len(envoys()) == 2, 10, "two Envoys, old and new")
    time.sleep(3.0)
    weight = stack.client().get("/gateways")
    stop.set()
    for thread in threads:
        thread.join()

    assert failed == []
    assert answered > 20
    assert weight[0]["rejected"] == ""
    # A crash of the new one is followed by one that starts its own line.
    [new] = set(envoys()) - set(before)
    os.kill(new, signal.SIGKILL)
    headers = {"authorization": f"Bearer {key}"}
    models = f"{stack.gateway}/v1/models"
    back = lambda: httpx.get(models, headers=headers).status_code == 200  # noqa: E731
    stack.until(back, 15, "the gateway is back")
