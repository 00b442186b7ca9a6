#!/usr/bin/env python3
"""Pictures of a running console, in both themes and on a phone: screenshots.py URL FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.browser import page

SIZES = {"wide": (1280, 900), "phone": (400, 800)}


def main(url: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        for name, (width, height) in SIZES.items():
            with page(width, height, theme) as opened:
                opened.goto(url)
                opened.wait_for_timeout(1500)
                opened.screenshot(path=folder / f"{name}-{theme}.png", full_page=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
