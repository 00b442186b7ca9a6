"""Child processes that are kept alive: started, watched, restarted with growing pauses, stopped."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import structlog

from ratchet.kit.clock import monotonic_seconds
from ratchet.kit.processes import die_with_parent

log = structlog.get_logger()

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 5.0
# A child that lived this long was well: its next death starts with a short pause again.
HEALTHY_SECONDS = 10.0
ANSWER_SECONDS = 1.0


@dataclass(slots=True, kw_only=True)
class Child:
    """One process of the stack."""

    name: str
    command: list[str]
    log_file: Path
    env: Mapping[str, str] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    prepare: Callable[[], None] = die_with_parent
    """Runs in the child before its program; by default it dies with us."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    restarts: int = field(default=0, init=False)
    _started_at: float = field(default=0.0, init=False)
    _pause: float = field(default=PAUSE_SECONDS_MIN, init=False)
    _due_at: float = field(default=0.0, init=False)

    def start(self) -> None:
        with self.log_file.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=None if self.env is None else dict(self.env),
                preexec_fn=self.prepare,
                # A group of its own: Ctrl-C reaches the supervisor alone, which stops in order.
                process_group=0,
            )
        self._started_at = monotonic_seconds()

    def exit_code(self) -> int | None:
        """None while it runs."""
        return None if self.process is None else self.process.poll()

    @property
    def age_seconds(self) -> float:
        """Since its last start."""
        return monotonic_seconds() - self._started_at

    def keep_alive(self) -> bool:
        """Start again what has died, when its pause is over.  True when it was just started."""
        code = self.exit_code()
        if self.process is not None and code is None:
            return False
        now = monotonic_seconds()
        if self.process is not None:
            if now - self._started_at > HEALTHY_SECONDS:
                self._pause = PAUSE_SECONDS_MIN
            self._due_at = now + self._pause
            self._pause = min(self._pause * 2, PAUSE_SECONDS_MAX)
            self.process = None
            self.restarts += 1
            log.warning("child_ended", child=self.name, code=code, restarts=self.restarts)
        if now < self._due_at:
            return False
        self.start()
        return True

    async def stop(self) -> None:
        """Ask it to stop, and insist after a while."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(self.stop_signal)
        try:
            await asyncio.to_thread(process.wait, self.stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("child_killed", child=self.name, after_seconds=self.stop_seconds)
            process.kill()
            process.wait()


async def answers(url: str) -> bool:
    """Whether a child of this machine says by HTTP that it is well."""
    try:
        # Reading the authorities of TLS takes twenty times as long as the question.
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS, verify=False) as client:
            return (await client.get(url)).status_code == 200
    except httpx.HTTPError:
        return False
