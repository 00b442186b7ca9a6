"""Child processes that do not outlive their parent (Linux; elsewhere a no-op)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
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
