"""When to work and on what: the rates, the table, the guard, the bound and the replay of them."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.core.placement import rules
from ratchet.core.placement.availability import (
    AGE_EDGES_SECONDS,
    AGES,
    NODES,
    Availability,
    Frailty,
    Spell,
    chain_of,
    fit,
    fit_zones,
    node_of,
    spells_of,
)
from ratchet.core.placement.bound import least_usd
from ratchet.core.placement.guard import guarded, is_safe
from ratchet.core.placement.policy import Tables
from ratchet.core.placement.replay import HOUR, Guess, Job, Seen, replay, watched
from ratchet.core.placement.table import LATE, Grid, solve
from ratchet.core.placement.terms import Action, Machine, Situation, Terms

TICK = 600.0
GUESSED = Availability((0.5,) * AGES, (0.5,) * AGES)
RULES = [rules.on_demand_only, rules.greedy, rules.uniform_progress, rules.levi]


def terms(delay_minutes: float = 12.0, handover_minutes: float | None = 2.0) -> Terms:
    return Terms(
        delay_seconds=60 * delay_minutes,
        spot_usd_per_hour=1.0,
        on_demand_usd_per_hour=3.0,
        tick_seconds=TICK,
        handover_seconds=None if handover_minutes is None else 60 * handover_minutes,
    )


def seen(series: Sequence[bool]) -> list[Seen]:
    return watched(series, TICK, GUESSED)


def flips(seed: int, ticks: int, up: float = 0.1, down: float = 0.2) -> list[bool]:
    """A series that is lost and comes back with constant chances a tick."""
    chance, found = random.Random(seed), [True]
    while len(found) < ticks:
        found.append(chance.random() >= up if found[-1] else chance.random() < down)
    return found


# ---- the rates ----


def test_spells_are_runs_of_equal_answers() -> None:
    assert spells_of([True, True, False, True], 600.0) == [
        Spell(True, 1200.0, has_ended=True),
        Spell(False, 600.0, has_ended=True),
        Spell(True, 600.0, has_ended=False),
    ]


def test_nothing_seen_is_no_spell() -> None:
    assert spells_of([], 600.0) == []


def test_constant_chances_are_found_at_every_age_that_was_seen() -> None:
    model = fit([spells_of(flips(1, 200_000), TICK)], TICK)

    for rates, chance in ((model.up_per_hour, 0.1), (model.down_per_hour, 0.2)):
        expected = -math.log1p(-chance) * HOUR / TICK
        assert rates[:6] == pytest.approx([expected] * 6, rel=0.1)


def test_without_history_the_guess_stands_and_with_little_it_is_near() -> None:
    assert fit([], TICK).up_per_hour == pytest.approx(GUESSED.up_per_hour, rel=0.05)

    little = fit([[Spell(True, 7200.0, has_ended=True)]], TICK)

    assert all(0.3 < rate < 0.8 for rate in little.up_per_hour)


@pytest.mark.parametrize("tick", [195.0, 600.0, 1200.0])
def test_a_chain_is_one_and_keeps_no_machine_where_spot_is_down(tick: float) -> None:
    chain = chain_of(GUESSED, tick)

    assert chain.moves.sum(axis=1) == pytest.approx(np.ones(NODES))
    assert not chain.dies[AGES:].any()
    assert not chain.survives[:AGES, AGES:].any()


def test_a_spell_of_the_chain_lasts_as_long_as_the_rates_say() -> None:
    chain = chain_of(GUESSED, TICK)
    up = chain.survives[:AGES, :AGES]

    ticks = np.linalg.solve(np.eye(AGES) - up, np.ones(AGES))

    a_tick = 1.0 - math.exp(-GUESSED.up_per_hour[0] * TICK / HOUR)
    assert ticks == pytest.approx([1.0 / a_tick] * AGES)


def test_a_zone_that_changes_more_often_is_noticed_and_forgotten() -> None:
    frailty = Frailty()
    assert frailty.factor(True) == frailty.factor(False) == 1.0

    for _ in range(40):
        frailty.see(GUESSED, True, 0.0, TICK, has_changed=True)
    often = frailty.factor(True)
    frailty.see(GUESSED, False, 0.0, 30 * 86_400.0, has_changed=False)

    assert often > 5
    assert frailty.factor(True) == pytest.approx(1.0, abs=0.05)


def test_of_two_zones_the_older_is_held_and_its_loss_leads_to_the_other() -> None:
    # The second is up whenever the first goes.
    first = ([True] * 20 + [False] * 4) * 200
    second = ([False] * 10 + [True] * 14) * 200

    both = fit_zones([first, second], TICK)
    alone = fit_zones([first], TICK)

    assert sum(both.after_loss[:AGES]) > 0.9
    assert alone.after_loss[AGES] == pytest.approx(1.0)
    assert sum(alone.after_loss) == pytest.approx(1.0)


def test_one_zone_by_itself_is_fitted_alike_either_way() -> None:
    series = flips(3, 5_000)

    alone, together = fit([spells_of(series, TICK)], TICK), fit_zones([series], TICK)

    assert together.up_per_hour == pytest.approx(alone.up_per_hour, rel=0.05)
    assert together.down_per_hour == pytest.approx(alone.down_per_hour, rel=0.05)


def test_nodes_are_numbered_by_state_and_age() -> None:
    assert node_of(True, 0.0) == 0
    assert node_of(False, 0.0) == AGES
    assert node_of(True, AGE_EDGES_SECONDS[0]) == 1
    assert node_of(False, 1e9) == NODES - 1


# ---- never late ----


@settings(max_examples=300, deadline=None)
@given(
    up=st.lists(st.booleans(), min_size=30, max_size=30),
    wishes=st.lists(st.sampled_from(list(Action)), min_size=31, max_size=31),
    work_minutes=st.integers(1, 200),
    spare_minutes=st.integers(0, 80),
    delay_minutes=st.sampled_from([1.2, 3.0, 10.0, 12.0, 24.0]),
)
def test_whatever_is_wished_and_whatever_comes_nobody_is_late(
    up: list[bool],
    wishes: list[Action],
    work_minutes: int,
    spare_minutes: int,
    delay_minutes: float,
) -> None:
    told = iter(wishes * 10)
    deadline = 60.0 * (work_minutes + delay_minutes + spare_minutes)

    out = replay(
        lambda _at, _terms: next(told),
        [seen(up)],
        60.0 * work_minutes,
        deadline,
        terms(delay_minutes),
    )

    assert out.late_seconds == pytest.approx(0.0, abs=1e-3)


def test_what_cannot_be_in_time_on_demand_is_hurried() -> None:
    out = replay(rules.greedy, [seen([False] * 10)], 3600.0, 3000.0, terms())

    assert out.on_demand_seconds == 3600.0 + 720.0
    assert out.late_seconds == pytest.approx(1320.0)


def test_spot_that_works_is_kept_when_a_new_machine_would_be_late_anyway() -> None:
    at = Situation(
        time_left_seconds=3600.0,
        work_left_seconds=3500.0,
        machine=Machine.SPOT,
        pending_seconds=0.0,
        spot_is_up=True,
        spot_age_seconds=0.0,
        elapsed_seconds=0.0,
        work_done_seconds=0.0,
    )
    assert guarded(Action.ON_DEMAND, at, terms()) is Action.ON_DEMAND
    assert guarded(Action.WAIT, at, terms()) is Action.SPOT


def test_work_that_is_done_is_safe_anyhow() -> None:
    at = Situation(
        time_left_seconds=0.0,
        work_left_seconds=0.0,
        machine=Machine.NONE,
        pending_seconds=0.0,
        spot_is_up=False,
        spot_age_seconds=0.0,
        elapsed_seconds=0.0,
        work_done_seconds=0.0,
    )
    assert all(is_safe(action, at, terms()) for action in Action)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_wrong_guess_of_the_work_makes_nobody_late(factor: float) -> None:
    guess = Guess(factor, 2.0, known_after_seconds=900.0)
    for seed in range(20):
        zone = seen(flips(seed, 90))
        deadline = 2 * 3 * HOUR + 1440.0
        out = replay(rules.greedy, [zone], 3 * HOUR, deadline, terms(), guess)
        assert out.late_seconds == pytest.approx(0.0, abs=1e-3)


def test_a_job_goes_on_where_the_series_ends() -> None:
    out = replay(rules.greedy, [seen([False] * 3)], 3600.0, 9000.0, terms())

    assert out.on_demand_seconds == 3600.0 + 720.0


# ---- what a replay costs ----


def test_machines_are_paid_from_their_order_to_the_end_of_the_work() -> None:
    out = replay(rules.on_demand_only, [seen([True] * 10)], 3600.0, 6000.0, terms())

    assert out.usd == pytest.approx((3600.0 + 720.0) / HOUR * 3.0)
    assert (out.launches, out.preemptions, out.late_seconds) == (1, 0, 0.0)


def test_whole_ticks_are_billed_where_bills_are_so() -> None:
    whole = Terms(
        delay_seconds=720.0,
        spot_usd_per_hour=1.0,
        on_demand_usd_per_hour=3.0,
        tick_seconds=TICK,
        bills_whole_ticks=True,
    )
    out = replay(rules.on_demand_only, [seen([True] * 10)], 3600.0, 6000.0, whole)

    assert out.usd == pytest.approx(8 * TICK / HOUR * 3.0)
    assert least_usd([[False] * 10], 3600.0, 6000.0, whole) == pytest.approx(out.usd, rel=1e-4)


def test_lost_spot_is_paid_until_it_goes_and_its_delay_again() -> None:
    # Two ticks of spot: 720 s of delay, 480 s of work; then it is lost, and comes back.
    up = [True, True, False, True, True, True, True, True, True]
    out = replay(rules.greedy, [seen(up)], 1200.0, 20_000.0, terms())

    assert out.preemptions == 1
    assert out.spot_seconds == pytest.approx(1200.0 + 720.0 + 720.0)
    assert out.usd == pytest.approx(out.spot_seconds / HOUR)


def test_an_overlap_pays_both_until_the_spot_machine_can_work() -> None:
    plan = iter([Action.ON_DEMAND] * 3 + [Action.OVERLAP] * 2 + [Action.SPOT] * 20)
    out = replay(lambda *_: next(plan), [seen([True] * 30)], 7200.0, 90_000.0, terms())

    # 12 minutes of both; then spot alone, which repeats the two minutes of the hand-over.
    assert out.on_demand_seconds == pytest.approx(3 * TICK + 720.0)
    total = 720.0 + 7200.0 + 120.0 + 720.0
    assert out.on_demand_seconds + out.spot_seconds == pytest.approx(total)
    assert out.launches == 2


def test_a_job_stays_in_its_zone_and_moves_to_the_one_that_has_been_up_for_longest() -> None:
    zones = [
        [True, True, True, False, False, False, False, False, False, False],
        [False, True, True, True, True, True, True, True, True, True],
        [False, False, True, True, True, True, True, True, True, True],
    ]
    job = Job(1e6, 2e6, terms())
    held = []
    for ticks in zip(*[seen(zone) for zone in zones], strict=True):
        job.look(ticks)
        job.act(Action.SPOT)
        held.append(job.zone)

    assert held == [0, 0, 0] + [1] * 7


# ---- the bound ----


def can(job: Job, action: Action, zone_is_up: bool, how: Terms) -> bool:
    """What there is to choose from: the table has the same actions."""
    if action in (Action.SPOT, Action.OVERLAP) and not zone_is_up:
        return False
    if job.machine is Machine.BOTH:
        return action in (Action.ON_DEMAND, Action.OVERLAP)
    works = job.machine is Machine.ON_DEMAND and job.pending_seconds <= 0
    return action is not Action.OVERLAP or (works and how.handover_seconds is not None)


def in_zone(job: Job, zone: int, views: Sequence[Seen]) -> Job | None:
    """The same job, whose next spot machine is in the zone; None if that cannot be."""
    then = copy.deepcopy(job)
    if then.machine in (Machine.SPOT, Machine.BOTH) and not views[then.zone].is_up:
        then.look(views)
    elif then.zone != zone and then.machine is Machine.BOTH:
        return None
    elif then.zone != zone and then.machine is Machine.SPOT:
        then.machine, then.pending_seconds = Machine.NONE, 0.0
    then.zone = zone
    return then


def brute_force(up: Sequence[Sequence[bool]], work: float, deadline: float, how: Terms) -> float:
    """The cheapest of all that can be done, by doing it."""

    def least(job: Job, tick: int) -> float:
        if job.left_seconds <= 1e-6:
            return job.outcome.usd if job.elapsed_seconds <= deadline + 1e-6 else math.inf
        if tick == len(up[0]):
            return math.inf
        views = [Seen(zone[tick], 0.0) for zone in up]
        found = math.inf
        for zone, action in itertools.product(range(len(up)), Action):
            then = in_zone(job, zone, views)
            if then is not None and can(then, action, views[zone].is_up, how):
                then.act(action)
                found = min(found, least(then, tick + 1))
        return found

    return least(Job(work, deadline, how), 0)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("handover", [None, 2.0])
def test_the_bound_is_what_trying_everything_finds(seed: int, handover: float | None) -> None:
    chance = random.Random(seed)
    ticks = 6
    up = [[chance.random() < 0.6 for _ in range(ticks)]]
    how = terms(chance.choice([3.0, 10.0, 12.0]), handover)
    work = TICK * chance.choice([1, 2, 2.5, 3])

    found = least_usd(up, work, ticks * TICK, how)

    assert found == pytest.approx(brute_force(up, work, ticks * TICK, how), rel=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_chooses_among_zones(seed: int) -> None:
    chance = random.Random(seed)
    up = [[chance.random() < 0.5 for _ in range(5)] for _ in range(2)]
    how = terms(3.0, None)

    found = least_usd(up, 2 * TICK, 5 * TICK, how)

    assert found == pytest.approx(brute_force(up, 2 * TICK, 5 * TICK, how), rel=1e-4)


def test_what_cannot_be_done_in_time_costs_as_much_as_being_late() -> None:
    assert least_usd([[True] * 3], 3 * TICK, 3 * TICK, terms()) >= LATE


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rule=st.sampled_from(RULES))
def test_nobody_beats_the_bound(seed: int, rule: Callable[[Situation, Terms], Action]) -> None:
    up, how = flips(seed, 60), terms(12.0, None)

    out = replay(rule, [seen(up)], 5 * HOUR, 8 * HOUR, how)

    assert out.usd >= least_usd([up], 5 * HOUR, 8 * HOUR, how) - 1e-4


# ---- the table ----


def constant(up: float, down: float) -> Availability:
    """Rates that give these chances a tick."""
    return Availability(*((-math.log1p(-chance) * HOUR / TICK,) * AGES for chance in (up, down)))


def test_the_table_expects_what_it_costs() -> None:
    model, how = constant(0.1, 0.2), terms()
    table = solve(chain_of(model, TICK), how, 48, 3 * HOUR, keep_values=True)
    tables = Tables(model, how, 8 * HOUR, 3 * HOUR, is_adaptive=False)
    costs = [
        replay(tables.wish, [seen(flips(seed, 48))], 5 * HOUR, 8 * HOUR, how).usd
        for seed in range(400)
    ]
    assert table.values is not None
    row = round(3 * HOUR / table.grid.row_seconds)
    expected = table.values[48, row, 0, node_of(True, 0.0)]

    error = np.std(costs) / math.sqrt(len(costs))
    assert abs(float(np.mean(costs)) - expected) < 3 * error


def test_the_table_costs_less_than_every_simple_rule() -> None:
    model, how = constant(0.1, 0.2), terms()
    tables = Tables(model, how, 8 * HOUR, 3 * HOUR, is_adaptive=False)
    series = [seen(flips(seed, 48)) for seed in range(150)]

    def mean(rule: Callable[[Situation, Terms], Action]) -> float:
        return float(
            np.mean([replay(rule, [zone], 5 * HOUR, 8 * HOUR, how).usd for zone in series])
        )

    ours = mean(tables.wish)
    assert all(ours < mean(rule) for rule in RULES)


def test_where_spot_is_always_there_nobody_waits_and_where_it_never_is_nobody_hopes() -> None:
    how = terms()
    always = Tables(constant(1e-5, 0.9), how, 8 * HOUR, 3 * HOUR, is_adaptive=False)
    never = Tables(constant(0.99, 1e-5), how, 8 * HOUR, 3 * HOUR, is_adaptive=False)

    steady = replay(always.wish, [seen([True] * 60)], 5 * HOUR, 8 * HOUR, how)
    away = replay(never.wish, [seen([False] * 60)], 5 * HOUR, 8 * HOUR, how)

    assert set(steady.actions) == {Action.SPOT}
    assert away.usd == pytest.approx(3.0 * 5.2)


@pytest.mark.parametrize("delay_minutes", [1.2, 3.0, 6.0, 12.0, 18.0, 24.0])
def test_a_grid_meets_its_delay_nearly_and_knows_each_rest(delay_minutes: float) -> None:
    grid = Grid.of(terms(delay_minutes))

    assert grid.delay * grid.row_seconds == pytest.approx(60 * delay_minutes, rel=0.05)
    pending = 60 * delay_minutes
    while pending > 0:
        pending = max(0.0, pending - TICK)
        _, rest = grid.states[grid.nearest_state(Machine.SPOT, pending)]
        assert rest * grid.row_seconds == pytest.approx(pending, abs=grid.row_seconds)


def test_factors_choose_the_nearest_table() -> None:
    tables = Tables(GUESSED, terms(), 2 * HOUR, HOUR)

    assert tables.table(1.1, 0.9) is tables.table(1.0, 1.0)
    assert tables.table(7.0, 1.0) is tables.table(2.0, 1.0)
    assert tables.table(7.0, 1.0) is not tables.table(1.0, 1.0)
