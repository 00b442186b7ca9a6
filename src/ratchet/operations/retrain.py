"""The pipeline as a durable flow: check, freeze, train, evaluate, gate, register, release.

The flow reads like the sentence in the README.  Each effect is a step, each step names its key,
and everything between steps is pure, so that a crash between any two lines changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ratchet.core.analysis import first_weight
from ratchet.core.artifact import RunId, Version, VersionId, same_weights, version_id
from ratchet.core.compute import check_budget
from ratchet.core.errors import RatchetError, Rejected, Unavailable
from ratchet.core.evidence import Evidence, first_evidence
from ratchet.core.gates import (
    SuiteReport,
    decide_gates,
)
from ratchet.core.place import Place
from ratchet.core.rollout import Release, ReleaseId, Stage
from ratchet.core.run import AttemptId, RunState, StageName, StageState, next_attempt
from ratchet.core.spec import DataPlan
from ratchet.core.suite import Suite
from ratchet.durable.flow import Flow
from ratchet.kit.clock import Clock
from ratchet.kit.digest import digest_bytes
from ratchet.kit.ids import new_id
from ratchet.operations.datasets import DatasetParts, freeze
from ratchet.operations.evaluations import gate_detail, reports, suite_report, weights_of
from ratchet.operations.fleet import Need, leave_pool, pooled
from ratchet.operations.material import MaterialParts, gather, inspect, start_of
from ratchet.operations.placement import PlacementParts, is_placed, placed
from ratchet.operations.shelf import shelve
from ratchet.operations.tracking import TrackingParts, mirror
from ratchet.ports import (
    AttemptStore,
    EvidenceSource,
    ObjectStore,
    ProjectStore,
    Registry,
    ReleaseStore,
    Run,
    RunStore,
    StageStore,
    StoredRelease,
    WorkerDesk,
)

# A wake-up normally comes at once; these bound how long a lost one can delay a flow.  Each look
# is a recorded step, so looks grow rarer: a day of waiting is some 1,500 records to replay.
POLL_SECONDS_MIN = 2.0
POLL_SECONDS_MAX = 60.0
LOOK_AT_ONCE_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The parts that the flow works with, and its steps."""

    projects: ProjectStore
    runs: RunStore
    stages: StageStore
    attempts: AttemptStore
    workers: WorkerDesk
    registry: Registry
    releases: ReleaseStore
    evidence: EvidenceSource
    material: MaterialParts
    datasets: DatasetParts
    objects: ObjectStore
    tracking: TrackingParts
    placement: PlacementParts
    clock: Clock

    async def retrain(self, flow: Flow, run_id: RunId) -> str:
        """One run, from queued to its end.  Answers the end state."""
        try:
            await flow.step("check", self.check, run_id)
            await flow.step("freeze", self.freeze, run_id)
            await self._work(flow, StageName.TRAIN, run_id)
            await self._work(flow, StageName.EVALUATE, run_id)
            passed = await flow.step("gate", self.gate, run_id)
            if not passed:
                return str(await flow.step("gated", self.finish_gated, run_id))
            await flow.step("register", self.register, run_id)
            await flow.step("mirror", self.mirror, run_id)
            release_id = await flow.step("start-release", self.start_release, run_id)
            pause = POLL_SECONDS_MIN
            while True:
                end = await flow.step("look-at-release", self.look, run_id, release_id)
                if end is not None:
                    return str(end)
                await flow.receive(pause)
                pause = min(pause * 1.5, POLL_SECONDS_MAX)
        except RatchetError as error:
            # `Unavailable` never arrives here: a step waits until what it needs is back.
            return str(await flow.step("failed", self.finish_failed, run_id, str(error)))

    async def _work(self, flow: Flow, stage: StageName, run_id: RunId) -> None:
        """Have workers do a stage until one has done it."""
        pause = POLL_SECONDS_MIN
        name = f"{stage.value}-attempt"
        while (look := await flow.step(name, self.attempt, run_id, stage.value)) is not True:
            # A number: what its training runs on is chosen anew after so many seconds.
            await flow.receive(float(look) or pause)
            pause = min(pause * 1.5, POLL_SECONDS_MAX)
        await flow.step(f"{stage.value}-done", self.collect, run_id, stage.value)

    async def check(self, run_id: RunId) -> None:
        """Everything that can be known before work begins, all problems at once.  Read only."""
        run = await self._begin(run_id, StageName.CHECK)
        found = await inspect(run.spec, run.source_dir, self.material)
        if found.problems:
            raise Rejected("\n".join(found.problems))
        if run.spec.place.machine:
            prices: dict[str, Any] = {
                key: found.facts[key] for key in ("usd_per_hour", "spot_usd_per_hour")
            }
            await self.runs.put_place(run_id, replace(run.spec.place, **prices))
        detail = {**found.facts, "notes": list(found.notes)}
        because = f"{found.facts['rows']} rows, no problem found"
        await self._end(run_id, StageName.CHECK, detail, because)

    async def freeze(self, run_id: RunId) -> None:
        """Keep the training rows and suites as they are now.  By content."""
        run = await self._begin(run_id, StageName.FREEZE)
        material = (await gather(run.spec, run.source_dir, self.material)).whole()
        recipe = _chosen_by(run.spec.data)
        dataset = await freeze(run.id, run.spec.project, material.train.good, recipe, self.datasets)
        suites = await self._freeze_suites(run.id, material.suites)
        code = await self._freeze_code(run.id, material.code)
        detail = {
            "code": code,
            "dataset": dataset.id,
            "uri": dataset.uri,
            "rows": dataset.rows,
            "bytes_new": dataset.bytes_new,
            "suites": suites,
        }
        await self._end(run_id, StageName.FREEZE, detail, f"{dataset.id}, {dataset.rows} rows")

    async def _freeze_suites(
        self, run_id: RunId, suites: Sequence[Suite]
    ) -> list[Mapping[str, object]]:
        contents = {
            f"suites/{suite.digest}.json": partial(_as_json, suite.to_json()) for suite in suites
        }
        places, _ = await shelve(run_id, contents, self.datasets.shelf)
        return [
            {"name": suite.name, "uri": uri, "digest": suite.digest}
            for suite in suites
            for uri in [places[f"suites/{suite.digest}.json"]]
        ]

    async def _freeze_code(self, run_id: RunId, code: Mapping[str, bytes]) -> dict[str, str]:
        """Where the files of a training program lie, by name."""
        keys = {name: f"code/{digest_bytes(content)}" for name, content in code.items()}
        contents = {keys[name]: partial(bytes, content) for name, content in code.items()}
        places, _ = await shelve(run_id, contents, self.datasets.shelf)
        return {name: places[key] for name, key in keys.items()}

    async def attempt(self, run_id: RunId, stage_value: str) -> bool | float:
        """Whether the stage is done; asks for a worker when none is at it.

        Answers seconds instead when it wants to look again then.  By (run, stage, number).  Raises
        `Rejected` when the stage cannot be done.
        """
        stage = StageName(stage_value)
        run = await self._begin(run_id, stage)
        last = await self.attempts.last(run_id, stage)
        if last is not None and last.state.value == "succeeded":
            return True
        number = next_attempt(last)
        if stage is StageName.TRAIN and is_placed(run.spec.place, self.placement):
            return await self._attempt_placed(run, number)
        if run.spec.place.pool:
            return await self._attempt_pooled(run, stage, number)
        if number is not None:
            await self._ask_for_worker(run, stage, number, run.spec.place.at_once)
        return False

    async def _attempt_pooled(self, run: Run, stage: StageName, number: int | None) -> float | bool:
        """Ask for a worker once the pool has a slot, or have the one that is there leave."""
        wanted = run.spec.place.at_once
        alive = [each for each in await self.workers.live() if each.run_id == run.id]
        # An evaluation is short, and what it has answered may go with its machine.
        need = Need(may_leave=stage is StageName.TRAIN)
        found = await pooled(
            run.id,
            run.spec.project,
            run.spec.place,
            wanted,
            alive[0].place if alive else None,
            need,
            self.placement.fleet,
        )
        if number is not None and found.place is not None:
            await self._ask_for_worker(run, stage, number, found.place)
        elif found.moves and await self._had_to_leave(alive[0].id, found.grant.because):
            return LOOK_AT_ONCE_SECONDS
        return False

    async def _attempt_placed(self, run: Run, number: int | None) -> float:
        """Ask for a worker where it is best now, or have the one that is elsewhere leave."""
        found = await placed(run.id, run.spec.project, run.spec.place, self.placement)
        if number is not None and found.place is not None:
            await self._ask_for_worker(run, StageName.TRAIN, number, found.place)
        elif (
            found.moves
            and (attempt := found.training.attempt) is not None
            and await self._had_to_leave(attempt, found.decision.because)
        ):
            return LOOK_AT_ONCE_SECONDS
        return found.look_again_seconds

    async def _had_to_leave(self, attempt: AttemptId, because: str) -> bool:
        """Whether it is gone: it had no machine yet.  One that works saves first."""
        now = self.clock.now()
        if await self.attempts.withdraw(attempt, because, now):
            return True
        await self.attempts.ask_to_leave(attempt, now)
        return False

    async def _ask_for_worker(self, run: Run, stage: StageName, number: int, place: Place) -> None:
        now = self.clock.now()
        check_budget(await self.attempts.spent_usd(run.id, now), run.spec.place)
        assignment = {**await self._assignment(run, stage), "place": place.to_json()}
        await self.attempts.add(run.id, stage, number, assignment, now)

    async def _assignment(self, run: Run, stage: StageName) -> dict[str, object]:
        """All that a worker needs to know.  It reads no database and no settings of ours."""
        frozen = await self._detail(run.id, StageName.FREEZE)
        assignment: dict[str, object] = {
            "stage": stage.value,
            "run": run.id,
            "base": run.spec.base.source,
            "dataset": frozen["uri"],
            "train": asdict(run.spec.train),
            "served_name": run.spec.served_name,
        }
        if stage is StageName.TRAIN:
            start = await self._start(run)
            assignment |= {
                "code": frozen.get("code", {}),
                "start": None if start is None else start.adapter_uri,
            }
        if stage is StageName.EVALUATE:
            trained = await self.attempts.result(run.id, StageName.TRAIN)
            baseline = await self._baseline(run)
            known = []
            for suite in frozen["suites"]:
                report = await self.registry.evaluation(weights_of(baseline), suite["digest"])
                if report is not None and report.memory_bytes:
                    known.append(suite["digest"])
            assignment |= {
                "suites": frozen["suites"],
                "candidate": trained["adapter_uri"],
                "baseline": baseline.adapter_uri,
                "baseline_known": known,
                "engine": run.spec.engine.value,
            }
        return assignment

    async def collect(self, run_id: RunId, stage_value: str) -> None:
        """Take over what the worker answered.  By (run, stage)."""
        stage = StageName(stage_value)
        result = await self.attempts.result(run_id, stage)
        if stage is StageName.TRAIN:
            loss = "" if result["loss"] is None else f", loss {result['loss']:.3f}"
            because = f"{result['steps']} steps{loss}"
            await self._end(run_id, stage, result, because)
            return
        run = await self.runs.get(run_id)
        await self._keep_baseline_reports(run, result)
        detail = {"reports": result["uri"], "baseline": (await self._baseline(run)).id}
        await leave_pool(run.id, run.spec.place, self.placement.fleet)
        await self._end(run_id, stage, detail, "candidate and baseline answered")

    async def _keep_baseline_reports(self, run: Run, result: Mapping[str, Any]) -> None:
        stored = await self._get(str(result["uri"]))
        weights = weights_of(await self._baseline(run))
        for value in stored["baseline"]:
            await self.registry.put_evaluation(weights, suite_report(value), self.clock.now())

    async def gate(self, run_id: RunId) -> bool:
        """Decide the gates on what was measured.  Pure but for the stage's row."""
        run = await self._begin(run_id, StageName.GATE)
        baseline, candidate = await self._reports(run)
        verdict = decide_gates(run.spec.gates, baseline, candidate)
        detail = gate_detail(verdict, baseline, candidate)
        state = StageState.DONE if verdict.passed else StageState.STOPPED
        await self.stages.end(
            run_id, StageName.GATE, state, detail, verdict.because, self.clock.now()
        )
        return verdict.passed

    async def register(self, run_id: RunId) -> None:
        """Record the version with its lineage.  By digest and by run."""
        run = await self._begin(run_id, StageName.REGISTER)
        trained = await self._detail(run_id, StageName.TRAIN)
        frozen = await self._detail(run_id, StageName.FREEZE)
        gates = await self._detail(run_id, StageName.GATE)
        recipe = await self._recipe(run, frozen)
        report: dict[str, object] = {"metrics": gates["candidate"], "gates": gates["gates"]}
        version = Version(
            id=version_id(
                base=run.spec.base.source,
                adapter_digest=trained["adapter_digest"],
                dataset_id=frozen["dataset"],
                recipe=recipe,
                report={**report, "run": run_id},
            ),
            project=run.spec.project,
            base=run.spec.base.source,
            adapter_uri=trained["adapter_uri"],
            adapter_digest=trained["adapter_digest"],
            dataset_id=frozen["dataset"],
            recipe=recipe,
            report=report,
            run_id=run_id,
        )
        await self.registry.add(version, self.clock.now())
        detail = {"version": version.id}
        await self._end(run_id, StageName.REGISTER, detail, f"version {version.id}")

    async def _recipe(self, run: Run, frozen: Mapping[str, Any]) -> dict[str, object]:
        """Everything that made the adapter besides base and data."""
        recipe: dict[str, object] = asdict(run.spec.train)
        if code := frozen.get("code"):
            recipe["code"] = code
        if (start := await self._start(run)) is not None:
            recipe["started_from"] = {"version": start.id, "adapter": start.adapter_digest}
        return recipe

    async def _start(self, run: Run) -> Version | None:
        return await start_of(run.spec, self.projects, self.registry)

    async def mirror(self, run_id: RunId) -> str:
        """Copy the version to the team's tracker.  By version.  Being away never stops a run."""
        registered = await self._detail(run_id, StageName.REGISTER)
        version = await self.registry.get(VersionId(registered["version"]))
        try:
            return await mirror(version, run_id, self.tracking)
        except Unavailable as error:
            return f"not mirrored yet: {error}"

    async def start_release(self, run_id: RunId) -> str:
        """Open the release of the run's version.  By run."""
        run = await self._begin(run_id, StageName.RELEASE)
        registered = await self._detail(run_id, StageName.REGISTER)
        version = await self.registry.get(VersionId(registered["version"]))
        baseline = await self._baseline(run)
        usual = await self.evidence.baseline_measures(baseline.id)
        within = await self.evidence.segment_measures(baseline.id, run.spec.release.segments)
        per_second = await self.evidence.requests_per_second(run.spec.project, self.clock.now())
        after = await self.evidence.newest_unit(run.spec.project)
        unchanged, plan = same_weights(version, baseline), run.spec.release
        release = Release(
            id=ReleaseId(new_id("rel")),
            project=run.spec.project,
            candidate=version.id,
            baseline=baseline.id,
            notches_percent=plan.notches_percent,
            ramp_weight=first_weight(plan, per_second),
            stage=Stage.UNCHANGED if unchanged else Stage.STARTING,
        )
        return await self.releases.add(
            _stored(release, run, first_evidence(plan, usual, after, within)),
            self.clock.now(),
        )

    async def look(self, run_id: RunId, release_id: str) -> str | None:
        """End the run when its release has ended.  By run."""
        run = await self.runs.get(run_id)
        if run.state.is_end:
            return run.state.value
        stored = await self.releases.get(ReleaseId(release_id))
        if not stored.release.stage.ends_run:
            return None
        end = {
            Stage.PROMOTED: RunState.PROMOTED,
            Stage.HOLDBACK: RunState.PROMOTED,
            Stage.ROLLED_BACK: RunState.ROLLED_BACK,
            Stage.UNCHANGED: RunState.UNCHANGED,
        }[stored.release.stage]
        state = StageState.STOPPED if end is RunState.ROLLED_BACK else StageState.DONE
        now = self.clock.now()
        await self.stages.end(
            run_id, StageName.RELEASE, state, {"release": release_id}, stored.because, now
        )
        await self.runs.move(run_id, RunState.RUNNING, end, stored.because, now)
        return end.value

    async def finish_gated(self, run_id: RunId) -> str:
        """End a run that its gates stopped.  By run."""
        run = await self.runs.get(run_id)
        if run.state.is_end:
            return run.state.value
        gates = await self._stage_because(run_id)
        await self.runs.move(run_id, RunState.RUNNING, RunState.GATED, gates, self.clock.now())
        return RunState.GATED.value

    async def finish_failed(self, run_id: RunId, because: str) -> str:
        """End a run that cannot go on.  By run."""
        run = await self.runs.get(run_id)
        await leave_pool(run.id, run.spec.place, self.placement.fleet)
        if run.state.is_end:
            return run.state.value
        now = self.clock.now()
        await self.stages.stop_open(run_id, StageState.FAILED, because, now)
        await self.runs.move(run_id, RunState.RUNNING, RunState.FAILED, because, now)
        return RunState.FAILED.value

    async def _begin(self, run_id: RunId, stage: StageName) -> Run:
        run = await self.runs.get(run_id)
        if run.state.is_end:
            raise Rejected(f"run is {run.state.value}: {run.because}")
        await self.stages.begin(run_id, stage, self.clock.now())
        return run

    async def _end(
        self, run_id: RunId, stage: StageName, detail: Mapping[str, object], because: str
    ) -> None:
        now = self.clock.now()
        await self.stages.end(run_id, stage, StageState.DONE, detail, because, now)

    async def _detail(self, run_id: RunId, stage: StageName) -> dict[str, Any]:
        ended = await self.stages.get(run_id, stage)
        return dict(ended.detail)

    async def _stage_because(self, run_id: RunId) -> str:
        return (await self.stages.get(run_id, StageName.GATE)).because

    async def _baseline(self, run: Run) -> Version:
        """The version that serves now.  It cannot change under a run: one run is active at a time
        and only its own release moves the baseline."""
        project = await self.projects.get(run.spec.project)
        if project.baseline is None:
            raise Rejected(f"project {project.name} serves nothing to compare with")
        return await self.registry.get(project.baseline)

    async def _reports(self, run: Run) -> tuple[list[SuiteReport], list[SuiteReport]]:
        evaluated = await self._detail(run.id, StageName.EVALUATE)
        frozen = await self._detail(run.id, StageName.FREEZE)
        baseline = await self._baseline(run)
        return await reports(frozen, evaluated, baseline, self.registry, self.objects)

    async def _get(self, key: str) -> Any:
        return json.loads(await self.objects.get(key))


def _as_json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def _chosen_by(data: DataPlan) -> dict[str, object]:
    """How rows were chosen: part of what names a dataset."""
    recipe: dict[str, object] = {"files": list(data.files), "held_out": data.held_out_share}
    if data.turns is not None:
        recipe["turns"] = asdict(data.turns)
    return recipe


def _stored(release: Release, run: Run, evidence: Evidence) -> StoredRelease:
    because = (
        "the candidate has the baseline's weights, bit for bit: nothing to release"
        if release.stage is Stage.UNCHANGED
        else "waiting for the canary's engine"
    )
    return StoredRelease(
        release=release,
        plan=run.spec.release,
        evidence=evidence,
        run_id=run.id,
        because=because,
    )
