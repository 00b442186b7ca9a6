"""What a run is made of: the user's files, read and looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

from ratchet.core import precheck
from ratchet.core.artifact import Version
from ratchet.core.captured import Captured, rows_of
from ratchet.core.compute import estimate
from ratchet.core.data import Row, Rows
from ratchet.core.dataset import is_held_out
from ratchet.core.errors import Rejected
from ratchet.core.fleet.answer import check_slots
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.placement.forecast import foreseen
from ratchet.core.placement.market import Player
from ratchet.core.placement.plan import START_SECONDS_GUESSED
from ratchet.core.planning import never_decides
from ratchet.core.precheck import Found
from ratchet.core.prices import priced
from ratchet.core.spec import Personal, Spec
from ratchet.core.suite import HELD_OUT, Suite, SuiteFile, suite_of
from ratchet.kit.clock import Clock
from ratchet.ports import (
    AnsweredSource,
    AttemptStore,
    BaseModelSource,
    EvidenceSource,
    FileSource,
    FleetStore,
    PriceSource,
    ProjectStore,
    Registry,
    TaskSource,
)

# What users sent for so long is what a release's plan is measured by.
PLANNED_FROM = timedelta(days=1)
# More rows are looked at through every so manieth of them: their lengths are alike.
TOKENIZED_ROWS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class MaterialParts:
    files: FileSource
    tasks: TaskSource
    prices: PriceSource
    bases: BaseModelSource
    evidence: EvidenceSource
    answered: AnsweredSource
    attempts: AttemptStore
    projects: ProjectStore
    registry: Registry
    clock: Clock
    fleet: FleetStore
    market: Player | None = None
    """Spot capacity of this machine."""


NO_SPOT = (
    "train.capacity: found spot, but this server knows of no spot capacity for local workers: "
    "take train.executor: kubernetes, or have RATCHET_SPOT_TRACES play some"
)


@dataclass(frozen=True, slots=True)
class Material:
    """What a spec names, read: rows to learn, suites to ask, and what could not be read."""

    train: Rows
    suites: tuple[Suite, ...]
    code: Mapping[str, bytes]
    """Files of a training program of the user's own."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def whole(self) -> Material:
        """Raises `Rejected` if something could not be read."""
        if self.problems:
            raise Rejected("\n".join(self.problems))
        return self


async def gather(spec: Spec, folder: Path, parts: MaterialParts) -> Material:
    """Read everything that can be read."""
    files, problems = parts.files, list[str]()
    suites: list[Suite] = []
    rows, code = Rows((), ()), dict[str, bytes]()
    try:
        rows = await files.rows(folder, spec.data.files, spec.train.method)
    except Rejected as problem:
        problems.append(str(problem))
    try:
        code = dict(await files.contents(folder, spec.train.files))
    except Rejected as problem:
        problems.append(str(problem))
    captured = await _captured(spec, parts)
    rows = Rows((*rows.good, *captured.rows), rows.bad)
    share = spec.data.held_out_share
    kept = tuple(row for row in rows.good if is_held_out(row, share)) if share else ()
    learnt = tuple(row for row in rows.good if not is_held_out(row, share)) if share else rows.good
    for path in spec.suites:
        try:
            file = await files.suite(folder, path)
            if file.items == HELD_OUT and not share:
                raise Rejected(f"evaluate.suites: {path}: items: held_out needs data.held_out: 10%")
            suites.append(await _suite(file, kept, folder, parts))
        except Rejected as problem:
            problems.append(str(problem))
    notes = tuple(f"data.turns: {n} turns left out: {why}" for why, n in captured.left_out.items())
    return Material(Rows(learnt, rows.bad), tuple(suites), code, tuple(problems), notes)


async def _suite(
    file: SuiteFile, held_out: tuple[Row, ...], folder: Path, parts: MaterialParts
) -> Suite:
    """With its items, wherever they come from."""
    if file.task is not None:
        items, how = await parts.tasks.items(file.task)
        return suite_of(replace(file, task=how), items)
    if file.items == HELD_OUT:
        return suite_of(file, Rows(held_out, ()))
    return suite_of(file, await parts.files.rows(folder, [file.items], "sft"))


async def _captured(spec: Spec, parts: MaterialParts) -> Captured:
    if spec.data.turns is None:
        return Captured((), {})
    now = parts.clock.now()
    turns = await parts.answered.answered(spec.project, spec.data.turns, now)
    return rows_of(turns, spec.train.method)


