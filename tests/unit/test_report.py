"""A release as a page, and a release played before there is one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from ratchet.core.artifact import VersionId
from ratchet.core.detectors import Detector
from ratchet.core.evidence import first_evidence, observe, ready
from ratchet.core.guards import KNOWN, with_always
from ratchet.core.planning import Traffic
from ratchet.core.rehearsal import Looked, Suppose, only_measured, rehearse
from ratchet.core.report import Entry, amount, markdown, power
from ratchet.core.rollout import Release, ReleaseId, Stage
from ratchet.core.segments import Dimension
from ratchet.core.shadow import Outcome, Pair, Shadow, shadowed
from ratchet.core.spec import ReleasePlan
from tests.units import USUAL, units

PLAN = ReleasePlan()
RELEASE = Release(
    id=ReleaseId("rel_1"), project="p", candidate=VersionId("v_new"), baseline=VersionId("v_old"),
    notches_percent=(), stage=Stage.ROLLED_BACK,
)  # fmt: skip
AT = datetime(2026, 11, 25, 3, 4, 5, tzinfo=UTC)


def test_a_page_says_what_was_seen_who_decided_and_what_it_means() -> None:
    stream = units(200, canary_every=20, canary_fails=True)
    stream[0] = replace(stream[0], waiting_seconds=99.0)
    evidence = observe(first_evidence(PLAN, USUAL), ready(stream, 60.0).units, 500)
    ledger = [Entry(at=AT, from_stage="canary", to_stage="rolled_back", weight_percent=0,
                    because="errors: a | b", who="judge")]  # fmt: skip

    page = markdown(RELEASE, PLAN, evidence, "errors: a | b", ledger)

    assert page.startswith("# Release rel_1: rolled back\n")
    assert "10 canary answers and 190 baseline answers" in page
    assert "1 of them did not end within 60 s" in page
    assert "of 100 that were accepted" in page
    assert "| errors, of the answers | 100.00% | 0.53% |" in page
    assert "| guilty |" in page
    assert "| 2026-11-25 03:04:05 | canary | rolled_back | 0 % | errors: a \\| b | judge |" in page
    assert "at most 1% of the releases" in page


def test_a_page_of_notches_claims_no_proof() -> None:
    plan = ReleasePlan(notches_percent=(5, 100), harm_budget=None)

    page = markdown(RELEASE, plan, first_evidence(plan, {}), "", [])

    assert "proves nothing" in page
    assert "| latency_p95, of the answers above the baseline's p95 | – | – |" in page


def test_a_page_tells_what_was_replayed_and_how_often_people_agreed_with_the_judge() -> None:
    worse, better = Pair({"format": Outcome.WORSE}), Pair({"judge": Outcome.BETTER})
    seen = shadowed([worse, worse, Pair(silence="timed out"), None])
    people = shadowed([better, better, Pair({"judge": Outcome.WORSE})])

    page = markdown(RELEASE, PLAN, first_evidence(PLAN, {}), "", [], (seen, people))
    nobody = markdown(RELEASE, PLAN, first_evidence(PLAN, {}), "", [], (seen, shadowed([])))

    assert "- 2 prompts compared, 1 had no answer, 1 left" in page
    assert "| format | 2 | 0 | 0 |" in page
    assert (
        "- of 3 answers that people corrected, the judge preferred the correction 2 times" in page
    )
    assert "people corrected" not in nobody


def test_numbers_are_shown_in_their_own_unit() -> None:
    assert amount(KNOWN["errors"], 0.0123) == "1.23%"
    assert amount(KNOWN["latency_p95"], -0.02, sign=True) == "-2.00%"
    assert amount(KNOWN["cost"], 0.00123, sign=True) == "+0.00123"
    assert (power(0.0), power(99.0)) == ("1", "over a million")


def ending(
    suppose: Suppose, *, plan: ReleasePlan = PLAN, per_second: float = 10.0, hours: float = 2.0
) -> Looked:
    traffic = Traffic(per_second=per_second, error_rate=0.01)
    chance = np.random.default_rng(1)
    return list(rehearse(plan, traffic, suppose, chance, hours * 3600))[-1]


def test_a_rehearsal_ends_as_the_canary_deserves() -> None:
    good = ending(Suppose(error_rate=0.01))
    bad = ending(Suppose(error_rate=0.05))
    slow = ending(Suppose(error_rate=0.01, slower=0.5))
    short = ending(Suppose(error_rate=0.01), hours=0.05)

    assert good.release.stage is Stage.PROMOTED
    assert bad.release.stage is slow.release.stage is Stage.ROLLED_BACK
    assert "latency_p95" in slow.verdict.because
    assert (short.release.stage, short.seconds) == (Stage.CANARY, 180.0)


def test_a_rehearsal_of_notches_climbs_them() -> None:
    plan = ReleasePlan(notches_percent=(5, 50, 100), harm_budget=None, units_per_notch=20)

    assert ending(Suppose(error_rate=0.01), plan=plan).release.stage is Stage.PROMOTED


def test_a_rehearsal_leaves_out_what_it_has_no_values_for() -> None:
    plan = replace(
        PLAN,
        guards=with_always([KNOWN["cost"], KNOWN["ttft_p95"], KNOWN["format"]]),
        detectors=(Detector("format", labels=("a",)),),
        shadow=Shadow(),
        segments=(Dimension.TENANT,),
    )

    left = only_measured(plan)

    assert (left.shadow, left.segments, left.detectors) == (None, (), ())
    assert [guard.name for guard in left.guards] == ["errors", "latency_p95", "ttft_p95"]
