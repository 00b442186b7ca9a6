"""A real S3 server for tests: SeaweedFS, one process, from a package that carries its binary."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import obstore
import pytest
from obstore.store import S3Store

from ratchet.kit.network import free_port

WEED = Path("build/seaweed/bin/weed").absolute()
BUCKET = "artifacts"
KEY, SECRET = "test", "test-secret"
START_SECONDS_MAX = 60.0


@dataclass
class Weed:
    """A server with one bucket, and the environment that leads to it."""

    command: list[str]
    log: Path
    filer: int
    url: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def listing(self) -> list[str]:
        store = S3Store(
            BUCKET,
            endpoint=self.url,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        return sorted(entry["path"] for page in obstore.list(store) for entry in page)

    def start(self) -> None:
        """Again after `kill` with what it had; returns when the bucket answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                # A bucket is a folder of the filer; there is no signer among our libraries.
                httpx.post(f"http://127.0.0.1:{self.filer}/buckets/{BUCKET}/", timeout=5.0)
                self.listing()
                return
            except (httpx.TransportError, obstore.exceptions.BaseError):
                time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-2000:])

    def kill(self) -> None:
        """Asked politely it takes half a minute to leave."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def weed(folder: Path) -> Iterator[Weed]:
    """A running server below `folder`.  Skips where the package could not be installed."""
    if not WEED.exists():
        pytest.skip("build/seaweed does not exist: make test-deep makes it")
    credentials = folder / "s3.json"
    identity = {
        "name": "ratchet",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    credentials.write_text(json.dumps({"identities": [identity]}))
    data = folder / "weed"
    data.mkdir()
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = [
        str(WEED), "server", f"-dir={data}", "-ip=127.0.0.1", "-s3", f"-s3.config={credentials}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
        "-volume.max=20", "-master.volumeSizeLimitMB=64",
        # Alone it need not wait for others before it leads.
        "-master.electionTimeout=1s", "-master.heartbeatInterval=200ms",
    ]  # fmt: skip
    for name, port in ports.items():
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={free_port()}"]
    server = Weed(command, folder / "weed.log", ports["filer"], f"http://127.0.0.1:{ports['s3']}")
    try:
        server.start()
        yield server
    finally:
        server.kill()
