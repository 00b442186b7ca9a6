"""Certificates of programs that speak with each other: who we are, and who may speak with us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NAMES = ("RATCHET_GRPC_CERT", "RATCHET_GRPC_KEY", "RATCHET_GRPC_CA")

# By default a channel that was broken a few times waits up to two minutes before it tries again:
# records of a canary are not to be late because the control plane restarted.
RECONNECT_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True, slots=True)
class PeerFiles:
    """Files in PEM form; read when they are needed, so that a new certificate needs no restart."""

    certificate: Path
    key: Path
    authority: Path
    """Signs the certificates of all that may speak with us."""

    def read(self) -> tuple[bytes, bytes, bytes]:
        """Certificate, key and authority."""
        files = (self.certificate, self.key, self.authority)
        certificate, key, authority = (file.read_bytes() for file in files)
        return certificate, key, authority


def peer_files(env: Mapping[str, str]) -> PeerFiles | None:
    """`RATCHET_GRPC_CERT`, `_KEY` and `_CA`: all, for mutual TLS, or none.

    Raises `ValueError` for some of them, or a file that is not there.
    """
    given = [env.get(name, "") for name in _NAMES]
    if not any(given):
        return None
    for name, value in zip(_NAMES, given, strict=True):
        if not value:
            raise ValueError(f"{name} is not set: mutual TLS needs {', '.join(_NAMES)}")
        if not Path(value).is_file():
            raise ValueError(f"{name}: found no file {value}, expected one in PEM form")
    certificate, key, authority = (Path(value).absolute() for value in given)
    return PeerFiles(certificate, key, authority)
