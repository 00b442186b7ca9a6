"""Shadows: give a canary what the baseline was asked, compare, and keep what came out.

Repeatable: what is not kept is done again.  Who decides is the judge (`operations.release`), from
what is kept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ratchet.core.detectors import text_of
from ratchet.core.errors import Unavailable
from ratchet.core.rollout import Stage
from ratchet.core.routing import Endpoint
from ratchet.core.shadow import (
    JUDGE,
    Outcome,
    Pair,
    PairJudge,
    Preference,
    comes_first,
    compared,
    outcome_of,
)
from ratchet.kit.clock import Clock
from ratchet.kit.digest import digest_json
from ratchet.ports import (
    Answerer,
    EngineStore,
    Judges,
    ProjectStore,
    Prompt,
    ReleaseStore,
    ShadowStore,
    StoredRelease,
)

# At once: the canary's engine has nothing else to do yet.
TOGETHER = 4


@dataclass(frozen=True, slots=True)
class ShadowParts:
    releases: ReleaseStore
    shadow: ShadowStore
    engines: EngineStore
    projects: ProjectStore
    answers: Answerer
    judges: Judges
    clock: Clock


async def replay_prompts(parts: ShadowParts) -> int:
    """A few prompts of each release that is in its shadow; answers how many.

    Raises `Unavailable` when a judge is away; what the others said is kept.
    """
    count = 0
    for stored in await parts.releases.live():
        if stored.release.stage is Stage.SHADOW:
            count += await _replay_some(stored, parts)
    return count


async def _replay_some(stored: StoredRelease, parts: ShadowParts) -> int:
    release = stored.release
    place = await parts.engines.place_of(release.candidate)
    if place is None:
        # Down: the judge sees for how long.
        return 0
    prompts = await parts.shadow.next_prompts(release, TOGETHER)
    model = (await parts.projects.get(release.project)).served_name
    done = await asyncio.gather(
        *(_compare(stored, prompt, place, model, parts) for prompt in prompts),
        return_exceptions=True,
    )
    failed = [result for result in done if isinstance(result, BaseException)]
    problem = str(failed[0]) if failed and isinstance(failed[0], Unavailable) else ""
    if problem != stored.problem:
        await parts.shadow.put_problem(release.id, problem)
    if failed:
        raise failed[0]
    return len(prompts)


async def _compare(
    stored: StoredRelease, prompt: Prompt, place: Endpoint, model: str, parts: ShadowParts
) -> None:
    pair = await _pair(stored, prompt, place, model, parts)
    await parts.shadow.put(stored.release.id, prompt, pair)


async def _pair(
    stored: StoredRelease, prompt: Prompt, place: Endpoint, model: str, parts: ShadowParts
) -> Pair:
    shadow = stored.plan.shadow
    if not prompt.messages or shadow is None:
        return Pair()
    if prompt.correction is not None:
        if shadow.judge is None:
            return Pair()
        return Pair({JUDGE: await _judged(stored, prompt, prompt.correction, shadow.judge, parts)})
    try:
        answer = await parts.answers.answer(place, model, prompt)
    except Unavailable as error:
        return Pair(silence=str(error))
    old, new = text_of(prompt.answer), text_of(answer)
    # Patterns of the project's own over texts of users: not on the event loop.
    outcomes = await asyncio.to_thread(compared, stored.plan.detectors, old, new)
    if shadow.judge is not None:
        outcomes[JUDGE] = await _judged(stored, prompt, new, shadow.judge, parts)
    return Pair(outcomes)


async def _judged(
    stored: StoredRelease, prompt: Prompt, new: str, judge: PairJudge, parts: ShadowParts
) -> Outcome:
    old = text_of(prompt.answer)
    if old == new:
        return Outcome.SAME
    is_new_first = comes_first(stored.release.id, prompt.request_id)
    first, second = (new, old) if is_new_first else (old, new)
    asked = [judge.url, judge.model, judge.criteria, *prompt.messages, first, second]
    digest = digest_json(asked)
    said: Preference | None = await parts.shadow.preference(digest)
    if said is None:
        said = await parts.judges.prefer(judge, prompt.messages, first, second)
        await parts.shadow.put_preference(digest, said, parts.clock.now())
    return outcome_of(said, is_new_first=is_new_first)
