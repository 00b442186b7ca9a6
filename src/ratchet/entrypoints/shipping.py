"""Ship lines of a file to the control plane: each at least once, in order, from where one left.

A writer that knows nothing of us appends (Envoy, an engine).  How far we came is in a file of its
own, moved on only after the control plane has taken a batch; killed in between, the batch is sent
again and settled once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from ratchet.core.errors import Unavailable

log = structlog.get_logger()

BATCH_LINES = 1_000
LOOK_SECONDS = 0.05
RETRY_SECONDS_MAX = 2.0
FOLDER_SECONDS = 0.5
# A file this long is put aside once all of it is shipped.
ROTATE_BYTES = 64 * 1024 * 1024
# With the control plane away for this much, the oldest lines are given up, and counted.
BEHIND_BYTES_MAX = 2 * 1024 * 1024 * 1024


@dataclass(slots=True)
class Tail:
    """A place in a file that grows."""

    file: Path
    lost_bytes: int = 0

    @property
    def _mark(self) -> Path:
        return self.file.with_name(f"{self.file.name}.offset")

    def offset(self) -> int:
        try:
            return int(self._mark.read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def move_to(self, offset: int) -> None:
        beside = self._mark.with_suffix(".part")
        beside.write_text(str(offset))
        beside.replace(self._mark)

    def read(self) -> tuple[list[str], int]:
        """Whole lines that were not shipped yet, a batch at most, and the place after them."""
        if not self.file.exists():
            return [], 0
        size, offset = self.file.stat().st_size, self.offset()
        if offset > size:
            # Somebody emptied the file.
            offset = 0
        if size - offset > BEHIND_BYTES_MAX:
            self.lost_bytes += size - offset
            log.error("records_given_up", bytes=size - offset, file=str(self.file))
            offset = size
        lines: list[str] = []
        with self.file.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n") or len(lines) == BATCH_LINES:
                    break
                lines.append(line.decode(errors="replace"))
                offset += len(line)
        return lines, offset

    def delete(self) -> None:
        """Only what is shipped."""
        self.file.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    async def rotate(self, reopen: Callable[[], Awaitable[None]]) -> None:
        """Begin a new file when this one is long and shipped.  `reopen` makes the writer do so."""
        if not self.file.exists() or self.file.stat().st_size < ROTATE_BYTES:
            return
        aside = self.file.with_suffix(".old")
        self.file.rename(aside)
        self._mark.rename(Tail(aside)._mark)
        await reopen()
        # What was written before it reopened.
        await asyncio.sleep(1.0)


async def ship_folder(
    folder: Path, pattern: str, send: Callable[[Sequence[str]], Awaitable[None]]
) -> None:
    """Ship every file of a folder until cancelled.  A file is deleted when it is shipped and its
    writer has begun a newer one, which has the same name up to the first dash."""
    while True:
        files = await asyncio.to_thread(_oldest_first, folder, pattern)
        newest = {file.name.partition("-")[0]: file for file in files}
        sent = False
        for file in files:
            tail = Tail(file)
            lines, offset = await asyncio.to_thread(tail.read)
            if lines:
                try:
                    await send(lines)
                except Unavailable as error:
                    log.warning("answers_wait", lines=len(lines), because=str(error))
                    break
                await asyncio.to_thread(tail.move_to, offset)
                sent = True
            elif file not in newest.values():
                tail.delete()
        await asyncio.sleep(LOOK_SECONDS if sent else FOLDER_SECONDS)


def _oldest_first(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime_ns)


async def ship(
    tail: Tail,
    send: Callable[[Sequence[str]], Awaitable[None]],
    reopen: Callable[[], Awaitable[None]],
) -> None:
    """Until cancelled.  `send` raises `Unavailable` when the lines are to be sent again."""
    pause = LOOK_SECONDS
    aside = Tail(tail.file.with_suffix(".old"))
    while True:
        source = aside if aside.file.exists() else tail
        lines, offset = await asyncio.to_thread(source.read)
        if not lines:
            if source is aside:
                aside.delete()
                continue
            await tail.rotate(reopen)
            await asyncio.sleep(LOOK_SECONDS)
            continue
        try:
            await send(lines)
        except Unavailable as error:
            log.warning("records_wait", lines=len(lines), because=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)
            continue
        pause = LOOK_SECONDS
        await asyncio.to_thread(source.move_to, offset)
