"""What the evidence says of each guard, as numbers and as sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.core.evidence import Evidence, Stream
from ratchet.core.guards import ERRORS, Guard, Kind, weights_of
from ratchet.core.meters import LOG_MAX, Meter, RateMeter, TimeMeter
from ratchet.stats.harm import QUANTILES

# Chance that a release which is no worse is ever rolled back, and that one which is worse by a
# margin is ever promoted by proof.
FALSE_ROLLBACK_RATE = 0.01
LOG_THRESHOLD = math.log(1.0 / FALSE_ROLLBACK_RATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One guard: how its arms did, how they differ, what is proven."""

    guard: Guard
    canary: float
    """Mean of the canary's values: for times, the share above the baseline's p95."""
    baseline: float
    low: float
    """Canary minus baseline, at all times within these with 99 %."""
    high: float
    canary_units: int
    baseline_units: int
    log_harm: float
    harm_limit: float
    """Where `log_harm` alone rolls back."""
    log_safe: float
    is_guilty: bool

    @property
    def is_proven(self) -> bool:
        return self.log_safe >= LOG_THRESHOLD

    @property
    def units_to_proof(self) -> float:
        """Canary units that are still missing, if evidence goes on growing as it did; infinite
        when it does not grow."""
        if self.is_proven:
            return 0.0
        if self.log_safe <= 0.0 or not self.canary_units:
            return math.inf
        return self.canary_units * (LOG_THRESHOLD / self.log_safe - 1.0)


def findings(evidence: Evidence) -> list[Finding]:
    """Of every guard, in the order of the plan's groups."""
    shares = evidence.shares()
    return [
        finding
        for group, stream in evidence.streams.items()
        for finding in _of_stream(stream, shares[group], guilty)
    ]


def segment_findings(evidence: Evidence) -> list[Finding]:
    """The same of every guard within every segment, those with most evidence of harm first."""
    shares = evidence.shares()
    found = [
        finding
        for group, stream in evidence.segments.items()
        for finding in _of_stream(stream, shares[group], listed)
    ]
    return sorted(found, key=lambda finding: finding.harm_limit - finding.log_harm)


Naming = Callable[[Sequence[float], Sequence[float], float], list[bool]]


def _of_stream(stream: Stream, share: float, name: Naming) -> list[Finding]:
    weights = weights_of([meter.guard for meter in stream.meters])
    logs = [meter.log_harm for meter in stream.meters]
    limit = LOG_THRESHOLD - math.log(share)
    named = name(logs, weights, limit)
    found = []
    for meter, weight, log_harm, is_guilty in zip(stream.meters, weights, logs, named, strict=True):
        low, high = meter.difference.interval(FALSE_ROLLBACK_RATE)
        tally = meter.tally
        found.append(
            Finding(
                guard=meter.guard,
                canary=tally.canary_mean,
                baseline=tally.baseline_mean,
                low=low * meter.unit,
                high=high * meter.unit,
                canary_units=tally.canary_units,
                baseline_units=tally.baseline_units,
                log_harm=log_harm,
                harm_limit=limit - math.log(weight),
                log_safe=meter.log_safe(),
                is_guilty=is_guilty,
            )
        )
    return found


def guilty(logs: Sequence[float], weights: Sequence[float], limit: float) -> list[bool]:
    """Which of several averaged e-values may be named, with the same error rate for all together.

    One may when every average that it is part of reaches the limit: the least is that with all
    who are below it themselves.  (Closed testing with averages: Vovk and Wang, 2021.)  When the
    average of all does and that of none, the largest is named.
    """
    values = np.minimum(np.array(logs) - limit, LOG_MAX)
    shares, low = np.array(weights), values < 0.0
    capital = np.exp(values) * shares
    named = []
    for own in range(len(values)):
        others = low.copy()
        others[own] = False
        least = capital[own] + capital[others].sum()
        named.append(bool(least >= shares[own] + shares[others].sum()))
    if capital.sum() >= shares.sum() and not any(named):
        named[int(np.argmax(capital))] = True
    return named


def listed(logs: Sequence[float], weights: Sequence[float], limit: float) -> list[bool]:
    """Which of many e-values may be on a list that is wrong in at most the error rate's share of
    its names, on average.

    The k largest, for the largest k of which the least is at least the limit over k.  (Weighted
    e-BH: Wang and Ramdas, 2022.)  When their average reaches the limit and none alone does, the
    largest is named.
    """
    powers = np.array(logs) + np.log(weights) - limit
    order = np.argsort(-powers, kind="stable")
    enough = np.flatnonzero(powers[order] >= -np.log(np.arange(1, len(order) + 1)))
    named = np.zeros(len(order), dtype=bool)
    if len(enough):
        named[order[: enough[-1] + 1]] = True
    elif np.exp(np.minimum(powers, LOG_MAX)).sum() >= 1.0:
        named[order[0]] = True
    return [bool(each) for each in named]


def accuse(evidence: Evidence) -> str:
    """Name the guilty guards and the numbers a person would ask for first."""
    strength = math.exp(min(evidence.log_harm, LOG_MAX))
    proof = f"evidence {strength:.0f} against a limit of {1 / FALSE_ROLLBACK_RATE:.0f}"
    named = sorted(
        (f for f in (*findings(evidence), *segment_findings(evidence)) if f.is_guilty),
        key=lambda finding: finding.harm_limit - finding.log_harm,
    )
    said = [accusation(evidence.meter(finding.guard.label), finding) for finding in named[:2]]
    more = f"; and {', '.join(f.guard.label for f in named[2:])}" if len(named) > 2 else ""
    return f"{'; '.join(said)}{more}; {proof}"