async def inspect(spec: Spec, folder: Path, parts: MaterialParts) -> Found:
    """Everything that can be known before work begins, all problems at once.  Read only."""
    try:
        spec, prices = await _priced_now(spec, parts)
    except Rejected as problem:
        prices = Found((str(problem),))
    material = await gather(spec, folder, parts)
    seen = await parts.evidence.answers(spec.project, parts.clock.now() - PLANNED_FROM)
    found = [
        Found(material.problems, material.notes),
        prices,
        await asyncio.to_thread(_look, spec, material),
        await _tokens(spec, material.train.good, parts.bases),
    ]
    tokens = precheck.together(found).facts.get("tokens_an_epoch")
    if isinstance(tokens, int):
        speed = await parts.attempts.tokens_per_second(spec.project)
        found.append(await _time_and_money(tokens * spec.train.epochs, speed, spec, parts))
    is_local_spot = (spec.place.executor, spec.place.capacity) == (Executor.LOCAL, Capacity.SPOT)
    if is_local_spot and parts.market is None:
        found.append(Found((NO_SPOT,)))
    if spec.place.pool:
        found.append(await _pool(spec.place, parts.fleet))
    if (fault := await parts.bases.problem(spec.base)) is not None:
        found.append(Found((fault,)))
    try:
        await start_of(spec, parts.projects, parts.registry)
    except Rejected as problem:
        found.append(Found((str(problem),)))
    if (never := never_decides(spec.release, *seen)) is not None:
        found.append(Found((never,)))
    return precheck.together(found)


async def _pool(wish: Place, fleet: FleetStore) -> Found:
    try:
        check_slots(wish, await fleet.pool(wish.pool))
    except Rejected as problem:
        return Found((str(problem),))
    return Found(())


async def _priced_now(spec: Spec, parts: MaterialParts) -> tuple[Spec, Found]:
    """The spec with what its machine costs at this moment.

    Raises `Rejected` when nobody knows.
    """
    if not spec.place.machine:
        return spec, Found(())
    place, said = priced(spec.place, await parts.prices.prices(), parts.clock.now())
    facts = {"usd_per_hour": place.usd_per_hour, "spot_usd_per_hour": place.spot_usd_per_hour}
    return replace(spec, place=place), Found((), (f"train.machine: {said}",), facts)


async def start_of(spec: Spec, projects: ProjectStore, registry: Registry) -> Version | None:
    """The version whose adapter a training goes on from; None for a new adapter.

    Raises `Rejected` when the one that serves does not fit.
    """
    project = await projects.find(spec.project)
    if spec.train.start == "base" or project is None or project.baseline is None:
        return None
    baseline = await registry.get(project.baseline)
    if baseline.adapter_uri is None:
        return None
    if baseline.base != spec.base.source:
        raise Rejected(
            f"train.start: the baseline {baseline.id} is an adapter of {baseline.base}, not of "
            f"{spec.base.source}: set train.start: base"
        )
    known = baseline.recipe.get("lora") if spec.train.method != "command" else None
    if isinstance(known, dict) and known != asdict(spec.train.lora):
        raise Rejected(
            f"train.lora: the baseline {baseline.id}, which training starts from, has rank "
            f"{known['rank']} and alpha {known['alpha']}: set the same, or train.start: base"
        )
    return baseline


def _look(spec: Spec, material: Material) -> Found:
    rows = material.train.good
    held_out = [row for suite in material.suites for row in suite.rows.good]
    found = [precheck.evaluation({suite.name: suite.rows for suite in material.suites})]
    found += [precheck.patterns(s.rows.good) for s in material.suites if s.check == "regex"]
    if rows or material.train.bad or not material.problems:
        found.append(precheck.readable(material.train, spec.data.bad_rows_max_share))
    found += [
        precheck.answers(rows),
        precheck.labels(rows, spec.train.method),
        precheck.leaks(rows, held_out, spec.data.near_duplicates_max_share),
    ]
    if spec.data.personal is not Personal.ALLOW:
        found.append(precheck.personal(rows, refuse=spec.data.personal is Personal.REFUSE))
    return precheck.together(found)


async def _time_and_money(
    tokens: float, speed: float | None, spec: Spec, parts: MaterialParts
) -> Found:
    in_cluster = spec.place.executor is Executor.KUBERNETES
    if spec.place.chooses and speed and (in_cluster or parts.market is not None):
        work = tokens / speed
        faster = 1.0 if in_cluster or parts.market is None else parts.market.speed
        delay = START_SECONDS_GUESSED / faster
        # In a thread: it solves what the choice will be made by.
        return await asyncio.to_thread(foreseen, work, delay, spec.place, faster)
    return estimate(tokens, speed, spec.place)


async def _tokens(spec: Spec, rows: Sequence[Row], bases: BaseModelSource) -> Found:
    step = 1 + len(rows) // TOKENIZED_ROWS_MAX
    looked_at = rows[::step]
    tokens = await bases.tokens(spec.base, looked_at)
    if isinstance(tokens, str):
        return Found((), (f"model.base: tokens were not counted: {tokens}",))
    return precheck.lengths(looked_at, tokens, spec.train.max_length_tokens, step)
