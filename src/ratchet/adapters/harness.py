"""Items of lm-evaluation-harness, from a program in its environment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from ratchet.core.data import Rows, read_rows
from ratchet.core.errors import Rejected
from ratchet.harness import Harness
from ratchet.kit.processes import ProgramFailed, output_of

# The first time it fetches what the task asks.
SECONDS_MAX = 900.0


class HarnessTasks:
    """Tasks by their names, as an environment has them."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness

    async def items(self, how: Mapping[str, object]) -> tuple[Rows, Mapping[str, object]]:
        return await asyncio.to_thread(self._items, how)

    def _items(self, how: Mapping[str, object]) -> tuple[Rows, Mapping[str, object]]:
        try:
            told = json.loads(output_of(self._harness.items(how), SECONDS_MAX))
        except ProgramFailed as error:
            raise Rejected(
                f"evaluate: lm_eval: {error} (RATCHET_LM_EVAL_PYTHON names an interpreter that "
                "has it)"
            ) from error
        if "fault" in told:
            raise Rejected(f"evaluate: lm_eval: {told['fault']}")
        rows = read_rows(str(how["task"]), map(json.dumps, told["rows"]))
        resolved = {key: told[key] for key in ("metric", "harness", "versions")}
        return rows, {**how, **resolved}
