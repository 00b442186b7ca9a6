"""Files of spot availability: two forms, and what is wrong with them is said where it stands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.adapters.traces import player_of, read_trace
from ratchet.core.errors import Rejected
from ratchet.entrypoints.local.cloud import simulated_cloud
from ratchet.settings import spot_of

CSV = """\
time,available
2026-01-01T00:00:00Z,1
2026-01-01T00:10:00Z,0
2026-01-01T00:20:00Z,1
"""


def test_the_published_form_and_a_table_say_the_same(tmp_path: Path) -> None:
    published, table = tmp_path / "zone.json", tmp_path / "zone.csv"
    published.write_text(json.dumps({"metadata": {"gap_seconds": 600}, "data": [1, 0, 1]}))
    table.write_text(CSV)

    assert read_trace(published) == read_trace(table)
    assert read_trace(table).up == (True, False, True)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "[1, 0]", '{"metadata"'),
        ("a.json", "{", '{"metadata"'),
        ("a.json", '{"metadata": {"gap_seconds": 0}, "data": [1, 0]}', "a positive number"),
        ("a.json", '{"metadata": {"gap_seconds": 9}, "data": [1, 2]}', "data[1]: found 2"),
        ("a.json", '{"metadata": {"gap_seconds": 9}, "data": [1]}', "found 1 probes"),
        ("a.csv", "time,available\n", "at least two probes"),
        ("a.csv", CSV.replace(",0", ",no"), "a.csv:3: found"),
        ("a.csv", CSV.replace("00:20", "09:20"), "a.csv:4: found 33000 s"),
        ("a.csv", CSV.replace("time", "when"), "expected time (ISO 8601)"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(Rejected) as told:
        read_trace(path)

    assert str(path) in str(told.value)
    assert says in str(told.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="cannot be read"):
        read_trace(tmp_path / "none.json")


def test_settings_say_what_is_played() -> None:
    assert spot_of({}) is None

    found = spot_of({"RATCHET_SPOT_TRACES": "a.json,b.json", "RATCHET_SPOT_SPEED": "60"})

    assert found is not None
    assert found.traces == (Path("a.json"), Path("b.json"))
    assert (found.speed, found.notice_seconds) == (60.0, 30.0)
    with pytest.raises(ValueError, match="expected a positive number"):
        spot_of({"RATCHET_SPOT_TRACES": "a.json", "RATCHET_SPOT_SPEED": "0"})


def test_zones_that_were_not_probed_together_are_not_played_together(tmp_path: Path) -> None:
    paths = []
    for name, count in (("a", 4), ("b", 6)):
        paths.append(tmp_path / f"{name}.json")
        value = {"metadata": {"gap_seconds": 600}, "data": [1, 0] * (count // 2)}
        paths[-1].write_text(json.dumps(value))

    player = player_of(paths[:1], 2.0, datetime(2026, 1, 1, tzinfo=UTC))

    assert (player.names, player.speed) == (("a",), 2.0)
    with pytest.raises(Rejected, match="two files of one name"):
        player_of([paths[0], paths[0]], 1.0, datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(Rejected, match="RATCHET_SPOT_"):
        simulated_cloud({"RATCHET_SPOT_TRACES": "a.json", "RATCHET_SPOT_SPEED": "fast"})
    with pytest.raises(Rejected, match="probed together"):
        player_of(paths, 1.0, datetime(2026, 1, 1, tzinfo=UTC))
