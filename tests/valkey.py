"""A real Valkey of a test's own, which can be killed and stopped in its tracks."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from ratchet.entrypoints.local.supervisor import valkey_binary
from ratchet.kit.processes import die_with_parent
from ratchet.kit.secret import Secret


class Server:
    def __init__(self, folder: Path) -> None:
        self.socket = folder / "v.sock"
        self._folder = folder
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [valkey_binary(), "--port", "0", "--unixsocket", str(self.socket), "--save", ""],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)

    @property
    def url(self) -> Secret:
        return Secret(f"unix://{self.socket}")
