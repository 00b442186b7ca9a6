"""Artifacts on S3.  The server is moto's, a fake that speaks S3 over HTTP: no real one can be had
from a package.  What it shows is that our requests are understood, not how a cloud fails."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from ratchet.adapters.objects import ObstoreObjects
from ratchet.core.errors import NotFound, Unavailable
from ratchet.entrypoints.local.state import free_port
from tests.e2e.stack import Stack, Traffic

pytestmark = pytest.mark.deep

MOTO = Path("build/moto/bin/moto_server").absolute()
BUCKET = "artifacts"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A server with one bucket, and the environment that leads to it."""
    if not MOTO.exists():
        pytest.skip("build/moto does not exist: make test-deep makes it")
    port = free_port()
    process = subprocess.Popen(
        [MOTO, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if httpx.put(f"{url}/{BUCKET}").status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield process
    process.terminate()
    process.wait(10)


def test_an_object_is_created_once_read_back_and_missed_by_name(
    s3: subprocess.Popen[bytes],
) -> None:
    async def scenario() -> None:
        store = ObstoreObjects(f"s3://{BUCKET}/team")
        assert await store.put("a/b", b"first")
        assert not await store.put("a/b", b"second")
        assert await store.get("a/b") == b"first"
        with pytest.raises(NotFound, match="a/c"):
            await store.get("a/c")

    asyncio.run(scenario())


def test_a_bucket_that_is_away_is_unavailable(s3: subprocess.Popen[bytes]) -> None:
    store = ObstoreObjects(f"s3://{BUCKET}/team")
    s3.terminate()
    s3.wait(10)

    with pytest.raises(Unavailable, match="s3://"):
        asyncio.run(store.get("a/b"))


def test_a_run_keeps_everything_in_the_bucket_and_is_promoted(
    s3: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    stack = Stack(tmp_path, env={"RATCHET_OBJECTS_URL": f"s3://{BUCKET}/team"})
    stack.prepare()
    stack.start()
    try:
        with Traffic(stack.gateway):
            run = stack.end_of(stack.start_run("good"))
    finally:
        stack.stop()

    assert run["state"] == "promoted", run["because"]
    listing = httpx.get(f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}?list-type=2").text
    for folder in ("datasets", "suites", "adapters", "reports"):
        assert f"<Key>team/{folder}/" in listing
    assert not (stack.state.root / "objects").exists()
