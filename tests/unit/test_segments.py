"""Segments: told apart before there is an arm, judged within, at the same error rate for all."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest

from ratchet.adapters.postgres.evidence import evidence_from_json, evidence_to_json
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Rejected
from ratchet.core.evidence import SEGMENT_BLOCK_UNITS, Evidence, Unit, first_evidence, observe
from ratchet.core.findings import (
    LOG_THRESHOLD,
    accuse,
    describe,
    findings,
    listed,
    segment_findings,
)
from ratchet.core.guards import Group, group_shares, weights_of
from ratchet.core.replay import Recorded, otherwise, replay
from ratchet.core.report import markdown
from ratchet.core.rollout import Release, ReleaseId, Stage
from ratchet.core.segments import Dimension, frequent, is_of, known_of
from ratchet.core.spec import ReleasePlan
from tests.units import USUAL, drawn

PLAN = ReleasePlan(segments=(Dimension.LANGUAGE,))
WITHIN = {"language=de": USUAL, "language=en": USUAL}
BEGUN = first_evidence(PLAN, USUAL, 0, WITHIN)


def spoken(
    chance: np.random.Generator, count: int, weight: int, *, german_fails: float = 0.01
) -> list[Unit]:
    """Units of which a tenth is in German; one in a hundred of all fails, the canary's German ones
    as said."""
    found = []
    for unit in drawn(chance, count, weight):
        is_german = chance.random() < 0.1
        values = dict(unit.values)
        if is_german and unit.is_canary and chance.random() < german_fails:
            values = {"errors": 1.0, "latency_p95": math.inf, "ttft_p95": math.inf}
        found.append(replace(unit, values=values, known={"language": "de" if is_german else "en"}))
    return found


def test_a_request_is_known_by_its_headers_and_what_is_not_there_is_absent() -> None:
    known = known_of(
        tenant="acme", language="de-CH,de;q=0.9,en;q=0.1", content_bytes=8192, feature="tools"
    )

    assert known == {
        "tenant": "acme",
        "language": "de",
        "prompt_length": "long",
        "feature": "tools",
    }
    assert known_of(tenant="", language="*", content_bytes=None, feature="x" * 65) == {}
    lengths = [
        known_of(tenant="", language="", content_bytes=size, feature="")["prompt_length"]
        for size in (1023, 1024, 8191)
    ]
    assert lengths == ["short", "medium", "medium"]
    assert is_of(known, "tenant=acme")
    assert not is_of(known, "tenant=other")


def test_segments_worth_judging_are_neither_rare_nor_nearly_all() -> None:
    seen = [
        {"language": "de" if place % 5 == 0 else "en", "tenant": "one", "feature": f"{place}"}
        for place in range(300)
    ]

    assert frequent((Dimension.LANGUAGE,), seen) == ("language=en", "language=de")
    assert frequent((Dimension.TENANT, Dimension.FEATURE), seen) == ()
    assert frequent((Dimension.LANGUAGE,), seen[:200]) == ("language=en",)


def test_a_plan_names_each_dimension_once() -> None:
    with pytest.raises(Rejected, match="each once"):
        ReleasePlan(segments=(Dimension.TENANT, Dimension.TENANT))


def test_whole_and_segments_share_one_error_rate() -> None:
    shares = BEGUN.shares()
    within = [meter.guard for meter in BEGUN.segments[Group.FAST].meters]

    assert shares == {Group.FAST: 0.5}
    assert group_shares(PLAN.guards) == {Group.FAST: 1.0}
    assert weights_of(within) == (0.25,) * 4
    assert BEGUN.segment_names == ("language=de", "language=en")
    limits = [math.exp(f.harm_limit) for f in segment_findings(BEGUN)]
    assert limits == pytest.approx([800.0] * 4)
    assert [math.exp(f.harm_limit) for f in findings(BEGUN)] == pytest.approx([400.0] * 2)


def test_a_segment_is_judged_in_long_blocks_that_end_where_short_ones_do() -> None:
    stream = spoken(np.random.default_rng(1), SEGMENT_BLOCK_UNITS + 30, 5_000)

    some = observe(BEGUN, stream[: SEGMENT_BLOCK_UNITS - 1], 5_000)
    more = observe(some, stream, 5_000)

    assert (some.watermark, some.taken(Group.FAST)) == (SEGMENT_BLOCK_UNITS - 20, 0)
    assert more.taken(Group.FAST) == SEGMENT_BLOCK_UNITS
    assert more.watermark == SEGMENT_BLOCK_UNITS + 20
    german = more.meter("errors in language=de").tally.units
    assert german == sum(u.known["language"] == "de" for u in stream[:SEGMENT_BLOCK_UNITS])


def until_harm(seed: int, begun: Evidence) -> tuple[int, Evidence]:
    stream = spoken(np.random.default_rng(seed), 12_000, 500, german_fails=0.5)
    evidence = begun
    for end in range(200, len(stream) + 1, 200):
        evidence = observe(evidence, stream[evidence.taken(Group.FAST) : end], 500)
        if evidence.log_harm >= LOG_THRESHOLD:
            return evidence.fast.units.canary_units, evidence
    raise AssertionError("a half of what a tenth of the users ask fails")


def test_a_regression_in_a_tenth_is_found_sooner_and_named() -> None:
    """Half of the German answers fail, which is one in twenty of all."""
    whole, within = [], []
    for seed in range(5):
        whole.append(until_harm(seed, first_evidence(PLAN, USUAL))[0])
        found, evidence = until_harm(seed, BEGUN)
        within.append(found)
        named = [f.guard.label for f in segment_findings(evidence) if f.is_guilty]
        assert all("in language=de" in label for label in named)
        if named:
            assert f"{named[0]}: " in accuse(evidence)

    assert float(np.median(within)) < float(np.median(whole))


def test_a_version_that_is_no_worse_is_kept_with_all_segments() -> None:
    """One in a hundred is not: two of eight are, once in four hundred times."""
    rolled_back = 0
    for seed in range(8):
        stream = spoken(np.random.default_rng(100 + seed), 2_000, 3_000, german_fails=0.0)
        evidence = BEGUN
        for end in range(200, len(stream) + 1, 200):
            evidence = observe(evidence, stream[evidence.taken(Group.FAST) : end], 3_000)
            if evidence.log_harm >= LOG_THRESHOLD:
                rolled_back += 1
                break

    assert rolled_back < 2


def test_a_list_of_many_names_more_than_each_alone_would() -> None:
    """e-BH: two of four at half of the limit of one alone are on the list."""
    weights, limit = (0.25,) * 4, math.log(100.0)
    half = math.log(100.0 * 4 / 2) + 1e-9

    assert listed([half, half, 0.0, 0.0], weights, limit) == [True, True, False, False]
    assert listed([half, 0.0, 0.0, 0.0], weights, limit) == [False] * 4
    # Together they reach the limit, though none may be named by the list's own rule.
    spread = [math.log(110.0), math.log(109.0), math.log(109.0), math.log(109.0)]
    assert sum(listed(spread, weights, limit)) >= 1


def test_an_average_that_reaches_the_limit_always_names_one() -> None:
    chance = random.Random(4)
    for _ in range(300):
        logs = [chance.uniform(0.0, 7.0) for _ in range(6)]
        average = sum(math.exp(log) for log in logs) / 6
        if average >= 100.0:
            assert any(listed(logs, (1 / 6,) * 6, math.log(100.0)))


def test_a_judge_that_is_killed_knows_bit_for_bit_the_same_within_segments() -> None:
    chance = random.Random(3)
    stream = spoken(np.random.default_rng(2), 1_500, 3_000, german_fails=0.2)
    # Weights move, and a segment's block is cut short.
    stream = [replace(u, revision=1 + u.sequence // 550) for u in stream]
    undisturbed = observe(BEGUN, stream, 3_000)
    saved, there, kills = evidence_to_json(BEGUN), 0, 0
    while there < len(stream):
        there = min(len(stream), there + chance.randrange(40))
        looked = evidence_from_json(json.loads(json.dumps(saved)), PLAN)
        looked = observe(looked, stream[looked.taken(Group.FAST) : there], 3_000)
        # Killed before what it found is saved; the last look is not.
        if chance.random() < 0.4 and there < len(stream):
            kills += 1
            continue
        saved = evidence_to_json(looked)

    assert kills > 20
    assert saved == evidence_to_json(undisturbed)


def test_verdicts_come_out_again_and_other_rules_judge_the_same_segments() -> None:
    stream = spoken(np.random.default_rng(5), 3_000, 2_000, german_fails=0.5)
    evidence, found = BEGUN, []
    for end in range(70, 1_500, 70):
        evidence = observe(evidence, stream[:end], 2_000)
        places = {group: stream_.watermark for group, stream_ in evidence.streams.items()}
        found.append(Recorded("move", 20.0, "", describe(evidence), places))

    again = list(replay(BEGUN, {Group.FAST: stream}, found))
    plain = otherwise(replace(PLAN, segments=()), BEGUN, {Group.FAST: stream})
    within = otherwise(PLAN, BEGUN, {Group.FAST: stream})

    assert [each.differences for each in again] == [[]] * len(found)
    assert "errors in language=de.e" in found[-1].numbers
    assert (plain.decision, within.decision) == ("rolled back", "rolled back")


def test_a_report_lists_where_it_is_worse() -> None:
    _, evidence = until_harm(1, BEGUN)
    release = Release(
        id=ReleaseId("r"), project="p", candidate=VersionId("new"), baseline=VersionId("old"),
        notches_percent=(), stage=Stage.ROLLED_BACK,
    )  # fmt: skip

    page = markdown(release, PLAN, evidence, "", [])

    assert "## Within segments" in page
    assert "| errors in language=de |" in page


def test_a_report_shows_the_worst_segments_and_not_all() -> None:
    many = {f"tenant=t{number}": USUAL for number in range(4)}
    release = Release(
        id=ReleaseId("r"), project="p", candidate=VersionId("new"), baseline=VersionId("old"),
        notches_percent=(), stage=Stage.CANARY,
    )  # fmt: skip

    page = markdown(release, PLAN, first_evidence(PLAN, USUAL, 0, many), "", [])

    assert page.count(" in tenant=") == 5
