"""A mirror of runs and versions in Weights & Biases, through its own client.

The client starts threads and a service and installs handlers of its own, so it runs in a process of
its own, in whichever environment has it.  Where and as whom is said by its own variables
(`WANDB_API_KEY`, `WANDB_BASE_URL`, `WANDB_ENTITY`); with `WANDB_MODE=offline` it writes folders for
`wandb sync`.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

from ratchet.core.errors import Unavailable
from ratchet.kit.processes import ProgramFailed, output_of
from ratchet.ports import Tracked

PROGRAM = Path(__file__).with_name("program.py")
# Its own patience with a server that does not answer is 90 s.
SECONDS_MAX = 300.0


class WandbTracker:
    """Mirrors to one W&B project, by version: its id there is the version's."""

    def __init__(self, project: str, folder: Path, python: str) -> None:
        self._project, self._folder, self._python = project, folder, python

    async def mirror(self, tracked: Tracked) -> str:
        return await asyncio.to_thread(self._mirror, tracked)

    def _mirror(self, tracked: Tracked) -> str:
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._write(tracked, Path(folder))
            try:
                said = output_of([self._python, str(PROGRAM), folder], SECONDS_MAX)
            except ProgramFailed as error:
                raise Unavailable(f"W&B: {error}") from error
        return said.strip().splitlines()[-1]

    def _write(self, tracked: Tracked, folder: Path) -> None:
        version = tracked.version
        told = {
            "project": self._project,
            "name": version.project,
            "version": version.id,
            "params": dict(tracked.params),
            "metrics": dict(tracked.metrics),
            "losses": list(tracked.losses),
            "url": tracked.url,
            "dir": str(self._folder),
        }
        (folder / "tracked.json").write_text(json.dumps(told))
        (folder / "adapter").mkdir()
        for name, content in tracked.adapter.items():
            (folder / "adapter" / name).write_bytes(content)
        (folder / "adapter" / "report.json").write_text(json.dumps(version.report, indent=2))
