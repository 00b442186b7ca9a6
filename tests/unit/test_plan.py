"""What a training shall run on next, why, and what it has run on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.placement.availability import PUBLIC, chain_of
from ratchet.core.placement.forecast import foreseen
from ratchet.core.placement.market import Player, Zone
from ratchet.core.placement.plan import Facts, place, while_it_lasts
from ratchet.core.placement.replay import Seen
from ratchet.core.placement.table import Table, solve
from ratchet.core.placement.terms import Action, Machine, Situation, Terms
from ratchet.core.placement.timeline import (
    Piece,
    bar,
    cost_on_demand_usd,
    cost_usd,
    with_waits,
)
from ratchet.core.run import AttemptId
from ratchet.operations.placement import UNCERTAINTY, facts_of, zone_of_cluster
from ratchet.ports import Training

HOUR = 3600.0
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
DEADLINE = 8 * HOUR
FACTS = Facts(
    time_left_seconds=8 * HOUR,
    work_left_seconds=2 * HOUR,
    work_left_max_seconds=2 * HOUR,
    delay_seconds=360.0,
    machine=Machine.NONE,
    pending_seconds=0.0,
    zone="",
    spot_usd_per_hour=1.0,
    on_demand_usd_per_hour=3.0,
)
WISH = Place(
    capacity=Capacity.SPOT,
    deadline_seconds=8 * HOUR,
    usd_per_hour=3.0,
    spot_usd_per_hour=1.0,
)


def up(name: str = "a", hours: float = 2.0) -> Zone:
    return Zone(name, Seen(True, hours * HOUR))


def away(name: str = "a", hours: float = 0.1) -> Zone:
    return Zone(name, Seen(False, hours * HOUR))


# ---- the decision ----


def test_with_time_to_spare_spot_is_taken_and_waited_for() -> None:
    there, gone = place(FACTS, [up()], DEADLINE), place(FACTS, [away()], DEADLINE)

    assert (there.action, there.zone) == (Action.SPOT, "a")
    assert there.because.startswith("spot has been up in a for 2.0 h")
    assert there.usd_expected["spot"] < there.usd_expected["on_demand"]
    assert (gone.action, gone.zone) == (Action.WAIT, "")
    assert "waiting for it is the cheapest" in gone.because
    assert "spot" not in gone.usd_expected


def test_without_time_to_spare_only_what_stays_will_do() -> None:
    late = replace(FACTS, time_left_seconds=2 * HOUR + 400.0)

    assert place(late, [up()], DEADLINE).action is Action.ON_DEMAND
    unsure = replace(FACTS, work_left_max_seconds=7.9 * HOUR)
    found = place(unsure, [up()], DEADLINE)
    assert found.action is Action.ON_DEMAND
    assert found.because.startswith("no time to spare: only a machine that stays is in time")


def test_a_deadline_that_has_passed_is_hurried_on_what_there_is() -> None:
    over = replace(FACTS, time_left_seconds=-60.0)
    on_spot = replace(over, machine=Machine.SPOT, zone="a")

    assert place(over, [up()], DEADLINE).action is Action.ON_DEMAND
    kept = place(on_spot, [up()], DEADLINE)
    assert (kept.action, kept.zone) == (Action.SPOT, "a")
    assert "a new machine would be later" in kept.because


def test_it_stays_in_its_zone_and_else_goes_where_spot_is_oldest() -> None:
    zones = [up("a", 1.0), up("b", 9.0)]

    assert place(FACTS, zones, DEADLINE).zone == "b"
    assert place(replace(FACTS, machine=Machine.SPOT, zone="a"), zones, DEADLINE).zone == "a"
    gone = [away("a"), up("b", 9.0)]
    assert place(replace(FACTS, machine=Machine.SPOT, zone="a"), gone, DEADLINE).zone == "b"


def test_where_spot_was_dear_for_long_the_time_is_used_otherwise() -> None:
    dear = replace(
        FACTS, spot_usd_per_hour=2.99, delay_seconds=3600.0, time_left_seconds=3.6 * HOUR
    )

    found = place(dear, [away(hours=30.0)], DEADLINE)

    assert found.action is Action.ON_DEMAND


def test_a_machine_is_not_given_up_for_a_gain_that_nobody_can_know() -> None:
    young = Zone("a", Seen(True, 0.0, loss_factor=8.0))
    long_start = replace(FACTS, delay_seconds=2700.0, spot_usd_per_hour=2.0)
    assert place(long_start, [young], DEADLINE).action is Action.WAIT
    assert "until it has lasted" in place(long_start, [young], DEADLINE).because

    started = replace(long_start, machine=Machine.SPOT, zone="a", pending_seconds=300.0)
    assert place(started, [young], DEADLINE).action is Action.SPOT


def test_without_a_deadline_it_waits_for_spot_for_ever() -> None:
    assert while_it_lasts(FACTS, [up()]).action is Action.SPOT
    found = while_it_lasts(FACTS, [away()])
    assert (found.action, found.zone) == (Action.WAIT, "")


def test_a_table_tells_what_it_knows_only_if_it_kept_it() -> None:
    terms = Terms(
        delay_seconds=720.0, spot_usd_per_hour=1.0, on_demand_usd_per_hour=3.0, tick_seconds=600.0
    )
    chain = chain_of(PUBLIC, 600.0)
    table: Table = solve(chain, terms, 24, HOUR, keep_values=True)
    at = Situation(
        time_left_seconds=4 * HOUR,
        work_left_seconds=3.2 * HOUR,
        machine=Machine.ON_DEMAND,
        pending_seconds=0.0,
        spot_is_up=True,
        spot_age_seconds=HOUR,
        elapsed_seconds=0.0,
        work_done_seconds=0.0,
    )

    costs = table.costs(at, 5, chain)

    assert set(costs) == set(Action)
    assert min(costs, key=lambda action: costs[action]) is table.action(at, 5)
    assert table.costs(replace(at, time_left_seconds=0.0), 5, chain) == {}


# ---- what is known ----


def training(**given: object) -> Training:
    known = {"began_at": NOW, "estimated_seconds": None, "start_seconds": 30.0, **given}
    return Training(**known)  # type: ignore[arg-type]


def test_a_guess_of_the_work_may_be_twice_as_much_until_it_is_seen() -> None:
    guessed = facts_of(training(estimated_seconds=600.0), WISH, 1.0, NOW)
    seen = facts_of(training(progress={"seconds_left": 500.0}), WISH, 1.0, NOW)
    nothing = facts_of(training(), WISH, 1.0, NOW)

    assert (guessed.work_left_seconds, guessed.work_left_max_seconds) == (600.0, 1200.0)
    assert (seen.work_left_seconds, seen.work_left_max_seconds) == (500.0, 620.0)
    room = WISH.deadline_seconds - 30.0
    assert (nothing.work_left_seconds, nothing.work_left_max_seconds) == (
        room / UNCERTAINTY,
        room,
    )


def test_what_is_unknown_begins_on_a_machine_that_stays() -> None:
    facts = facts_of(training(), WISH, 1.0, NOW)

    assert place(facts, [up()], DEADLINE).action is Action.ON_DEMAND


def test_a_machine_that_starts_is_pending_and_one_that_works_is_not() -> None:
    spot = replace(WISH, zone="a")
    begun = training(attempt=AttemptId("att_1"), asked_at=NOW - timedelta(seconds=10), place=spot)

    starting = facts_of(begun, WISH, 1.0, NOW)
    working = facts_of(replace(begun, works=True), WISH, 1.0, NOW)

    assert (starting.machine, starting.zone) == (Machine.SPOT, "a")
    assert starting.pending_seconds == 20.0
    assert working.pending_seconds == 0.0
    stays = replace(begun, place=replace(spot, capacity=Capacity.ON_DEMAND))
    assert facts_of(stays, WISH, 1.0, NOW).machine is Machine.ON_DEMAND


IN_CLUSTER = replace(WISH, executor=Executor.KUBERNETES)


def test_in_a_cluster_a_deadline_is_the_trainings_where_both_prices_are_known() -> None:
    priceless = replace(IN_CLUSTER, spot_usd_per_hour=0.0)

    assert IN_CLUSTER.chooses
    assert not priceless.chooses
    # An evaluation waits for nothing, and is no training.
    assert IN_CLUSTER.at_once == replace(IN_CLUSTER, capacity=Capacity.ANY, deadline_seconds=0.0)
    assert priceless.at_once == priceless


def test_a_cluster_shows_spot_to_who_has_it() -> None:
    ago = NOW - timedelta(minutes=20)
    asks = training(attempt=AttemptId("at"), place=IN_CLUSTER, asked_at=ago)
    has = replace(asks, started_at=NOW - timedelta(minutes=5))
    lost = training(asked_at=ago, ended_at=NOW - timedelta(minutes=1))

    def seen(it: Training) -> tuple[bool, float]:
        zone = zone_of_cluster(it, NOW)
        return zone.seen.is_up, zone.seen.age_seconds

    assert seen(training()) == (False, 0.0)
    assert seen(asks) == (False, 1200.0)
    assert seen(has) == (True, 300.0)
    assert seen(lost) == (False, 60.0)


def test_a_machine_that_was_only_asked_for_is_none() -> None:
    """Nothing may be built on it: the Job may wait for a machine as long as it likes."""
    asked_at = NOW - timedelta(seconds=40)
    asks = training(attempt=AttemptId("at"), place=IN_CLUSTER, asked_at=asked_at)
    starts = replace(asks, started_at=NOW - timedelta(seconds=10))

    assert facts_of(asks, IN_CLUSTER, 1.0, NOW).machine is Machine.NONE
    starting = facts_of(starts, IN_CLUSTER, 1.0, NOW)
    assert starting.machine is Machine.SPOT
    assert starting.pending_seconds == starting.delay_seconds - 10.0


def test_a_played_market_has_more_seconds_and_its_hours_cost_less() -> None:
    played = facts_of(training(estimated_seconds=60.0), WISH, 60.0, NOW)

    assert played.work_left_seconds == 3600.0
    assert played.time_left_seconds == 480 * HOUR
    assert played.on_demand_usd_per_hour == pytest.approx(0.05)


# ---- the spec ----


def test_a_choice_needs_both_prices() -> None:
    with pytest.raises(Rejected, match=r"needs train\.usd_per_hour and"):
        Place(capacity=Capacity.SPOT, deadline_seconds=60.0, usd_per_hour=1.0)
    in_a_cluster = Place(
        executor=Executor.KUBERNETES, capacity=Capacity.SPOT, deadline_seconds=60.0
    )
    assert in_a_cluster.at_once == in_a_cluster
    assert WISH.at_once.capacity is Capacity.ANY
    assert WISH.at_once.deadline_seconds == 0.0


def test_what_a_training_will_cost_is_said_before() -> None:
    found = foreseen(2 * HOUR, 180.0, WISH, 1.0)

    assert found.problems == ()
    [note] = found.notes
    assert "2.00 h of work" in note
    assert "6.15 on demand" in note
    assert 2.0 < float(str(found.facts["estimated_usd"])) < 6.0


def test_a_deadline_too_short_is_refused_with_the_nearest_that_go() -> None:
    [problem] = foreseen(7.99 * HOUR, 180.0, WISH, 1.0).problems

    assert problem.startswith("train.deadline: found 8.00 h, too short for about 7.99 h of work")
    assert "Nearest: 8." in problem
    assert problem.count(" USD") == 3


def test_a_budget_too_small_is_refused_with_deadlines_that_fit_it() -> None:
    tight = replace(WISH, deadline_seconds=2.5 * HOUR, budget_usd=2.8)
    [problem] = foreseen(2 * HOUR, 180.0, tight, 1.0).problems
    assert "train.budget_usd: found 2.8" in problem
    assert "Within the budget: " in problem
    assert " h for " in problem

    [never] = foreseen(2 * HOUR, 180.0, replace(tight, budget_usd=0.5), 1.0).problems
    assert never.endswith("no deadline makes it cheap enough")


# ---- the market ----


def test_a_player_repeats_and_is_as_fast_as_asked() -> None:
    player = Player(
        names=("a", "b"),
        series=((True, True, False), (False, False, True)),
        tick_seconds=600.0,
        began_at=NOW,
        speed=60.0,
    )

    seen = [player.is_up("a", NOW + timedelta(seconds=10 * tick)) for tick in range(6)]
    assert seen == [True, True, False, True, True, False]
    assert player.tick(NOW - timedelta(days=1)) == 0
    later = {zone.name: zone.seen for zone in player.zones(NOW + timedelta(seconds=10), PUBLIC)}
    assert later["a"].is_up
    assert later["a"].age_seconds == 600.0
    assert not later["b"].is_up


# ---- the timeline ----


def at(minute: int) -> datetime:
    return NOW + timedelta(minutes=minute)


def test_a_timeline_shows_waits_and_costs_machines() -> None:
    spot = Piece(
        kind="spot", zone="a", began_at=at(10), ended_at=at(40), end="preempted", usd_per_hour=1.0
    )
    stays = Piece(
        kind="on_demand", zone="", began_at=at(50), ended_at=at(60), end="", usd_per_hour=3.0
    )

    pieces = with_waits([spot, stays], at(0))

    assert [piece.kind for piece in pieces] == ["waits", "spot", "waits", "on_demand"]
    assert bar(pieces, 6) == ".sss.D"
    assert cost_usd(pieces) == pytest.approx(1.0)
    assert cost_on_demand_usd(pieces, 3.0) == pytest.approx(2.0)
    assert bar([], 6) == ""
    assert with_waits([spot], at(10)) == [spot]
