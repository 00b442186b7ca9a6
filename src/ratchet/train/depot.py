"""Checkpoints away from the machine, for machines that are taken away with their disks.

A checkpoint is one object, `checkpoints/TRAINING.RUN.STEP.tar`: whole or not there.  It is sent
beside the training, the newest first; what it replaces goes when it has arrived.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
from pathlib import Path

from ratchet.core import retention
from ratchet.core.errors import RatchetError, first_line
from ratchet.core.retention import checkpoint_uri
from ratchet.train.job import checkpoint_folder, last_whole_checkpoint, step_of
from ratchet.train.store import Store


class Depot:
    """The checkpoints of one training, by its work folder's name, in the object store."""

    def __init__(self, store: Store, work: Path, run: str) -> None:
        self._store, self._work, self._run = store, work, run
        self._next: Path | None = None
        self._changed = threading.Condition()
        self._is_sending = False
        threading.Thread(target=self._send_all, name="depot", daemon=True).start()

    def fetch(self) -> int | None:
        """Bring the newest checkpoint here, unless there is one as new; answers its step.

        Whoever trains the same finds it, also under another run.
        """
        known = self._known()
        folder = self._work / "checkpoints"
        here = last_whole_checkpoint(self._work)
        newest = -1 if here is None else step_of(here)
        if not known or max(known) <= newest:
            return None
        step = max(known)
        content = self._store.get(known[step])
        beside = folder / f"fetched-{step}"
        shutil.rmtree(beside, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(beside, filter="data")
        beside.rename(folder / checkpoint_folder(step))
        return step

    def keep(self, folder: Path) -> None:
        """Send a checkpoint soon.  One that still waits gives way to it."""
        with self._changed:
            self._next = folder
            self._changed.notify_all()

    def settle(self, seconds: float) -> bool:
        """Wait until all has arrived; False if it has not after so long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._next and not self._is_sending, seconds)

    def clear(self) -> None:
        """The training has ended: nobody goes on from these."""
        with self._changed:
            self._next = None
        self.settle(seconds=60.0)
        for key in self._known().values():
            if f".{self._run}." in key:
                self._store.delete(key)

    def _known(self) -> dict[int, str]:
        prefix = checkpoint_uri(self._work.name, "", 0).partition(".")[0] + "."
        found = {retention.step_of(key): key for key in self._store.listing(prefix)}
        return {step: key for step, key in found.items() if step is not None}

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._is_sending = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._next is not None)
                folder, self._next, self._is_sending = self._next, None, True
            assert folder is not None
            try:
                self._send(folder)
            except (OSError, RatchetError) as error:
                # A newer one has taken its place on disk, or the next one will be tried.
                print(f"{folder.name} was not kept in the store: {first_line(error)}", flush=True)

    def _send(self, folder: Path) -> None:
        step = step_of(folder)
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.add(folder, arcname=".")
        self._store.put_new(checkpoint_uri(self._work.name, self._run, step), archive.getvalue())
        for older, key in self._known().items():
            if older < step and f".{self._run}." in key:
                self._store.delete(key)
