"""`ratchet executor`: make a cluster run the workers that the control plane wants.

It keeps nothing: each look compares what the control plane wants with the Jobs that are there and
acts on the difference, so that it may be restarted, or run twice, at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import httpx2 as httpx
import structlog
from lightkube import AsyncClient, ConfigError
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod

from ratchet.adapters.kubernetes.cluster import KubernetesJobs
from ratchet.adapters.kubernetes.jobs import ATTEMPT_LABEL, Attempt, Cluster, job_name
from ratchet.adapters.kubernetes.outcome import Outcome, is_complete, outcome_of, waits_for
from ratchet.core.errors import Conflict, Rejected, Unavailable
from ratchet.core.place import Executor, Place
from ratchet.core.run import AttemptState
from ratchet.entrypoints.work import follow_work
from ratchet.kit.clock import Clock, SystemClock
from ratchet.kit.secret import Secret

log = structlog.get_logger()

LOOK_SECONDS = 2.0
PAUSE_SECONDS_MAX = 30.0
STRAY_SECONDS = 30.0


class Jobs(Protocol):
    """The cluster, as far as this needs it."""

    async def create(self, attempt: Attempt) -> None: ...
    async def listing(self) -> tuple[list[Job], list[Pod]]: ...
    async def delete(self, name: str) -> None: ...
    def changes(self) -> AsyncIterator[None]: ...


@dataclass(slots=True)
class KubernetesExecutor:
    jobs: Jobs
    client: httpx.AsyncClient
    clock: Clock
    _said: dict[str, str] = field(default_factory=dict)
    """What was last logged of an attempt that waits: once is enough."""
    _stray: dict[str, datetime] = field(default_factory=dict)
    """Since when an attempt has a Job and is not wanted."""

    async def run(self) -> None:
        """For ever.  Errors of either side make looks rarer, never end it."""
        changed = asyncio.Event()
        hearing = [
            asyncio.create_task(self._watch(changed)),
            asyncio.create_task(follow_work(self.client, changed)),
        ]
        pause = LOOK_SECONDS
        try:
            while True:
                try:
                    await self.look()
                    pause = LOOK_SECONDS
                except (Unavailable, httpx.HTTPError) as error:
                    log.warning("look_failed", because=str(error) or repr(error))
                    pause = min(pause * 2, PAUSE_SECONDS_MAX)
                    await asyncio.sleep(pause)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), pause)
                changed.clear()
        finally:
            for task in hearing:
                task.cancel()
            await asyncio.gather(*hearing, return_exceptions=True)

    async def _watch(self, changed: asyncio.Event) -> None:
        async for _ in self.jobs.changes():
            changed.set()

    async def look(self) -> None:
        """One comparison."""
        wanted = {attempt["id"]: attempt for attempt in await self._wanted()}
        jobs, pods = await self.jobs.listing()
        there = {_attempt_of(job): job for job in jobs}
        for attempt_id, attempt in wanted.items():
            job = there.get(attempt_id)
            if job is not None:
                mine = [pod for pod in pods if _attempt_of(pod) == attempt_id]
                await self._settle(attempt_id, job, mine)
            elif attempt["state"] == "running":
                gone = Outcome(AttemptState.LOST, "its Job is gone")
                await self._tell(attempt_id, gone)
            else:
                await self._start(attempt)
        stray = {id_ for id_, job in there.items() if id_ not in wanted and _is_alive(job)}
        await self._delete(stray)
        self._said = {id_: said for id_, said in self._said.items() if id_ in wanted}

    async def _delete(self, stray: set[str]) -> None:
        """Jobs whose attempt has ended.  Their workers hear of it by themselves and leave; only one
        that does not is helped."""
        now = self.clock.now()
        self._stray = {id_: self._stray.get(id_, now) for id_ in stray}
        for attempt_id, since in self._stray.items():
            if (now - since).total_seconds() >= STRAY_SECONDS:
                log.info("job_deleted", attempt=attempt_id, because="its attempt has ended")
                await self.jobs.delete(job_name(attempt_id))

    async def _wanted(self) -> list[dict[str, Any]]:
        answer = await self.client.get("/api/v1/node/work")
        answer.raise_for_status()
        attempts: list[dict[str, Any]] = answer.json()["attempts"]
        return [a for a in attempts if a["place"]["executor"] == Executor.KUBERNETES.value]

    async def _start(self, attempt: dict[str, Any]) -> None:
        place = Place.from_json(attempt["place"])
        wish = Attempt(id=attempt["id"], run=attempt["run"], stage=attempt["stage"], place=place)
        try:
            await self.jobs.create(wish)
        except Rejected as error:
            await self._tell(wish.id, Outcome(AttemptState.FAILED, str(error)))
        except Conflict as error:
            # A quota: there will be room again.
            self._say(wish.id, str(error))
        else:
            log.info("job_created", attempt=wish.id, run=wish.run, stage=wish.stage)

    async def _settle(self, attempt_id: str, job: Job, pods: Sequence[Pod]) -> None:
        outcome = outcome_of(job, pods, self.clock.now())
        if outcome is not None:
            await self._tell(attempt_id, outcome)
        elif is_complete(job):
            # Its worker has told its result before it ended; a worker that did not is lost.
            await self._tell(
                attempt_id, Outcome(AttemptState.LOST, "its worker ended without a word")
            )
        elif waiting := waits_for(pods):
            self._say(attempt_id, waiting)

    async def _tell(self, attempt_id: str, outcome: Outcome) -> None:
        log.warning(
            "attempt_ended", attempt=attempt_id, how=outcome.state.value, because=outcome.because
        )
        answer = await self.client.post(
            f"/api/v1/node/attempts/{attempt_id}/ended",
            json={"how": outcome.state.value, "because": outcome.because},
        )
        answer.raise_for_status()

    def _say(self, attempt_id: str, waiting: str) -> None:
        if self._said.get(attempt_id) != waiting:
            self._said[attempt_id] = waiting
            log.info("attempt_waits", attempt=attempt_id, because=waiting)


async def serve(cluster: Cluster, server: str, token: Secret) -> None:
    """Until it is stopped.  The cluster is found as kubectl finds it.  Raises `Rejected`."""
    try:
        kubernetes = AsyncClient(namespace=cluster.namespace)
    except ConfigError as error:
        raise Rejected(f"no cluster: {error}; set KUBECONFIG, or run in a Pod") from error
    headers = {"authorization": f"Bearer {token.reveal()}"}
    async with httpx.AsyncClient(base_url=server, headers=headers, timeout=10.0) as client:
        jobs = KubernetesJobs(kubernetes, cluster)
        await KubernetesExecutor(jobs, client, SystemClock()).run()


def _attempt_of(made: Job | Pod) -> str:
    labels: dict[str, str] = (made.metadata.labels if made.metadata else None) or {}
    return labels.get(ATTEMPT_LABEL, "")


def _is_alive(job: Job) -> bool:
    """Whether something of it may still run."""
    ended = ("Failed", "Complete")
    conditions = (job.status.conditions if job.status else None) or []
    return not any(c.type in ended and c.status == "True" for c in conditions)
