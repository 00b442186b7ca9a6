"""A real identity provider in a process of its own: npm's `oidc-provider`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from ratchet.core.access import Role
from ratchet.core.serving import Grant, Oidc
from ratchet.kit.network import free_port
from ratchet.kit.processes import die_with_parent

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build" / "oidc"
PACKAGE = "oidc-provider@9.13"
AUDIENCE = "https://ratchet.test"


class Issuer:
    """The running provider."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.oidc = Oidc(
            issuer=url,
            audience=AUDIENCE,
            jwks_url=f"{url}/jwks",
            grants={"ml": Grant(models=("router",)), "ops": Grant(role=Role.OPERATOR)},
        )

    def token(self, client: str, audience: str = AUDIENCE) -> str:
        """An access token by client credentials."""
        answer = httpx.post(
            f"{self.url}/token",
            data={"grant_type": "client_credentials", "scope": "api", "resource": audience},
            auth=(client, f"secret-of-{client}"),
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """Skips the test where there is no Node, or the package cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no Node here, so no identity provider to test with")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "node_modules" / "oidc-provider").exists():
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", PACKAGE]
        (FOLDER / "package.json").write_text('{"private": true}')
        done = subprocess.run(install, cwd=FOLDER, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{PACKAGE} cannot be installed: {done.stderr[-200:]}")
    shutil.copy(HERE / "provider.mjs", FOLDER)
    port = free_port()
    process = subprocess.Popen(
        [node, "provider.mjs", str(port), AUDIENCE],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "ready" in line:
                break
        yield Issuer(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()
