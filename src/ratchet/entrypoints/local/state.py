"""The state directory: one folder that holds everything a stack knows.

VERSION      layout of this folder        lock       held while a stack runs
stack.json   ports in use                 token      the administrator's token, mode 600
secret       seals signing keys, 600
postgres/    valkey/    envoy/            objects/   artifacts
cache/       bases and fetched adapters   work/      checkpoints      logs/
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from ratchet.core.errors import Conflict, NotFound, Rejected
from ratchet.kit.clock import SystemClock

LAYOUT = "1"
NAME = ".ratchet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the stack listens, all on 127.0.0.1."""

    gateway: int = 8080
    http: int = 8081
    grpc: int = 8082


@dataclass(frozen=True, slots=True)
class StateDir:
    """Paths inside one state directory."""

    root: Path

    @property
    def token_file(self) -> Path:
        return self.root / "token"

    @property
    def secret_file(self) -> Path:
        return self.root / "secret"

    def spot_began(self) -> str:
        """When the availability of spot began to be played, ISO 8601: at the first start."""
        file = self.root / "spot-began"
        _once(file, SystemClock().now().isoformat())
        return file.read_text().strip()

    @property
    def stack_file(self) -> Path:
        return self.root / "stack.json"

    @property
    def objects_url(self) -> str:
        return f"file://{self.root / 'objects'}"

    def folder(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, name: str) -> Path:
        return self.folder("logs") / f"{name}.log"

    @property
    def sockets(self) -> Path:
        """Unix sockets, outside: a socket's path may have 107 bytes, a state directory's more."""
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"ratchet-{os.getuid()}-{digest}"

    def ports(self) -> Ports:
        """Raises `NotFound` when no stack was ever started here."""
        try:
            return Ports(**json.loads(self.stack_file.read_text()))
        except FileNotFoundError as error:
            raise NotFound(f"{self.root} holds no stack: start one with `ratchet up`") from error

    def save_ports(self, ports: Ports) -> None:
        self.stack_file.write_text(json.dumps(asdict(ports)))


def open_state(root: Path) -> StateDir:
    """Make or check a state directory.  Raises `Rejected` for a layout of another version."""
    state = StateDir(root.absolute())
    state.root.mkdir(parents=True, exist_ok=True)
    mark = state.root / "VERSION"
    if not mark.exists():
        mark.write_text(LAYOUT)
    found = mark.read_text().strip()
    if found != LAYOUT:
        raise Rejected(
            f"{state.root} has layout {found!r}, this Ratchet knows {LAYOUT!r}: use the Ratchet "
            "that made it, or another --state-dir"
        )
    _once(state.token_file, secrets.token_urlsafe(32))
    _once(state.secret_file, base64.b64encode(secrets.token_bytes(32)).decode())
    return state


def _once(file: Path, content: str) -> None:
    """A file for its owner's eyes, made whole or not at all, and never changed."""
    if file.exists():
        return
    beside = file.with_suffix(".part")
    beside.touch(mode=0o600)
    beside.write_text(content)
    beside.rename(file)


def lock(state: StateDir) -> IO[str]:
    """Hold the directory; the kernel frees it when this process ends.  Raises `Conflict`."""
    file = (state.root / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        raise Conflict(
            f"a stack already runs in {state.root} (process {holder}): stop it first, or use "
            "another --state-dir"
        ) from None
    file.seek(0)
    file.truncate()
    file.write(str(os.getpid()))
    file.flush()
    return file


def find_state(start: Path) -> StateDir:
    """The nearest `.ratchet` in `start` or above, as git finds its own.  Raises `NotFound`."""
    for folder in (start, *start.parents):
        if (folder / NAME / "stack.json").exists():
            return StateDir(folder / NAME)
    raise NotFound(
        f"no {NAME} directory in {start} or above: start a stack with `ratchet up`, or name one "
        "with --state-dir"
    )


def check_ports(ports: Ports) -> None:
    """Raises `Conflict` naming the port that is taken and what to do."""
    for name, port in asdict(ports).items():
        if not is_free(port):
            raise Conflict(
                f"port {port} is taken, {name} needs it: stop what listens there or choose "
                f"another with --{name}-port"
            )


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
