"""A disk that is full, for real: small file systems of our own, which only root can mount."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, Traffic, ask

pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system"),
]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room there is."""
    filler = folder / "filler"
    room = shutil.disk_usage(folder).free
    filler.write_bytes(b"0" * room)
    assert shutil.disk_usage(folder).free == 0
    return filler


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    made.prepare()
    yield made
    made.stop()


def test_a_full_object_store_makes_a_run_wait_and_register_nothing_half(stack: Stack) -> None:
    objects = stack.state.root / "objects"
    with small_disk(objects, "8m"):
        stack.start()
        filler = fill(objects)
        with Traffic(stack.gateway) as users:
            run_id = stack.start_run("good")
            log = stack.state.log("server")
            stack.until(
                lambda: "No space left" in log.read_text(), 60, "the step says why it waits"
            )
            assert stack.client().get(f"/runs/{run_id}")["state"] == "running"
            assert not list(objects.glob("datasets/*.json"))

            filler.unlink()
            run = stack.end_of(run_id)

        assert run["state"] == "promoted", run["because"]
        assert users.broken == 0
        assert not users.failed
        stack.stop()


def test_a_full_disk_under_the_worker_ends_the_run_with_the_reason(stack: Stack) -> None:
    work = stack.state.root / "work"
    with small_disk(work, "128k"):
        stack.start()
        run = stack.end_of(stack.start_run("good"))

        assert run["state"] == "failed"
        assert "disk full" in run["because"]
        assert "Free some space" in run["because"]
        assert not list((stack.state.root / "objects").glob("adapters/*"))
        assert ask(stack.gateway).status_code == 200
        stack.stop()
    stack.start()
    with Traffic(stack.gateway):
        again = stack.end_of(stack.start_run("good"))

    assert again["state"] == "promoted", again["because"]