def accusation(meter: Meter, finding: Finding) -> str:
    """How the arms differ, counted where it can be."""
    tally, name = meter.tally, finding.guard.label
    canary, baseline = tally.canary_units, tally.baseline_units
    if isinstance(meter, RateMeter):
        bad = "failed" if finding.guard.name == ERRORS.name else "were bad"
        return (
            f"{name}: {tally.canary_total:.0f} of {canary} canary answers {bad}, "
            f"{tally.total - tally.canary_total:.0f} of {baseline} baseline answers"
        )
    if isinstance(meter, TimeMeter) and meter.reference.scale is not None:
        worst = int(np.argmax(meter.harm.tails.log_e))
        slow, bound = meter.slow[worst], meter.reference.scale.values()[worst]
        return (
            f"{name}: {slow.canary_total:.0f} of {slow.canary_units} canary answers took longer "
            f"than the baseline's p{QUANTILES[worst] * 100:.0f} of {bound:.3g} "
            f"{_unit_of(finding.guard)}, "
            f"{slow.total - slow.canary_total:.0f} of {slow.baseline_units} baseline answers"
        )
    return (
        f"{name}: {_shown(finding.canary)} on average of {canary} canary answers, "
        f"{_shown(finding.baseline)} of {baseline} baseline answers"
    )


def _unit_of(guard: Guard) -> str:
    return "ms a token" if guard.name == "tokens_per_second" else "ms"


def _shown(value: float) -> str:
    return "nothing" if math.isnan(value) else f"{value:.3g}"


def describe(evidence: Evidence) -> dict[str, float]:
    """The evidence as numbers: of the whole, and of each guard under its name.  Only finite
    ones."""
    errors, fast = evidence.meter(ERRORS.name), evidence.fast.units
    numbers = {
        "e": math.exp(min(evidence.log_harm, LOG_MAX)),
        "threshold": 1.0 / FALSE_ROLLBACK_RATE,
        "canary_units": float(fast.canary_units),
        "canary_failed": errors.tally.canary_total,
        "baseline_units": float(fast.baseline_units),
        "baseline_failed": errors.tally.total - errors.tally.canary_total,
        "regression_max": regression_max(evidence),
        "e_split": math.exp(min(evidence.split.log_e, LOG_MAX)),
        "censored": evidence.censored.total,
    }
    for finding in findings(evidence):
        numbers |= {f"{finding.guard.name}.{name}": value for name, value in _flat(finding)}
    for name, presence in evidence.presence.items():
        numbers[f"{name}.e_missing"] = math.exp(min(presence.log_e, LOG_MAX))
    for finding in segment_findings(evidence):
        numbers[f"{finding.guard.label}.e"] = math.exp(min(finding.log_harm, LOG_MAX))
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _flat(finding: Finding) -> list[tuple[str, float]]:
    return [
        ("e", math.exp(min(finding.log_harm, LOG_MAX))),
        ("e_safe", math.exp(min(finding.log_safe, LOG_MAX))),
        ("canary", finding.canary),
        ("baseline", finding.baseline),
        ("low", finding.low),
        ("high", finding.high),
        ("canary_units", float(finding.canary_units)),
        ("baseline_units", float(finding.baseline_units)),
    ]


def regression_max(evidence: Evidence) -> float:
    """Upper bound on how much more often the canary fails, at all times with 99 %."""
    return float(evidence.meter(ERRORS.name).difference.above.upper(FALSE_ROLLBACK_RATE))


def unit_of(guard: Guard) -> str:
    """What a finding's numbers are of, in words."""
    return {
        Kind.RATE: "of the answers",
        Kind.TIME: "of the answers above the baseline's p95",
        Kind.AMOUNT: "on average; the interval cuts at the baseline's p99",
        Kind.SCORE: "lost of a score of 1, on average",
    }[guard.kind]


def claim(guard: Guard) -> str:
    """What the proof of a guard says, as part of a sentence."""
    margin = f"{guard.margin:.2%}" if guard.is_absolute else f"{guard.margin:.0%}"
    if guard.name == ERRORS.name:
        return f"at most {margin} more answers fail"
    if guard.kind is Kind.RATE:
        return f"{guard.name} at most {margin} more often"
    if guard.kind is Kind.SCORE:
        return f"{guard.name} at most {guard.margin:.3g} lower"
    return f"{guard.name} not {'up or down' if guard.is_two_sided else 'worse'} by {margin}"


def as_data(finding: Finding) -> dict[str, object]:
    """A finding for JSON: not-a-number and infinity are null, evidence is no logarithm."""
    guard = finding.guard
    numbers = {
        **dict(_flat(finding)),
        "limit": math.exp(min(finding.harm_limit, LOG_MAX)),
        "units_to_proof": finding.units_to_proof,
        "margin": guard.margin,
        "tolerance": guard.tolerance,
    }
    return {
        "name": guard.label,
        "kind": guard.kind.value,
        "group": guard.group.value,
        "claim": claim(guard),
        "values": unit_of(guard),
        "is_guilty": finding.is_guilty,
        "is_proven": finding.is_proven,
        "must_be_proven": guard.must_be_proven,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
    }
