"""Tasks of EleutherAI's lm-evaluation-harness, by their names.

The harness brings a hundred packages, so it runs in an environment of its own: `program.py`, by its
path, in whichever interpreter has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).with_name("program.py")


@dataclass(frozen=True, slots=True)
class Harness:
    """Where the harness is."""

    python: str
    """An interpreter that has it."""
    include: str = ""
    """A folder with tasks of the user's own."""

    def items(self, how: Mapping[str, object]) -> list[str]:
        """A command that prints what a task asks, as one JSON object."""
        return self._command("items", how)

    def score(self, how: Mapping[str, object]) -> list[str]:
        """A command that answers `{answer, row}` with `{score}` or `{fault}`, a line each."""
        return self._command("score", how)

    def _command(self, name: str, how: Mapping[str, object]) -> list[str]:
        told = {**how, "include": self.include}
        return [self.python, str(PROGRAM), name, json.dumps(told)]
