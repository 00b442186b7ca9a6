"""Our words for the durable engine: start, step, receive, send.

A flow is an async function `(flow, *arguments)` whose arguments and step answers are JSON values.
Each `flow.step` runs at least once and its answer is recorded; after a crash the flow runs again
from its top and recorded answers are returned instead.  So a step names, in its docstring, the
key by which it may be repeated, and the lines between steps are pure.

Our own tables hold the truth; DBOS's are never read for a decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

import sqlalchemy
import structlog
from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos import error as dbos_error

from ratchet.core.errors import Unavailable

# Flows of an older program version are resumed by a newer one; what changes goes through patches.
APPLICATION_VERSION = "1"
SCHEMA = "dbos"
POOL_SIZE = 6
WAIT_SECONDS_MIN = 0.2
WAIT_SECONDS_MAX = 5.0

log = structlog.get_logger()


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "handle_error")
def _is_away(context: sqlalchemy.ExceptionContext) -> None:
    """Whoever gets no connection at all may get one later: DBOS waits for it.

    It knows that by psycopg's words, which for a socket that nobody listens at are others: the flow
    would end without a record of its end, and nobody would take it over.
    """
    if context.connection is None and isinstance(
        context.sqlalchemy_exception, sqlalchemy.exc.OperationalError
    ):
        context.is_disconnect = True


class Flow(Protocol):
    """What a flow may do besides pure work."""

    async def step(
        self, name: str, effect: Callable[..., Awaitable[Any]], *arguments: object
    ) -> Any:
        """Run `effect` and record its answer.  The name is its key for ever."""

    async def receive(self, timeout_seconds: float) -> bool:
        """Wait for a wake-up; False when none came in time."""


class _DbosFlow:
    async def step(
        self, name: str, effect: Callable[..., Awaitable[Any]], *arguments: object
    ) -> Any:
        return await DBOS.run_step_async({"name": name}, _patient(effect), *arguments)

    async def receive(self, timeout_seconds: float) -> bool:
        message = await DBOS.recv_async("wake", timeout_seconds=timeout_seconds)
        return message is not None


FlowFunction = Callable[..., Awaitable[Any]]


def _patient(
    effect: Callable[..., Awaitable[Any]],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The same effect, waiting out what is `Unavailable`.

    A step that raises is recorded as failed for ever.  A database that restarts or a full disk is
    no answer to record, so the step waits and tries again; cancelling the run ends the wait.
    """

    async def persist(*arguments: object) -> Any:
        pause = WAIT_SECONDS_MIN
        while True:
            try:
                return await effect(*arguments)
            except Unavailable as error:
                log.warning("step_waits", step=effect.__name__, because=str(error), seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, WAIT_SECONDS_MAX)

    return persist


class Durable:
    """Starts flows and wakes them.  One instance a process; `launch` before use, on the loop that
    owns the parts: DBOS runs recovered flows there too.

    `executor_id` is new at every start of a process, so that every recovery, also after a plain
    restart, takes the one path through `durable.reaper`.
    """

    def __init__(self, url: str, executor_id: str, flows: Mapping[str, FlowFunction]) -> None:
        self.executor_id = executor_id
        config: DBOSConfig = {
            "name": "ratchet",
            "system_database_url": url,
            "dbos_system_schema": SCHEMA,
            "application_version": APPLICATION_VERSION,
            "executor_id": executor_id,
            "sys_db_pool_size": POOL_SIZE,
            "log_level": "WARNING",
            "console_log_level": "WARNING",
            "run_migrations": True,
            "enable_otlp": False,
        }
        self._dbos = DBOS(config=config)
        self._running: set[str] = set()
        self._missed: set[str] = set()
        self._flows = {
            name: _register(name, function, self._running) for name, function in flows.items()
        }

    def launch(self) -> None:
        logging.getLogger("dbos").setLevel(logging.WARNING)
        DBOS.launch()

    def close(self) -> None:
        DBOS.destroy(workflow_completion_timeout_sec=0)

    async def start(self, name: str, key: str, *arguments: object) -> str | None:
        """Start a flow.  By key: a flow that was started before is left alone.

        Answers the reason if the flow has ended with an error, which is a bug of its steps.
        """
        status = await DBOS.get_workflow_status_async(key)
        if status is None:
            with SetWorkflowID(key):
                await DBOS.start_workflow_async(self._flows[name], *arguments)
            return None
        ended_badly = status.status in ("ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
        return str(status.error or status.status) if ended_badly else None

    async def wake(self, key: str) -> None:
        """Make a waiting flow look again.  A flow that is not there needs no waking."""
        try:
            await DBOS.send_async(key, "look", topic="wake")
        except dbos_error.DBOSNonExistentWorkflowError:
            return

    async def recover(self, executor_ids: list[str]) -> int:
        """Take over the flows of dead processes; answer how many.

        Private API on purpose: it keeps queue and deduplication, and touches only what the named
        executors still own, so that it may be repeated.  The dependency is pinned for it.
        """
        return len(await asyncio.to_thread(DBOS._recover_pending_workflows, executor_ids))

    async def take_up_dropped(self) -> list[str]:
        """Start again flows that are this process's by the record and that it does not run.

        Such a flow ended in a way that could not be recorded; its process lives, so that nobody
        takes it over.  Only what was seen so the last time, too: one that just begins is not lost.
        Answers their keys.
        """
        mine = await DBOS.list_workflows_async(
            status="PENDING", executor_id=self.executor_id, load_input=False, load_output=False
        )
        missed = {status.workflow_id for status in mine} - self._running
        dropped = missed & self._missed
        for key in dropped:
            await DBOS.resume_workflow_async(key)
        self._missed = missed - dropped
        return sorted(dropped)


def _register(name: str, function: FlowFunction, running: set[str]) -> Callable[..., Any]:
    async def body(*arguments: object) -> Any:
        key = str(DBOS.workflow_id)
        running.add(key)
        try:
            return await function(_DbosFlow(), *arguments)
        finally:
            running.discard(key)

    body.__name__ = body.__qualname__ = name
    return DBOS.workflow(name=name, max_recovery_attempts=1_000)(body)
