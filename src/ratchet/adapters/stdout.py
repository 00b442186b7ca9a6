"""Events as JSON lines on standard output, for whoever ships logs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from ratchet.ports import Event


class StdoutEvents:
    name = "stdout"

    async def send(self, events: Sequence[Event]) -> None:
        lines = [
            json.dumps({"event": e.kind, "id": e.id, "sequence": e.sequence, "content": e.content})
            for e in events
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
