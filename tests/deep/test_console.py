"""The console in a real Chromium, beside a real stack with a canary on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import chromium, page
from tests.e2e.stack import Stack, Traffic

pytestmark = pytest.mark.deep


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if chromium() is None:
        pytest.skip("no Chromium: apt-get install chromium")
    made = Stack(tmp_path_factory.mktemp("console"))
    made.prepare()
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_whole_and_as_wide_as_the_screen(stack: Stack, theme: str, width: int) -> None:
    with page(width, 800, theme) as opened:  # type: ignore[arg-type]
        problems: list[str] = []
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.goto(f"http://127.0.0.1:{stack.ports.http}")
        opened.wait_for_timeout(1000)

        assert opened.get_by_role("heading", name="colours").is_visible()
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        assert problems == []


def test_a_release_moves_on_the_page_without_a_reload(stack: Stack, tmp_path: Path) -> None:
    with Traffic(stack.gateway), page() as opened:
        opened.goto(f"http://127.0.0.1:{stack.ports.http}")
        run_id = stack.start_run("good")

        opened.get_by_text(run_id).first.wait_for(timeout=20_000)
        opened.locator(".ladder .now").first.wait_for(timeout=90_000)
        opened.get_by_text("Evidence of harm").wait_for(timeout=30_000)
        opened.locator(".head .badge.promoted").first.wait_for(timeout=90_000)

    assert stack.end_of(run_id)["state"] == "promoted"


def test_the_page_says_so_when_the_database_is_away_and_comes_back(stack: Stack) -> None:
    with page() as opened:
        opened.goto(f"http://127.0.0.1:{stack.ports.http}")
        opened.get_by_role("heading", name="colours").wait_for()

        for _ in range(8):
            stack.kill("/postgres ", "-D")
            opened.wait_for_timeout(300)
        opened.get_by_text("The database is away").wait_for(timeout=30_000)
        opened.get_by_role("heading", name="colours").wait_for(timeout=60_000)
