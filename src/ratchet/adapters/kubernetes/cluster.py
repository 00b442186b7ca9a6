"""The API server, through lightkube: Jobs of ours in one namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import structlog
from lightkube import ApiError, AsyncClient
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Pod
from lightkube.types import CascadeType

from ratchet.adapters.kubernetes.jobs import MANAGED, Attempt, Cluster, job_of
from ratchet.core.errors import Conflict, Rejected, Unavailable

log = structlog.get_logger()

EXISTS, NOT_FOUND, FORBIDDEN, INVALID = 409, 404, 403, (400, 422)
WATCH_SECONDS = 240
PAUSE_SECONDS_MAX = 10.0


class KubernetesJobs:
    """Raises `Unavailable` when the API server does not answer or says "later"."""

    def __init__(self, client: AsyncClient, cluster: Cluster) -> None:
        self._client, self._cluster = client, cluster
        self._labels: dict[str, Any] = dict(MANAGED)

    async def create(self, attempt: Attempt) -> None:
        """By the attempt's name: a Job that is there already is adopted.

        Raises `Rejected` for a Job that no retry makes valid, `Conflict` when a quota is used up.
        """
        try:
            await self._client.create(job_of(attempt, self._cluster))
        except httpx.HTTPStatusError as error:
            code = error.response.status_code
            if code == EXISTS:
                return
            if code in INVALID:
                raise Rejected(f"Kubernetes refuses the Job: {_said(error)}") from error
            if code == FORBIDDEN:
                raise Conflict(f"Kubernetes forbids the Job: {_said(error)}") from error
            raise Unavailable(f"Kubernetes: {_said(error)}") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"Kubernetes does not answer: {error!r}") from error

    async def listing(self) -> tuple[list[Job], list[Pod]]:
        """Jobs of ours and their Pods."""
        return await self._list(Job), await self._list(Pod)

    async def _list(self, kind: Any) -> list[Any]:
        try:
            found = self._client.list(
                kind, namespace=self._cluster.namespace, labels=self._labels, chunk_size=500
            )
            return [each async for each in found]
        except httpx.HTTPStatusError as error:
            raise Unavailable(f"Kubernetes: {_said(error)}") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"Kubernetes does not answer: {error!r}") from error

    async def delete(self, name: str) -> None:
        """With its Pod, which gets its time to save.  What is gone is deleted already."""
        try:
            await self._client.delete(
                Job, name, namespace=self._cluster.namespace, cascade=CascadeType.BACKGROUND
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code != NOT_FOUND:
                raise Unavailable(f"Kubernetes: {_said(error)}") from error
        except httpx.HTTPError as error:
            raise Unavailable(f"Kubernetes does not answer: {error!r}") from error

    async def changes(self) -> AsyncIterator[None]:
        """Each time a Job or a Pod of ours has changed; for ever.

        A watch only says *look*: who looks lists everything.  So a watch that was cut, or is too
        old to be resumed (410), begins anew and has missed nothing.
        """
        happened = asyncio.Event()
        watchers = [asyncio.create_task(self._watch(kind, happened)) for kind in (Job, Pod)]
        try:
            while True:
                await happened.wait()
                happened.clear()
                yield
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    async def _watch(self, kind: Any, happened: asyncio.Event) -> None:
        pause = 0.1
        while True:
            try:
                async for _ in self._client.watch(
                    kind,
                    namespace=self._cluster.namespace,
                    labels=self._labels,
                    server_timeout=WATCH_SECONDS,
                ):
                    happened.set()
                    pause = 0.1
            except httpx.HTTPError as error:
                log.warning("watch_cut", kind=kind.__name__, because=repr(error))
            # Whatever went by meanwhile is in the next list.
            happened.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)


def _said(error: httpx.HTTPStatusError) -> str:
    """The API server's own words, or those of a proxy before it."""
    if isinstance(error, ApiError) and error.status.message:
        return str(error.status.message)
    return f"{error.response.status_code}: {error.response.reason_phrase}"
