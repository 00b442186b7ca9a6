"""Child processes that do not outlive their parent (Linux; elsewhere a no-op)."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
# Our own way to the control plane and its stores is nobody else's business.
HIDDEN = ("RATCHET_", "DATABASE_URL")
# Loaded at import: between fork and exec nothing may be loaded any more.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(with_signal: int = signal.SIGTERM) -> None:
    """For `preexec_fn`: the kernel sends the child a signal when its parent thread ends."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(with_signal))


def follow(parent: int) -> None:
    """For a program that was told its parent's process id: end when the parent ends.

    Where `die_with_parent` cannot be used: its code runs between fork and exec, where the handlers
    of a library with threads (gRPC) may abort the child.
    """
    die_with_parent()
    if os.getppid() != parent:
        # It ended before the kernel was told.
        os.kill(os.getpid(), signal.SIGTERM)


def end(process: subprocess.Popen[Any], seconds: float = 10.0) -> None:
    """SIGTERM, and SIGKILL when it has not ended after so long."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def their_environment() -> dict[str, str]:
    """Ours, for somebody else's program: without the way to the control plane and its stores."""
    ours = os.environ.items()  # noqa: TID251 - handed on, not read
    return {name: value for name, value in ours if not name.startswith(HIDDEN)}


class ProgramFailed(Exception):
    """It could not be run, took too long, or ended badly; with the last that it said."""


def output_of(command: Sequence[str], seconds_max: float) -> str:
    """What somebody else's program prints.  Raises `ProgramFailed`."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
            stdin=subprocess.DEVNULL,
            env=their_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProgramFailed(str(error)) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ProgramFailed(f"by {command[0]}: {said[-1]}")
    return done.stdout


def peak_memory_bytes(pid: int) -> int:
    """The most resident memory that a process and its children had; 0 where the kernel does not
    say.  A sum of peaks: at most a little more than they had at once."""
    status, children = Path(f"/proc/{pid}/status"), Path(f"/proc/{pid}/task/{pid}/children")
    try:
        peak = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        below = children.read_text().split() if children.exists() else []
    except OSError:
        return 0
    own = int(peak[1]) * 1024 if peak else 0
    return own + sum(peak_memory_bytes(int(child)) for child in below)


class StopNotice:
    """SIGTERM as a thing to look at: how clouds, Kubernetes and supervisors ask for a machine back.

    From `listen` on the signal ends nothing by itself; the program looks at `given` where it can
    stop well.
    """

    def __init__(self) -> None:
        self.given = False

    def listen(self) -> None:
        """For the main thread."""
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, *_: object) -> None:
        self.given = True
