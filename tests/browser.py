"""A real Chromium for tests and pictures: Debian's package, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Page, sync_playwright

# Without these Chromium looks for its maker's servers at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def page(
    width: int = 1280, height: int = 900, theme: Literal["light", "dark"] = "light"
) -> Iterator[Page]:
    path = chromium()
    assert path is not None, "no Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        opened = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme=theme, device_scale_factor=1.5
        )
        yield opened
        browser.close()
