"""The control API does what its OpenAPI document says, whatever is sent: schemathesis finds out."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent
from tests.contract.test_specfile import SMALL

pytestmark = pytest.mark.deep

TOKEN = "t" * 20
EXAMPLES = os.environ.get("RATCHET_SCHEMA_EXAMPLES", "40")
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


@pytest.fixture
def url(database_url: str, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "secret").write_text(base64.b64encode(b"s" * 32).decode())
    http, grpc = free_port(), free_port()
    env = {
        **os.environ,
        "DATABASE_URL": database_url,
        "RATCHET_TOKEN_FILE": str(tmp_path / "token"),
        "RATCHET_SECRET_FILE": str(tmp_path / "secret"),
        "RATCHET_OBJECTS_URL": f"file://{tmp_path}/objects",
        "RATCHET_HTTP_PORT": str(http),
        "RATCHET_GRPC_PORT": str(grpc),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ratchet.entrypoints.cli.main", "server"],
            env=env, stdout=log, stderr=log, preexec_fn=die_with_parent,
        )  # fmt: skip
    base = f"http://127.0.0.1:{http}"
    try:
        deadline = time.monotonic() + 60
        while not _answers(base):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-2000:]
            time.sleep(0.1)
        headers = {"authorization": f"Bearer {TOKEN}"}
        spec = {"spec": SMALL, "path": "/x/ratchet.yaml"}
        httpx.post(f"{base}/api/v1/projects", json=spec, headers=headers).raise_for_status()
        yield base
    finally:
        process.terminate()
        process.wait(20)


def _answers(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health").status_code == 200
    except httpx.TransportError:
        return False


def test_every_call_answers_as_its_document_says(url: str) -> None:
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "run", f"{url}/api/v1/openapi.json",
            "--checks", CHECKS, "--max-examples", EXAMPLES,
            "--header", f"Authorization: Bearer {TOKEN}",
            "--phases", "examples,coverage,fuzzing", "--request-timeout", "30",
            "--generation-database", "none", "--no-color",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout[-6000:])

    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
