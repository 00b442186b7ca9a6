"""Ask for a run from a spec file: `ratchet run start` and `scripts/trigger_retrain.py`."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from ratchet.adapters.specfile.reader import load_spec
from ratchet.entrypoints.cli.client import Client

# Scripts and CI jobs branch on these.
EXIT_DONE = 0  # promoted, unchanged, left to a newer run, or stopped by a gate as configured
EXIT_FAILED = 1  # failed, cancelled, rolled back, or the control plane is away
EXIT_BAD_INPUT = 2
EXITS = dict.fromkeys(("promoted", "unchanged", "superseded", "gated"), EXIT_DONE)


def start_run(client: Client, file: Path, *, kind: str, why: str, key: str = "") -> str:
    """The id of the run.  By key.  Raises `Rejected` with every problem of the file."""
    path = file.absolute()
    # Checked here too: the answer comes with the user's own path, and before any call.
    load_spec(path)
    body = {
        "spec": path.read_text(),
        "path": str(path),
        "kind": kind,
        "who": getpass.getuser(),
        "why": why,
        "commit": commit_of(path.parent),
    }
    return str(client.post("/runs", body, key)["id"])


def commit_of(folder: Path) -> str:
    """The commit that the folder is at, empty outside of Git."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
