"""Who is told of what, and for how long it is tried."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ratchet.core.notices import TRIED_FOR, Channel, Notice, Service, is_told, next_attempt
from ratchet.core.rollout import Stage

AT = datetime(2026, 11, 27, 3, 0, tzinfo=UTC)
NOTICE = Notice(
    id="rel_1.3.0", project="p", release_id="rel_1", run_id="run_1", candidate="v_1",
    from_stage=Stage.CANARY, to_stage=Stage.ROLLED_BACK, weight_percent=0.0, asks=False,
    because="errors", who="judge", at=AT,
)  # fmt: skip


def told(service: Service, *pair: Stage) -> bool:
    return is_told(Channel(service=service), *pair)


def test_each_change_of_state_is_told_and_no_change_of_weight() -> None:
    for service in (Service.SLACK, Service.WEBHOOK):
        assert told(service, Stage.STARTING, Stage.CANARY)
        assert not told(service, Stage.CANARY, Stage.CANARY)


def test_only_what_wakes_and_what_ends_it_is_paged() -> None:
    assert told(Service.PAGERDUTY, Stage.CANARY, Stage.ROLLED_BACK)
    assert told(Service.PAGERDUTY, Stage.CANARY, Stage.HELD)
    assert told(Service.PAGERDUTY, Stage.HELD, Stage.CANARY)
    assert told(Service.PAGERDUTY, Stage.CANARY, Stage.PROMOTED)
    assert not told(Service.PAGERDUTY, Stage.STARTING, Stage.SHADOW)


def test_what_wakes_is_a_rollback_or_a_question() -> None:
    asks = replace(NOTICE, to_stage=Stage.HELD, asks=True)

    assert (NOTICE.wakes, asks.wakes) == (True, True)
    assert not replace(NOTICE, to_stage=Stage.HELD).wakes
    assert NOTICE.headline == "p: release rel_1 is rolled back"
    assert asks.headline == "p: release rel_1 is held, a person must decide"


def test_it_is_tried_for_a_day_and_ever_more_slowly() -> None:
    now, attempts, pauses = AT, 0, []
    while True:
        attempts += 1
        again = next_attempt(AT, now, attempts)
        if again is None:
            break
        pauses.append((again - now).total_seconds())
        now = again

    assert pauses[:4] == [5.0, 10.0, 20.0, 40.0]
    assert max(pauses) == 900.0
    assert TRIED_FOR - timedelta(minutes=15) <= now - AT <= TRIED_FOR
