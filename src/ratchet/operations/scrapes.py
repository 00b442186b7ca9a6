"""Read the counters that releases' guards are over, and keep them; who judges is `release`."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from ratchet.core.artifact import VersionId
from ratchet.core.errors import Conflict, Rejected
from ratchet.core.rollout import Stage
from ratchet.core.scrapes import VERSION, Counters, CountQuery
from ratchet.kit.clock import Clock
from ratchet.ports import CounterSource, ReleaseStore, SampleStore, StoredRelease

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ScrapeParts:
    releases: ReleaseStore
    counters: CounterSource
    samples: SampleStore
    clock: Clock


async def scrape(parts: ScrapeParts) -> int:
    """Sample the counters of each release that serves users; answers how many were.

    A counter that is not there is left out of its sample.  Raises `Unavailable`.
    """
    count = 0
    for stored in await parts.releases.live():
        serves = stored.release.stage in (Stage.CANARY, Stage.PAUSED, Stage.HOLDBACK)
        if serves and stored.plan.queries:
            count += await _sample(stored, parts)
    return count


async def _sample(stored: StoredRelease, parts: ScrapeParts) -> int:
    release, found = stored.release, {}
    begun = await parts.samples.position(release)
    for query in stored.plan.queries:
        arms = [
            await _arm(query, version, parts) for version in (release.candidate, release.baseline)
        ]
        if arms[0] is not None and arms[1] is not None:
            found[query.guard] = (arms[0], arms[1])
    try:
        await parts.samples.add(release, begun, found, parts.clock.now())
    except Conflict:
        # The weights moved while it was read: what was counted belongs to neither.
        return 0
    return 1


async def _arm(query: CountQuery, version: VersionId, parts: ScrapeParts) -> Counters | None:
    values = []
    for text in (query.all, query.bad):
        try:
            values.append(await parts.counters.value(text.replace(VERSION, version)))
        except Rejected as error:
            log.error("query_refused", guard=query.guard, because=str(error))
            return None
    every, bad = values
    if every is None:
        return None
    # What has not failed yet has no series of failures.
    return Counters(every, 0.0 if bad is None else bad)
