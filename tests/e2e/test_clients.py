"""The official clients for Python and Node, unmodified, by one shared script."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.e2e.stack import Stack, ask

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
