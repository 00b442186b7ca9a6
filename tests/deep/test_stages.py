"""The server is killed, and the stack is stopped by Ctrl-C, inside every stage of a run.

A trigger in the database makes the moment hold still: it sleeps inside the very statement that
begins or ends a stage, so that also stages of a few milliseconds are hit in the middle.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.core.run import StageName
from tests.e2e.stack import Stack, Traffic, ask

pytestmark = pytest.mark.deep

SLEEP_SECONDS = 6
HOLD = f"""
CREATE OR REPLACE FUNCTION hold_still() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.name, NEW.state) IN (SELECT name, state FROM hold) THEN
    PERFORM pg_sleep({SLEEP_SECONDS});
  END IF;
  RETURN NEW;
END $$;
CREATE TABLE IF NOT EXISTS hold (name text, state text);
CREATE OR REPLACE TRIGGER hold_still BEFORE UPDATE ON stages
  FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION hold_still();
"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path)
    made.prepare()
    made.start()
    with made.database() as connection:
        connection.execute(HOLD)
    yield made
    assert made.stop() == 0


def hold(stack: Stack, stage: StageName | None, state: str) -> None:
    with stack.database() as connection:
        connection.execute("TRUNCATE hold")
        if stage is not None:
            connection.execute("INSERT INTO hold VALUES (%s, %s)", (stage.value, state))


def until_held(stack: Stack, what: str) -> None:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

    def held() -> bool:
        with stack.database() as connection:
            row = connection.execute(sql).fetchone()
        return bool(row and row[0])

    stack.until(held, 120, what)


@pytest.mark.parametrize("state", ["running", "done"])
def test_a_server_killed_in_every_stage_ends_the_run_as_if_it_had_not_been(
    stack: Stack, state: str
) -> None:
    hold(stack, StageName.CHECK, state)
    with Traffic(stack.gateway) as users:
        run_id = stack.start_run("good", "k")
        for stage, later in zip(StageName, [*list(StageName)[1:], None], strict=True):
            until_held(stack, f"{stage.value} becomes {state}")
            assert stack.kill("cli.main server") == 1
            hold(stack, later, state)
        run = stack.end_of(run_id)

    assert run["state"] == "promoted", run["because"]
    assert [stage["state"] for stage in run["stages"]] == ["done"] * len(StageName)
    assert users.broken == 0
    assert not users.failed
    with stack.database() as connection:
        once = connection.execute(
            "SELECT (SELECT count(*) FROM versions WHERE run_id IS NOT NULL),"
            " (SELECT count(*) FROM releases), (SELECT count(*) FROM attempts)"
        ).fetchone()
    assert once == (1, 1, 2)


def test_ctrl_c_in_every_stage_loses_nothing(stack: Stack) -> None:
    hold(stack, StageName.CHECK, "running")
    run_id = stack.start_run("good", "k")

    for stage, later in zip(StageName, [*list(StageName)[1:], None], strict=True):
        until_held(stack, f"{stage.value} runs")
        assert stack.stop() == 0
        assert stack.pids() == []
        # The stage that was cut short is held once more before the next one can begin.
        stack.start()
        hold(stack, later, "running")

    with Traffic(stack.gateway):
        run = stack.end_of(run_id)
    assert run["state"] == "promoted", run["because"]
    assert ask(stack.gateway).headers["x-ratchet-version"] == run["version_id"]
