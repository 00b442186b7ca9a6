#!/usr/bin/env python3
"""Functions fit a screen, modules fit a sitting.  A limit passed starts a conversation."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 500
# A function that only declares routes holds its handlers; it is read one handler at a time.
ROUTERS = ("router", "console")
ROOT = Path(__file__).parents[1]


def problems() -> Iterator[str]:
    for path in sorted((ROOT / "src" / "ratchet").rglob("*.py")):
        if "wire" in path.parts:
            continue
        text = path.read_text()
        place = path.relative_to(ROOT)
        if (lines := text.count("\n")) > MODULE_LINES_MAX:
            yield f"{place}: {lines} lines, at most {MODULE_LINES_MAX}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX and node.name not in ROUTERS:
                    yield f"{place}:{node.lineno}: {node.name} has {length} lines, at most 60"


if __name__ == "__main__":
    found = list(problems())
    print("\n".join(found) or "sizes are within bounds")
    sys.exit(bool(found))
