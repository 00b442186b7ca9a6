"""Counters that somebody else keeps: what lies between two samples is a block."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np

from ratchet.adapters.postgres.evidence import evidence_from_json, evidence_to_json
from ratchet.core.evidence import EPOCH_SAMPLES, Evidence, count, first_evidence
from ratchet.core.findings import LOG_THRESHOLD, accuse, describe, findings
from ratchet.core.guards import Group, Guard, Kind, with_always
from ratchet.core.replay import Recorded, otherwise, replay
from ratchet.core.scrapes import Counters, CountQuery, Sample, block_between
from ratchet.core.spec import ReleasePlan

RETURNS = Guard(name="returns", kind=Kind.RATE, group=Group.SCRAPED, margin=0.02)
PLAN = ReleasePlan(
    guards=with_always([RETURNS]), queries=(CountQuery(guard="returns", bad="b", all="a"),)
)
BEGUN = first_evidence(PLAN, {})


def sample(sequence: int, canary: tuple[float, float], baseline: tuple[float, float]) -> Sample:
    arms = (Counters(*canary), Counters(*baseline))
    return Sample(
        sequence=sequence, revision=1, weight=2_000, newest_unit=sequence,
        counters={"returns": arms},
    )  # fmt: skip


def counted(rates: tuple[float, float], samples: int, seed: int = 1) -> list[Sample]:
    """A fifth of a hundred things each time is the canary's."""
    chance, found = np.random.default_rng(seed), []
    totals = np.zeros(4)
    for sequence in range(1, samples + 1):
        found.append(sample(sequence * 3, (totals[0], totals[1]), (totals[2], totals[3])))
        canary = int(chance.binomial(100, 0.2))
        totals += [
            canary, chance.binomial(canary, rates[0]),
            100 - canary, chance.binomial(100 - canary, rates[1]),
        ]  # fmt: skip
    return found


def test_what_grew_is_a_block_with_as_many_bad_of_each_arm() -> None:
    block = block_between(sample(1, (10, 1), (90, 2)), sample(2, (15, 3), (110, 2)), "returns")

    assert block is not None
    values, is_canary = block.of(RETURNS)
    assert (len(values), int(is_canary.sum()), block.share) == (25, 5, 0.2)
    assert (values[is_canary].sum(), values[~is_canary].sum()) == (2.0, 0.0)


def test_what_cannot_be_known_is_no_block() -> None:
    before = sample(1, (10, 1), (90, 2))

    def between(after: Sample) -> object:
        return block_between(before, after, "returns")

    assert between(replace(sample(2, (15, 1), (110, 2)), revision=2)) is None
    assert between(replace(before, sequence=2, counters={})) is None
    assert block_between(replace(before, counters={}), before, "returns") is None
    assert between(replace(before, sequence=2)) is None
    for canary in ((5, 0), (15, 0), (15, 8), (math.nan, 1), (math.inf, 1), (2e6, 1)):
        assert between(sample(2, canary, (110, 2))) is None


def test_harm_that_only_a_prometheus_sees_is_found_and_named() -> None:
    evidence = count(BEGUN, counted((0.2, 0.02), 60))

    assert evidence.log_harm >= LOG_THRESHOLD
    assert [f.guard.name for f in findings(evidence) if f.is_guilty] == ["returns"]
    assert "returns: " in accuse(evidence)
    assert evidence.streams[Group.SCRAPED].epochs == 59 // EPOCH_SAMPLES


def test_what_is_no_worse_is_kept_and_proven() -> None:
    kept = [count(BEGUN, counted((0.02, 0.02), 150, seed)) for seed in range(12)]

    assert sum(evidence.log_harm >= LOG_THRESHOLD for evidence in kept) == 0
    assert all(
        finding.is_proven
        for evidence in kept[:1]
        for finding in findings(count(evidence, counted((0.02, 0.02), 600, 0)))
        if finding.guard.name == "returns"
    )


def test_however_it_is_cut_into_looks_it_is_the_same() -> None:
    samples = counted((0.05, 0.02), 60)
    saved = evidence_to_json(BEGUN)
    for end in (1, 2, 7, 7, 31, 60):
        looked: Evidence = evidence_from_json(json.loads(json.dumps(saved)), PLAN)
        mark = looked.streams[Group.SCRAPED].watermark
        saved = evidence_to_json(count(looked, [s for s in samples[:end] if s.sequence >= mark]))

    assert saved == evidence_to_json(count(BEGUN, samples))


def test_verdicts_come_out_again_and_other_rules_see_the_same_counts() -> None:
    samples, recorded, evidence = counted((0.3, 0.02), 60), [], BEGUN
    for end in (0, 1, 20, 60):
        evidence = count(evidence, samples[:end])
        places = {group: stream.watermark for group, stream in evidence.streams.items()}
        recorded.append(Recorded("move", 20.0, "", describe(evidence), places))

    again = list(replay(BEGUN, {}, recorded, samples=samples))
    plain = first_evidence(ReleasePlan(), {})

    assert [each.differences for each in again] == [[]] * 4
    assert count(plain, samples) is plain
    assert otherwise(PLAN, BEGUN, {}, samples).decision == "undecided"
    assert otherwise(PLAN, BEGUN, {Group.FAST: []}, samples[:0]).decision == "undecided"
