"""`python -m ratchet.train.leash PARENT -- COMMAND`: run a program that cannot outlive its worker.

The program has a process group of its own.  SIGTERM goes to the whole group; when the parent is
gone, or the program has ended and left others behind, the group is killed.  The exit code is the
program's, 128 and the signal's number if a signal ended it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from ratchet.kit.processes import die_with_parent

LOOK_SECONDS = 0.1


def main(arguments: list[str]) -> int:
    parent, command = int(arguments[0]), arguments[arguments.index("--") + 1 :]
    try:
        process = subprocess.Popen(
            command, process_group=0, preexec_fn=lambda: die_with_parent(signal.SIGKILL)
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: _signal(process.pid, signal.SIGTERM))
    while process.poll() is None and os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    _signal(process.pid, signal.SIGKILL)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
