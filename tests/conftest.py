"""Fixtures for all tiers: a real PostgreSQL for the session, a clean database for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from ratchet.adapters.postgres.migrate import migrate
from ratchet.entrypoints.local.postgres import STOP_SIGNAL, Postgres
from ratchet.entrypoints.local.privileges import become_unprivileged
from tests.valkey import Server

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running embedded PostgreSQL, started by our own launcher."""
    root = Path(tempfile.mkdtemp(prefix="ratchet-test-"))
    postgres = Postgres(root / "data", root / "s")
    postgres.initialise()
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [*postgres.command(), "-c", "fsync=off"],
            env={"PATH": os.defpath},
            stdout=log,
            stderr=log,
            preexec_fn=become_unprivileged(STOP_SIGNAL),
        )
    deadline = time.monotonic() + 30
    while not postgres.is_ready():
        assert time.monotonic() < deadline, (root / "log").read_text()
        time.sleep(0.05)
    yield postgres.url.reveal()
    process.send_signal(STOP_SIGNAL)
    process.wait(10)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def template(postgres_url: str) -> str:
    """A migrated database that others are copied from."""
    name = "template_ratchet"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    migrate(_at(postgres_url, name))
    return name


@pytest.fixture
def database_url(postgres_url: str, template: str) -> Iterator[str]:
    """An empty migrated database of this test's own."""
    name = f"t{time.monotonic_ns()}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield _at(postgres_url, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _at(url: str, database: str) -> str:
    return url.replace("/postgres?", f"/{database}?")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-transcripts", action="store_true", help="write scenario transcripts anew"
    )


@pytest.fixture
def valkey() -> Iterator[Server]:
    """A running Valkey of this test's own."""
    with tempfile.TemporaryDirectory(prefix="ratchet-v-") as folder:
        made = Server(Path(folder))
        yield made
        made.process.kill()
        made.process.wait()
