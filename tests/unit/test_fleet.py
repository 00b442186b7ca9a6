"""Machines that projects share: who gets a slot, who waits, who leaves, and what is said of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.fleet.answer import Grant, answer, check_slots
from ratchet.core.fleet.claims import Claim, Pool, Share
from ratchet.core.fleet.plan import AGING_SECONDS, PATIENCE_SECONDS, decide
from ratchet.core.fleet.replay import Arrival, Fleet, run_fleet, tabled
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.placement.replay import HOUR, Seen
from ratchet.core.placement.rules import greedy
from tests.fleets import TERMS, TICK, play, play_looks

SPOT, STAYS = Capacity.SPOT, Capacity.ON_DEMAND
POOL = Pool(name="gpus", spot=2, on_demand=1)


def claim(run: str, **given: object) -> Claim:
    """One that waits for spot, unless it is said to be something else."""
    values: dict[str, object] = {"project": "p", "wants": SPOT, "work_left_seconds": HOUR}
    return Claim(run=run, **{**values, **given})  # type: ignore[arg-type]


def working(run: str, kind: Capacity = SPOT, **given: object) -> Claim:
    return claim(run, **{"wants": kind, "alive": kind, "granted": kind, **given})


def told(run: str, pool: Pool, *claims: Claim, **shares: Share) -> Grant:
    return answer(run, pool, claims, shares)


def test_slots_are_given_while_there_are_some_and_the_rest_wait() -> None:
    claims = [claim("a", waiting_seconds=3.0), claim("b", waiting_seconds=2.0), claim("c")]

    plan = decide(POOL, claims, {})

    assert plan.granted == {"a": SPOT, "b": SPOT}
    assert told("c", POOL, *claims) == Grant(
        None, False, "pool gpus: waits for 1 spot slot, 2 before it; 0 of 2 spot slots taken"
    )


def test_what_was_granted_is_kept_until_its_worker_is_asked_for() -> None:
    granted = claim("a", granted=SPOT)

    assert told("a", POOL, granted, claim("b"), claim("c")).kind is SPOT
    assert decide(POOL, [granted, claim("b"), claim("c")], {}).granted.keys() == {"a", "b"}


def test_what_is_not_wanted_any_more_is_free_again_once_its_run_says_so() -> None:
    """Until then a worker may have been asked for."""
    given = claim("a", wants=None, granted=SPOT)
    others = [claim("b"), claim("c")]

    assert decide(POOL, [given, *others], {}).granted == {"a": SPOT, "b": SPOT}
    said = given.at_its_look
    assert decide(POOL, [said, *others], {}).granted == {"b": SPOT, "c": SPOT}
    assert told("a", POOL, said, *others).because == "pool gpus: asks for nothing now"
    assert claim("a", granted=SPOT).at_its_look.granted is SPOT
    assert working("a", wants=None).at_its_look.granted is SPOT


def test_what_an_urgent_run_was_given_is_not_given_to_another_before_its_worker_is_there() -> None:
    """It was given a machine that stays although it wants spot, and has not looked since."""
    given = claim("a", granted=STAYS, time_left_seconds=30 * HOUR)
    due = claim("b", wants=STAYS, time_left_seconds=HOUR)

    assert "b" not in decide(POOL, [given, due], {}).granted
    assert decide(POOL, [given, due], {}).leaves == {"a": "b"}


def test_nothing_is_given_to_whom_a_worker_still_leaves() -> None:
    leaving = claim("a", alive=SPOT, granted=None)

    grant = told("a", POOL, leaving)

    assert (grant.kind, grant.leaves) == (None, True)
    assert grant.because == "pool gpus: waits until its worker has left"
    assert decide(POOL, [leaving, working("b"), claim("c")], {}).granted == {"b": SPOT}


def test_a_move_needs_the_new_slot_before_the_old_is_given_up() -> None:
    mover = working("a", STAYS, wants=SPOT)

    assert told("a", POOL, mover).kind is SPOT
    full = told("a", POOL, mover, working("b"), working("c"))
    assert (full.kind, full.leaves) == (STAYS, False)


def test_who_would_be_late_otherwise_starts_where_it_need_not_wait_for_spot() -> None:
    due = claim("a", wants=None, time_left_seconds=HOUR + 200.0)

    grant = told("a", POOL, due)

    assert grant == Grant(
        STAYS,
        False,
        "pool gpus: 0 of 1 on-demand slots taken: with all that is due, it cannot wait any longer",
    )


def test_who_would_be_late_takes_spot_where_no_machine_that_stays_is_free() -> None:
    due = claim("a", wants=STAYS, time_left_seconds=HOUR, sees_spot=True)
    taken = working("b", STAYS, may_leave=False)

    assert decide(POOL, [due, taken], {}).granted == {"a": SPOT, "b": STAYS}
    blind = replace(due, sees_spot=False)
    assert decide(POOL, [blind, taken], {}).granted == {"b": STAYS}


def test_who_is_on_spot_and_must_move_has_a_machine_that_stays_asked_for() -> None:
    """Spot that is free besides is not what it lacks."""
    mover = working("a", wants=STAYS, sees_spot=True, time_left_seconds=HOUR)
    later = working("b", STAYS, time_left_seconds=20 * HOUR)

    plan = decide(POOL, [mover, later], {})

    assert plan.granted == {"a": SPOT}
    assert plan.leaves == {"b": "a"}


def test_two_that_are_due_at_once_cannot_both_wait_for_the_last_slot() -> None:
    """Each alone has an hour to spare; on one machine, one after the other, neither has."""
    claims = [claim(run, wants=None, time_left_seconds=2 * HOUR + 200.0) for run in "ab"]

    assert decide(POOL, claims[:1], {}).granted == {}
    assert decide(POOL, claims, {}).granted == {"a": STAYS}


def test_where_there_is_no_spot_nobody_waits_for_it() -> None:
    pool = Pool(name="gpus", spot=0, on_demand=1)

    assert decide(pool, [claim("a", wants=None, time_left_seconds=1e6)], {}).granted == {"a": STAYS}


def test_where_machines_that_stay_are_without_number_nobody_is_pressed() -> None:
    pool = Pool(name="gpus", spot=1)
    due = claim("a", wants=None, time_left_seconds=HOUR)

    assert decide(pool, [due], {}).granted == {}
    assert told("a", pool, replace(due, wants=STAYS)).because == (
        "pool gpus: 0 of any number of on-demand slots taken"
    )


def test_who_is_due_first_has_others_leave_who_are_due_later() -> None:
    later = working("later", STAYS, time_left_seconds=20 * HOUR)
    due = claim("due", wants=STAYS, time_left_seconds=HOUR + 100.0)

    grant = told("later", POOL, later, due)

    assert (grant.kind, grant.leaves) == (None, True)
    assert grant.because == "pool gpus: due of p would be late otherwise"
    first = working("first", STAYS, time_left_seconds=0.5 * HOUR)
    assert not told("first", POOL, first, due).leaves


def test_a_higher_priority_has_the_lowest_leave_and_an_equal_one_waits() -> None:
    low, lower = working("low", priority=1), working("lower", priority=0)

    assert told("lower", POOL, low, lower, claim("high", priority=2)) == Grant(
        None, True, "pool gpus: high of p has a higher priority"
    )
    assert not told("low", POOL, low, lower, claim("high", priority=2)).leaves
    assert decide(POOL, [low, lower, claim("equal", priority=0)], {}).leaves == {}


def test_an_evaluation_is_never_asked_to_leave() -> None:
    keeps = working("keeps", STAYS, may_leave=False)
    due = claim("due", wants=STAYS, time_left_seconds=HOUR + 100.0, priority=5)

    assert decide(POOL, [keeps, due], {}).leaves == {}


def test_slots_of_workers_that_leave_are_for_whom_they_leave() -> None:
    leaving = claim("a", alive=STAYS, granted=None, wants=STAYS)
    due = claim("due", wants=STAYS, time_left_seconds=HOUR + 100.0)
    small = working("small", STAYS)
    pool = Pool(name="gpus", on_demand=2)

    assert decide(pool, [leaving, small, due], {}).leaves == {}, "one leaves already"


def test_a_large_claim_that_has_waited_is_not_overtaken_by_small_ones() -> None:
    pool = Pool(name="gpus", spot=3)
    there = working("there", slots=2)
    large = claim("large", slots=2, waiting_seconds=PATIENCE_SECONDS - 1.0)
    small = claim("small", work_left_seconds=HOUR + 1.0)

    assert decide(pool, [there, large, small], {}).granted.keys() == {"there", "small"}
    patient = replace(large, waiting_seconds=PATIENCE_SECONDS)
    assert decide(pool, [there, patient, small], {}).granted.keys() == {"there"}
    gone_by_then = replace(small, work_left_seconds=HOUR - 1.0)
    assert decide(pool, [there, patient, gone_by_then], {}).granted.keys() == {"there", "small"}
    unknown = replace(small, work_left_seconds=0.0)
    assert decide(pool, [there, patient, unknown], {}).granted.keys() == {"there"}


def test_what_a_pool_can_never_hold_is_in_nobodys_way() -> None:
    huge = claim("huge", slots=9, waiting_seconds=1e6)

    assert decide(POOL, [huge, claim("b")], {}).granted == {"b": SPOT}


def test_whoever_waits_comes_first_in_the_end() -> None:
    pool = Pool(name="gpus", spot=1)
    old = claim("old", waiting_seconds=AGING_SECONDS + 1.0)

    assert decide(pool, [claim("new", priority=1), old], {}).granted == {"old": SPOT}
    new = claim("new", priority=2)
    assert decide(pool, [new, old], {}).granted == {"new": SPOT}


def test_the_project_that_had_least_for_its_weight_comes_first() -> None:
    pool = Pool(name="gpus", spot=1)
    claims = [claim("a", project="a"), claim("b", project="b")]
    had = {"a": Share(used_slot_seconds=100.0), "b": Share(used_slot_seconds=150.0, weight=2.0)}

    assert decide(pool, claims, had).granted == {"b": SPOT}


def test_a_project_whose_budget_is_spent_leaves_and_waits_for_the_next_month() -> None:
    spent = {"p": Share(usd_spent=10.0, usd_per_month=10.0)}

    grant = told("a", POOL, working("a"), claim("b", project="other"), **spent)

    assert grant == Grant(None, True, "pool gpus: p has used its 10 USD of this month")
    assert not told("a", POOL, working("a"), p=Share(usd_spent=9.9, usd_per_month=10.0)).leaves


def test_what_a_spent_project_was_given_is_free_once_its_run_has_looked() -> None:
    """Its worker may have been asked for before its budget was made smaller."""
    given, other = claim("a", granted=STAYS, wants=STAYS), claim("b", wants=STAYS, project="q")
    spent = {"p": Share(usd_spent=10.0, usd_per_month=10.0)}

    assert decide(POOL, [given, other], spent).granted == {}
    assert told("a", POOL, given, other, **spent).kind is None
    assert decide(POOL, [replace(given, granted=None), other], spent).granted == {"b": STAYS}


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        (Place(gpus=4, executor=Executor.KUBERNETES, pool="gpus"), "4 on-demand slots"),
        (Place(capacity=SPOT, gpus=3, executor=Executor.KUBERNETES, pool="gpus"), "3 spot slots"),
    ],
)
def test_what_a_pool_will_never_have_is_refused_before(wish: Place, found: str) -> None:
    with pytest.raises(Rejected, match=f"needs {found}, and pool gpus has"):
        check_slots(wish, POOL)


def test_a_priority_without_a_pool_is_refused() -> None:
    with pytest.raises(Rejected, match=r"train\.priority needs train\.pool"):
        Place(priority=1)


def test_what_a_pool_has_is_let_through() -> None:
    check_slots(Place(pool="gpus"), POOL)
    check_slots(Place(pool="gpus", gpus=9, executor=Executor.KUBERNETES), Pool(name="gpus"))


@pytest.mark.parametrize("seed", range(12))
def test_a_random_fleet_never_has_more_than_there_is_and_nobody_leaves_for_nothing(
    seed: int,
) -> None:
    played = play(seed)

    assert played.watched.plans
    assert played.watched.faults == []


@pytest.mark.parametrize("seed", range(20))
def test_runs_that_look_one_by_one_never_use_more_than_there_is(seed: int) -> None:
    assert play_looks(seed) == []


@pytest.mark.parametrize("seed", range(6))
def test_nobody_is_late_where_there_is_a_machine_for_everybody(seed: int) -> None:
    played = play(seed, ample=True)

    assert (played.late, played.watched.faults) == ([], [])


@pytest.mark.parametrize("seed", range(6))
def test_a_budget_is_overrun_by_no_more_than_a_look(seed: int) -> None:
    played = play(seed, budget=True)

    mine = [arrival for arrival in played.arrivals if arrival.project == "project-0"]
    a_look = sum(arrival.slots for arrival in mine) * 3.0 * TICK / HOUR
    assert played.budget_usd is not None
    assert played.fleet.shares["project-0"].usd_spent <= played.budget_usd + a_look
    assert played.watched.faults == []


def test_over_time_projects_have_what_their_weights_say() -> None:
    """Three that always want more than there is, of jobs of any size."""
    chance = random.Random(5)
    weights = {"one": 1.0, "two": 2.0, "three": 3.0}
    arrivals = [
        Arrival(
            name=f"{project}-{number}",
            project=project,
            at_seconds=0.0,
            work_seconds=chance.uniform(0.2, 3.0) * HOUR,
            deadline_seconds=None,
            slots=chance.choice([1, 1, 2]),
        )
        for project in weights
        for number in range(100)
    ]
    pool = Pool(name="p", spot=4, on_demand=0)
    fleet = Fleet(pool, {name: Share(weight=weight) for name, weight in weights.items()}, TICK)

    outcomes = run_fleet(fleet, arrivals, [Seen(True, HOUR)] * 250, TERMS, greedy)

    had = dict.fromkeys(weights, 0.0)
    for arrival in arrivals:
        had[arrival.project] += outcomes[arrival.name].spot_seconds * arrival.slots
    for project, weight in weights.items():
        assert had[project] / sum(had.values()) == pytest.approx(weight / 6.0, abs=0.02)


def test_each_job_asks_the_table_of_its_time() -> None:
    """With time to spare it waits for spot that is away; without, the guard has it begin."""
    away = [Seen(False, TICK)] * 3
    pool = Pool(name="p", spot=1)
    arrivals = [
        Arrival(
            name=name,
            project="p",
            at_seconds=0.0,
            work_seconds=HOUR,
            deadline_seconds=hours * HOUR,
        )
        for name, hours in (("pressed", 1.2), ("leisurely", 9.0))
    ]
    fleet = Fleet(pool, {"p": Share()}, TICK)

    run_fleet(fleet, arrivals, away, TERMS, tabled(TERMS))

    assert {member.arrival.name: member.alive for member in fleet.members} == {
        "pressed": STAYS,
        "leisurely": None,
    }
    assert [member.began_at for member in fleet.members] == [0.0, None]


def test_a_large_job_comes_to_its_turn_in_a_stream_of_small_ones() -> None:
    pool = Pool(name="p", spot=4, on_demand=0)
    small = [
        Arrival(
            name=f"small-{number}",
            project="p",
            at_seconds=number * TICK / 2,
            work_seconds=HOUR,
            deadline_seconds=None,
        )
        for number in range(200)
    ]
    large = replace(small[0], name="large", at_seconds=HOUR, slots=4)
    fleet = Fleet(pool, {"p": Share()}, TICK)

    outcomes = run_fleet(fleet, [*small, large], [Seen(True, HOUR)] * 90, TERMS, greedy)

    assert outcomes["large"].late_seconds == 0.0
    assert len(outcomes) < len(small), "the stream had not ended"
