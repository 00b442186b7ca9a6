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
from ratchet.kit.clock import SystemClock

log = structlog.get_logger()

BATCH_LINES = 1_000
# One line more than this goes alone; a call of gRPC has a bound, too.
BATCH_BYTES = 2 * 1024 * 1024
LOOK_SECONDS = 0.05
RETRY_SECONDS_MAX = 2.0
FOLDER_SECONDS = 0.5
# A file this long is put aside once all of it is shipped.
ROTATE_BYTES = 64 * 1024 * 1024
# One this long is put aside as it is, and what was put aside before it is given up: with the
# control plane away for so much, the disk is worth more.
BEHIND_BYTES_MAX = 1024 * 1024 * 1024
# A file that was put aside goes when nobody wrote to it for this long; an Envoy that is taken over
# from has it open for a minute.
ASIDE_SECONDS = 90.0


@dataclass(slots=True)
class Tail:
    """A place in a file that grows."""

    file: Path

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
        lines: list[str] = []
        enough = offset + BATCH_BYTES
        with self.file.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n") or len(lines) == BATCH_LINES or offset > enough:
                    break
                lines.append(line.decode(errors="replace"))
                offset += len(line)
        return lines, offset

    def delete(self) -> None:
        """Only what is shipped."""
        self.file.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    @property
    def aside(self) -> Tail:
        """Where this file goes when it is long."""
        return Tail(self.file.with_suffix(".old"))

    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def idle_seconds(self) -> float:
        """How long nobody has written to it."""
        return SystemClock().now().timestamp() - self.file.stat().st_mtime

    def put_aside(self) -> None:
        """Rename the file with its mark.  Its writer goes on in it until it is told to reopen."""
        aside = self.aside
        if unshipped := aside.size() - aside.offset():
            log.error("records_given_up", bytes=unshipped, file=str(aside.file))
        aside.delete()
        # The mark first: killed in between, the file is shipped again from its start, which is
        # harmless; a mark that stayed would skip the next file's beginning.
        if self._mark.exists():
            self._mark.rename(aside._mark)
        self.file.rename(aside.file)


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
    """Until cancelled.  `send` and `reopen` raise `Unavailable` when they are to be tried again;
    `reopen` makes the writer begin a new file."""
    pause = LOOK_SECONDS
    while True:
        try:
            if not await _ship_batch(tail, send, reopen):
                await asyncio.sleep(LOOK_SECONDS)
            pause = LOOK_SECONDS
        except Unavailable as error:
            log.warning("records_wait", because=str(error))
            if tail.size() > BEHIND_BYTES_MAX:
                await asyncio.to_thread(tail.put_aside)
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)


async def _ship_batch(
    tail: Tail,
    send: Callable[[Sequence[str]], Awaitable[None]],
    reopen: Callable[[], Awaitable[None]],
) -> bool:
    """One batch, of what was put aside first; False when there was nothing to send."""
    for source in (tail.aside, tail):
        lines, offset = await asyncio.to_thread(source.read)
        if lines:
            await send(lines)
            await asyncio.to_thread(source.move_to, offset)
            return True
    if tail.aside.size():
        # Said before it goes, however often: whoever put it aside may have been killed before.
        await reopen()
        if tail.aside.idle_seconds() > ASIDE_SECONDS:
            tail.aside.delete()
    elif tail.size() >= ROTATE_BYTES:
        await asyncio.to_thread(tail.put_aside)
    return False
