"""What asks for runs: which paths, which times, and what becomes of a run beside others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.triggers import (
    CatchUp,
    Concurrency,
    Entry,
    Merge,
    Push,
    Schedule,
    Standing,
    Triggers,
    due,
    enter,
    is_about,
    jitter,
    next_time,
    same_repository,
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("pattern", "path", "meant"),
    [
        ("data/**", "data/a/b.jsonl", True),
        ("data/**", "data.jsonl", False),
        ("data/*.jsonl", "data/a.jsonl", True),
        ("data/*.jsonl", "data/a/b.jsonl", False),
        ("**/evals/*.yaml", "evals/a.yaml", True),
        ("**/evals/*.yaml", "x/y/evals/a.yaml", True),
        ("ratchet.yaml", "ratchetXyaml", False),
        ("v?.yaml", "v1.yaml", True),
        ("**", "anything/at/all", True),
    ],
)
def test_paths_are_filtered_as_workflows_filter_them(
    pattern: str, path: str, *, meant: bool
) -> None:
    assert is_about([pattern], [path]) is meant


def test_without_a_filter_or_without_knowing_a_merge_is_meant() -> None:
    assert is_about([], ["README.md"])
    assert is_about(["data/**"], None)
    assert not is_about(["data/**"], [])
    assert is_about(["data/**", "*.yaml"], ["README.md", "ratchet.yaml"])


@pytest.mark.parametrize(
    "other",
    [
        "https://github.com/Acme/router.git",
        "https://github.com/acme/router/",
        "git@github.com:acme/router.git",
        "ssh://git@github.com/acme/router",
        "https://user:token@github.com/acme/router",
    ],
)
def test_a_repository_has_many_urls(other: str) -> None:
    assert same_repository("https://github.com/acme/router", other)
    assert not same_repository("https://github.com/acme/other", other)


def test_a_port_is_no_owner() -> None:
    assert same_repository(
        "https://git.example.org:8443/a/b", "https://git.example.org:8443/a/b.git"
    )
    assert not same_repository("https://git.example.org:8443/a/b", "https://git.example.org/a/b")


def test_a_push_is_one_run_for_a_commit() -> None:
    push = Push(repository="r", branch="main", before="", after="a" * 40, who="ana")

    assert push.key == f"commit-{'a' * 40}"


NIGHTLY = Schedule(cron="0 3 * * *")


def test_a_schedule_is_due_once_its_time_has_come() -> None:
    since = at("2026-11-26 12:00")

    assert due(NIGHTLY, since, at("2026-11-27 02:59")) is None
    assert due(NIGHTLY, since, at("2026-11-27 03:00")) == at("2026-11-27 03:00")
    assert due(NIGHTLY, at("2026-11-27 03:00"), at("2026-11-27 03:01")) is None


def test_of_times_that_were_missed_the_last_is_caught_up_or_none() -> None:
    since, now = at("2026-11-20 12:00"), at("2026-11-27 09:00")
    forgetful = Schedule(cron="0 3 * * *", catch_up=CatchUp.NONE)

    assert due(NIGHTLY, since, now) == at("2026-11-27 03:00")
    assert due(forgetful, since, now) is None
    assert due(forgetful, since, at("2026-11-27 03:04")) == at("2026-11-27 03:04") - timedelta(
        minutes=4
    )


def test_what_is_older_than_a_month_is_not_looked_through() -> None:
    minutely = Schedule(cron="* * * * *")

    assert due(minutely, at("2020-01-01 00:00"), at("2026-11-27 09:00")) == at("2026-11-27 09:00")
    assert due(Schedule(cron="0 0 1 1 *"), at("2020-01-01 00:00"), at("2026-11-27 09:00")) is None


def test_a_schedule_keeps_to_its_time_zone_through_the_change_of_clocks() -> None:
    berlin = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")

    assert next_time(berlin, at("2026-03-28 12:00")) == at("2026-03-29 01:00")  # 02:30 is not there
    assert next_time(berlin, at("2026-07-01 12:00")) == at("2026-07-02 00:30")
    assert next_time(berlin, at("2026-11-27 12:00")) == at("2026-11-28 01:30")


def test_jitter_puts_off_by_a_part_that_is_always_the_same() -> None:
    spread = Schedule(cron="0 3 * * *", jitter_seconds=3600)
    time = at("2026-11-27 03:00")
    later = jitter(spread, time)

    assert timedelta(0) < later < timedelta(hours=1)
    assert later != jitter(spread, time + timedelta(days=1))
    assert due(spread, at("2026-11-26 12:00"), time + later - timedelta(seconds=1)) is None
    assert due(spread, at("2026-11-26 12:00"), time + later) == time
    assert next_time(spread, time) == time + later


@pytest.mark.parametrize(
    ("cron", "timezone", "says"),
    [
        ("0 3 * *", "UTC", "expected like '0 3"),
        ("99 3 * * *", "UTC", "Bad minute"),
        ("0 0 */31 * 1L", "UTC", "there is no such time"),
        ("0 3 * * *", "Mars/Olympus", "'Mars/Olympus' is not known"),
        ("0 3 * * *", "../etc", "is not known"),
    ],
)
def test_a_schedule_that_is_none_is_refused(cron: str, timezone: str, says: str) -> None:
    with pytest.raises(Rejected, match=says):
        Schedule(cron=cron, timezone=timezone)


def test_a_merge_needs_to_know_where() -> None:
    with pytest.raises(Rejected, match=r"needs triggers\.repository"):
        Triggers(merge=Merge())
    assert Triggers(repository="/r", merge=Merge(branch="trunk")).branch == "trunk"
    assert Triggers(repository="/r").branch == "main"


QUEUED = Standing("q", "merge", is_queued=True)
RUNNING = Standing("r", "merge", is_queued=False)
RELEASED = Standing("l", "merge", is_queued=False, is_released=True)
BY_HAND = Standing("h", "person", is_queued=False)
SCHEDULED = Standing("s", "schedule", is_queued=True)


@pytest.mark.parametrize(
    ("kind", "standing", "concurrency", "entry"),
    [
        ("merge", [], Concurrency.SKIP, Entry()),
        ("merge", [QUEUED, RUNNING], Concurrency.QUEUE, Entry(supersedes=("q",))),
        ("merge", [QUEUED, RUNNING], Concurrency.SKIP, Entry(skipped_for="r")),
        ("merge", [QUEUED, SCHEDULED], Concurrency.SKIP, Entry(supersedes=("q",))),
        (
            "merge",
            [QUEUED, RUNNING],
            Concurrency.REPLACE,
            Entry(supersedes=("q",), cancels=("r",)),
        ),
        ("merge", [RELEASED, BY_HAND], Concurrency.REPLACE, Entry()),
        ("schedule", [SCHEDULED], Concurrency.QUEUE, Entry(skipped_for="s")),
        ("schedule", [SCHEDULED], Concurrency.REPLACE, Entry(supersedes=("s",))),
        ("schedule", [QUEUED, RUNNING], Concurrency.QUEUE, Entry()),
        ("person", [QUEUED, RUNNING], Concurrency.SKIP, Entry()),
        ("api", [RUNNING], Concurrency.REPLACE, Entry()),
    ],
)
def test_a_new_run_joins_those_that_have_not_ended(
    kind: str, standing: list[Standing], concurrency: Concurrency, entry: Entry
) -> None:
    assert enter(kind, standing, concurrency) == entry
