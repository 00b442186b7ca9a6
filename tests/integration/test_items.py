"""Both answers to every item: over HTTP, on its page, and into a list that grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.core.artifact import RunId
from ratchet.core.run import AttemptState, StageName, StageState
from ratchet.entrypoints.cli import evals
from ratchet.entrypoints.cli.evals import app
from ratchet.kit.digest import digest_json
from tests.integration.test_access import Api, with_api
from tests.stored import NOW, queued

RUN = RunId("run_1")


def row(asked: str, expected: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": expected},
        ],
        "metadata": {"language": "en"},
    }


ROWS = [row("<b>one</b>", "1"), row("two", "2"), row("three", "3")]


def report(*answers: str) -> list[dict[str, Any]]:
    items = [
        {
            "key": digest_json(each),
            "prompt": each["messages"][0]["content"],
            "expected": each["messages"][1]["content"],
            "answer": answer,
            "score": float(answer == each["messages"][1]["content"]),
            "latency_ms": 1.0,
        }
        for each, answer in zip(ROWS, answers, strict=True)
    ]
    return [{"suite": "held-out", "digest": "d", "items": items}]


async def evaluate(api: Api) -> None:
    """A run whose candidate won the second item and lost the first."""
    parts = api.parts
    store = parts.datasets.shelf.objects
    await parts.runs.runs.add(queued(RUN), "key", NOW)
    await store.put("suites/d.json", json.dumps({"rows": ROWS}).encode())
    both = {"candidate": report("no", "2", "3"), "baseline": report("1", "no", "3")}
    await store.put("reports/run_1.json", json.dumps(both).encode())
    details: dict[StageName, dict[str, Any]] = {
        StageName.FREEZE: {"suites": [{"name": "held-out", "uri": "suites/d.json", "digest": "d"}]},
        StageName.EVALUATE: {"reports": "reports/run_1.json"},
    }
    for stage, detail in details.items():
        await parts.runs.stages.begin(RUN, stage, NOW)
        await parts.runs.stages.end(RUN, stage, StageState.DONE, detail, "", NOW)


def test_items_are_told_by_what_became_of_them(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        await api.parts.runs.runs.add(queued("run_0"), "other", NOW)
        missing = await api("GET", "/runs/run_0/items")
        assert missing.status_code == 404
        await evaluate(api)

        found = (await api("GET", "/runs/run_1/items?only=lost")).json()

        assert found["counts"] == {"won": 1, "lost": 1, "tied": 1}
        [lost] = found["items"]
        assert (lost["baseline"]["answer"], lost["candidate"]["answer"]) == ("1", "no")
        assert lost["row"] == ROWS[0]
        page = await api.page("/runs/run_1/items")
        assert "&lt;b&gt;one&lt;/b&gt;" in page.text, "what users wrote is text, not markup"
        assert "language en" in page.text
        assert "two" not in page.text
        assert "two" in (await api.page("/runs/run_1/items?only=all")).text

    with_api(database_url, tmp_path, scenario)


def test_the_page_of_a_run_takes_what_a_program_says_of_itself(
    database_url: str, tmp_path: Path
) -> None:
    """Two attempts; the second tells its steps and no more."""

    async def scenario(api: Api) -> None:
        parts = api.parts
        await parts.runs.runs.add(queued(RUN), "key", NOW)
        await parts.runs.stages.begin(RUN, StageName.TRAIN, NOW)
        for number, ending in ((1, AttemptState.PREEMPTED), (2, None)):
            await parts.attempts.add(RUN, StageName.TRAIN, number, {}, NOW)
            [living] = await parts.attempts.live()
            await parts.attempts.claim(living.id, NOW)
            await parts.attempts.heartbeat(living.id, {"step": 3, "steps": 9}, [], NOW)
            if ending is not None:
                await parts.attempts.end(living.id, ending, None, "spot", NOW)

        page = await api.page("/runs/run_1")

        assert page.status_code == 200
        assert "3 of 9" in page.text
        assert "attempt 2</span>" in page.text
        assert "preempted before" in page.text

    with_api(database_url, tmp_path, scenario)


class Known:
    """A control plane that knows one run; the command's side is what is tested."""

    def get(self, path: str, **query: object) -> Any:
        if path == "/runs":
            return [{"id": "run_1"}]
        items = [
            {"key": digest_json(each), "became": became, "row": each}
            for each, became in zip(ROWS, ("lost", "won", "tied"), strict=True)
        ]
        only = query.get("only")
        return {"items": [item for item in items if only in (None, item["became"])]}


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(evals, "connect", lambda _: Known())
    monkeypatch.setattr(evals, "find_run", lambda _, run_id: run_id or "run_1")
    to = str(tmp_path / "evals" / "pinned.jsonl")
    return lambda *words: CliRunner().invoke(app, ["pin", *words, "--to", to])


def test_what_was_lost_is_pinned_once(run_command: Any, tmp_path: Path) -> None:
    first = run_command("--lost")
    again = run_command("--lost")
    one = run_command(digest_json(ROWS[2])[:10])

    assert "1 added, 0 were there" in first.stdout
    assert "at_least: 1.0" in first.stdout
    assert "0 added, 1 were there" in again.stdout
    assert "1 added" in one.stdout
    lines = (tmp_path / "evals" / "pinned.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [ROWS[0], ROWS[2]]
    suite = (tmp_path / "evals" / "pinned.yaml").read_text()
    assert suite == "suite: pinned\nitems: pinned.jsonl\ncheck: exact\nmax_tokens: 64\n"


def test_an_item_that_is_not_there_is_said(run_command: Any, tmp_path: Path) -> None:
    found = run_command("abc123")

    assert "0 items whose key begins with abc123" in str(found.exception)
    assert not (tmp_path / "evals").exists()
    assert "name items by their keys" in str(run_command().exception)
