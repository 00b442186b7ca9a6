"""A suite is named by what it asks and how answers are checked."""

from __future__ import annotations

import json
from typing import Any

from ratchet.core.data import read_rows
from ratchet.core.suite import SuiteFile, suite_of

ROWS = read_rows("e.jsonl", ['{"prompt": "q", "completion": "a"}'])


def test_a_suite_is_stored_whole() -> None:
    file = SuiteFile(name="s", items="e.jsonl", check="exact", max_tokens=4)
    strict = SuiteFile(
        name="s", items="e.jsonl", check="json_schema", max_tokens=4, schema={"type": "object"}
    )

    plain, other = suite_of(file, ROWS).to_json(), suite_of(strict, ROWS).to_json()

    assert json.loads(json.dumps(plain))["rows"] == [ROWS.good[0].to_json()]
    assert "schema" not in plain
    assert other["schema"] == {"type": "object"}
    assert plain["digest"] != other["digest"]


def test_another_program_or_another_judge_is_another_suite() -> None:
    def stored(**how: Any) -> dict[str, Any]:
        file = SuiteFile(name="s", items="e.jsonl", check="python", max_tokens=4, **how)
        return suite_of(file, ROWS).to_json()

    asked = {"url": "http://j", "model": "j"}
    all_of_them = [
        stored(code="def check(): ..."),
        stored(code="def check(): return 1.0"),
        stored(judge=asked),
        stored(judge={**asked, "rubric": "is it kind?"}),
    ]

    all_of_them += [stored(task={"task": "t", "metric": m}) for m in ("one", "other")]

    assert len({suite["digest"] for suite in all_of_them}) == 6
    assert all_of_them[5]["task"] == {"task": "t", "metric": "other"}
    assert all_of_them[1]["code"] == "def check(): return 1.0"
    assert all_of_them[2]["judge"] == asked
