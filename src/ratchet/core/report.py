"""A release as a page of Markdown: what was asked, what was seen, who decided what and why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.core.evidence import Evidence
from ratchet.core.findings import (
    FALSE_ROLLBACK_RATE,
    Finding,
    findings,
    regression_max,
    segment_findings,
    unit_of,
)
from ratchet.core.guards import Guard
from ratchet.core.meters import LOG_MAX
from ratchet.core.rollout import Release
from ratchet.core.shadow import Shadowed
from ratchet.core.spec import ReleasePlan

SEGMENTS_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the ledger."""

    at: datetime
    from_stage: str
    to_stage: str
    weight_percent: float
    because: str
    who: str


def markdown(
    release: Release,
    plan: ReleasePlan,
    evidence: Evidence,
    because: str,
    ledger: Sequence[Entry],
    shadow: tuple[Shadowed, Shadowed] | None = None,
) -> str:
    """The whole page; `shadow` has the replayed prompts, and what its judge said of answers that
    people corrected."""
    lines = [
        f"# Release {release.id}: {release.stage.value.replace('_', ' ')}",
        "",
        f"`{release.candidate}` against `{release.baseline}`, project {release.project}.",
        "",
        f"> {because}",
        "",
        *(() if shadow is None else _shadow(*shadow)),
        *_seen(plan, evidence),
        *_guards(findings(evidence)),
        *_segments(evidence),
        *_ledger(ledger),
        *_promises(plan),
    ]
    return "\n".join(lines) + "\n"


def _shadow(seen: Shadowed, people: Shadowed) -> Iterator[str]:
    yield "## Shadow: what the baseline was asked, asked again"
    yield ""
    yield f"- {seen.compared} prompts compared, {seen.silent} had no answer, {seen.left} left"
    agreed = sum(check.better for check in people.checks)
    told = sum(check.worse + check.better for check in people.checks)
    if told:
        yield (
            f"- of {told} answers that people corrected, the judge preferred the correction "
            f"{agreed} times"
        )
    yield ""
    yield "| check | canary worse | same | canary better | evidence of harm |"
    yield "|---|---|---|---|---|"
    for check in seen.checks:
        yield (
            f"| {check.name} | {check.worse} | {check.same} | {check.better} | "
            f"{power(check.log_harm)} |"
        )
    yield ""


def _seen(plan: ReleasePlan, evidence: Evidence) -> Iterator[str]:
    units = evidence.fast.units
    yield "## What was seen"
    yield ""
    yield (
        f"- {units.canary_units} canary answers and {units.baseline_units} baseline answers, each "
        "the first of its conversation under one weight"
    )
    if evidence.censored.units:
        yield (
            f"- {evidence.censored.total:.0f} of them did not end within "
            f"{plan.deadline_seconds:g} s and count as failed"
        )
    worst = regression_max(evidence)
    harmed = worst * units.canary_units
    budget = "" if plan.harm_budget is None else f", of {plan.harm_budget:g} that were accepted"
    yield f"- more failures than the baseline's: at most {worst:.2%}, so {harmed:.0f}{budget}"
    yield ""


def _guards(found: Sequence[Finding]) -> Iterator[str]:
    yield "## Guards"
    yield ""
    yield (
        "| guard | canary | baseline | difference, 99 % at all times | evidence of harm | "
        "evidence of safety | |"
    )
    yield "|---|---|---|---|---|---|---|"
    for finding in found:
        guard = finding.guard
        shown = [amount(guard, value) for value in (finding.canary, finding.baseline)]
        between = [amount(guard, value, sign=True) for value in (finding.low, finding.high)]
        harm = f"{power(finding.log_harm)} of {power(finding.harm_limit)}"
        safe = f"{power(finding.log_safe)} of {1 / FALSE_ROLLBACK_RATE:g}"
        state = "guilty" if finding.is_guilty else "proven" if finding.is_proven else ""
        yield (
            f"| {guard.name}, {unit_of(guard)} | {shown[0]} | {shown[1]} | "
            f"{between[0]} to {between[1]} | {harm} | {safe} | {state} |"
        )
    yield ""


def _segments(evidence: Evidence) -> Iterator[str]:
    names = evidence.segment_names
    if not names:
        return
    yield "## Within segments"
    yield ""
    yield (
        f"Judged within {', '.join(names)}, each guard in each. Most evidence of harm, and on the "
        "list of those that are worse (of such names at most 1 % are wrong):"
    )
    yield ""
    yield "| guard | canary | baseline | evidence of harm | |"
    yield "|---|---|---|---|---|"
    for place, finding in enumerate(segment_findings(evidence)):
        if finding.is_guilty or place < SEGMENTS_SHOWN:
            shown = [amount(finding.guard, each) for each in (finding.canary, finding.baseline)]
            yield (
                f"| {finding.guard.label} | {shown[0]} of {finding.canary_units} | "
                f"{shown[1]} of {finding.baseline_units} | "
                f"{power(finding.log_harm)} of {power(finding.harm_limit)} | "
                f"{'guilty' if finding.is_guilty else ''} |"
            )
    yield ""


def amount(guard: Guard, value: float, *, sign: bool = False) -> str:
    """A guard's number as people read it."""
    if math.isnan(value):
        return "–"
    if guard.is_share_shown:
        return f"{value:+.2%}" if sign else f"{value:.2%}"
    return f"{value:+.3g}" if sign else f"{value:.3g}"


def power(log: float) -> str:
    """Evidence whose logarithm this is."""
    value = math.exp(min(log, LOG_MAX))
    return f"{value:.2g}" if value < 1e6 else "over a million"


def _ledger(ledger: Sequence[Entry]) -> Iterator[str]:
    yield "## Ledger"
    yield ""
    yield "| at (UTC) | from | to | weight | why | who |"
    yield "|---|---|---|---|---|---|"
    for entry in ledger:
        why = entry.because.replace("|", "\\|").replace("\n", " ")
        yield (
            f"| {entry.at:%Y-%m-%d %H:%M:%S} | {entry.from_stage} | {entry.to_stage} | "
            f"{entry.weight_percent:g} % | {why} | {entry.who} |"
        )
    yield ""


def _promises(plan: ReleasePlan) -> Iterator[str]:
    yield "## What this means"
    yield ""
    yield (
        f"- A version that is no worse is rolled back in at most {FALSE_ROLLBACK_RATE:.0%} of the "
        "releases, however often and however long one looks, with all guards together."
    )
    if plan.harm_budget is not None:
        yield (
            f"- A version that is worse by a guard's margin is promoted by proof in at most "
            f"{FALSE_ROLLBACK_RATE:.0%} of the releases."
        )
    else:
        yield "- It climbed by notches: that is exposure without suspicion, and proves nothing."
    yield "- `ratchet release replay` computes every number here again, bit for bit."
