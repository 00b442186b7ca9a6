"""The mirror, by W&B's own client (build/wandb), which writes what it would send.

A server of W&B's cannot be had without an account or Docker, so this reads the file that
`wandb sync` sends: records of protobuf in a log of LevelDB's form.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ratchet.adapters.wandb.tracker import WandbTracker
from ratchet.core.errors import Unavailable
from tests.deep.test_mlflow import TRACKED

pytestmark = pytest.mark.deep

PYTHON = Path("build/wandb/bin/python").absolute()
HEADER_BYTES, BLOCK_BYTES = 7, 32768


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WandbTracker:
    if not PYTHON.exists():
        pytest.skip("wandb is not installed in build/wandb; make test-deep installs it")
    monkeypatch.setenv("WANDB_MODE", "offline")
    return WandbTracker("colours", tmp_path / "w", str(PYTHON))


def test_a_version_is_written_with_its_parameters_losses_numbers_and_adapter(
    tracker: WandbTracker,
) -> None:
    shown = Path(asyncio.run(tracker.mirror(TRACKED)))

    [file] = shown.glob("*.wandb")
    assert file.name == "run-v_1.wandb"
    written = b"\n".join(records(file.read_bytes()))
    for part in (b"colours", b"lora.rank", b"http://console/runs/run_1", b"s.accuracy",
                 b"p-adapter", b"candidate", b"adapter_config.json"):  # fmt: skip
        assert part in written
    assert written.count(b"loss") >= len(TRACKED.losses)


def test_what_its_client_refuses_is_unavailable_with_its_words(tracker: WandbTracker) -> None:
    nameless = replace(TRACKED, version=replace(TRACKED.version, project="a/b"))

    with pytest.raises(Unavailable, match=r"W&B.*Artifact name"):
        asyncio.run(tracker.mirror(nameless))
    with pytest.raises(Unavailable, match="has no wandb: install it there"):
        asyncio.run(WandbTracker("p", Path("/tmp"), sys.executable).mirror(TRACKED))
    with pytest.raises(Unavailable, match="No such file"):
        asyncio.run(WandbTracker("p", Path("/tmp"), "/nowhere/python").mirror(TRACKED))


def records(content: bytes) -> Iterator[bytes]:
    """The records of a log; its own header is seven bytes.

    Source: LevelDB, doc/log_format.md.
    """
    at, record = 7, b""
    while at + HEADER_BYTES <= len(content):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER_BYTES:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        at += HEADER_BYTES
        record += content[at : at + length]
        at += length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""
