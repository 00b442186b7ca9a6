"""Evidence as a JSON column and back.  Floats survive bit for bit: Python prints the shortest text
that reads back the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ratchet.core.evidence import Evidence, Stream, first_evidence
from ratchet.core.guards import Group
from ratchet.core.meters import (
    AmountMeter,
    Difference,
    Meter,
    RateMeter,
    Reference,
    ScoreMeter,
    Tally,
    TimeMeter,
)
from ratchet.core.presence import Presence
from ratchet.core.spec import ReleasePlan
from ratchet.stats.betting import RegressionBound
from ratchet.stats.eprocess import Capital
from ratchet.stats.harm import Scale, Shift, Slower, YesNo
from ratchet.stats.split import SplitCheck

Json = dict[str, Any]


def evidence_to_json(evidence: Evidence) -> Json:
    return {
        "streams": {group.value: _stream(stream) for group, stream in evidence.streams.items()},
        "segments": {group.value: _stream(stream) for group, stream in evidence.segments.items()},
        "segment_names": evidence.segment_names,
        "spent": evidence.spent,
        "split": asdict(evidence.split),
        "censored": asdict(evidence.censored),
        "notch_units": evidence.notch_units,
        "weight_units": evidence.weight_units,
    }


def evidence_from_json(value: Json, plan: ReleasePlan) -> Evidence:
    """What `evidence_to_json` made.  Of an older judge only the place is kept: the evidence
    itself begins anew."""
    if "streams" not in value:
        return first_evidence(plan, {}, value["watermark"])
    names = value.get("segment_names", ())
    fresh = first_evidence(plan, {}, segments={name: {} for name in names})
    return Evidence(
        streams={
            group: _filled(stream, value["streams"][group.value])
            for group, stream in fresh.streams.items()
        },
        segments={
            group: _filled(stream, value["segments"][group.value])
            for group, stream in fresh.segments.items()
        },
        spent=value.get("spent", 0.0),
        split=SplitCheck(**value["split"]),
        censored=Tally(**value["censored"]),
        notch_units=value["notch_units"],
        weight_units=value["weight_units"],
    )


def _stream(stream: Stream) -> Json:
    return {
        "meters": {meter.guard.label: _meter(meter) for meter in stream.meters},
        "watermark": stream.watermark,
        "revision": stream.revision,
        "units": asdict(stream.units),
        "stragglers": stream.stragglers,
        "epochs": stream.epochs,
        "presence": {
            name: {"missing": _capital(each.missing.capital), "tally": asdict(each.tally)}
            for name, each in stream.presence.items()
        },
    }


def _filled(fresh: Stream, value: Json) -> Stream:
    return Stream(
        meters=tuple(_meter_from(m, value["meters"][m.guard.label]) for m in fresh.meters),
        watermark=value["watermark"],
        revision=value["revision"],
        units=Tally(**value["units"]),
        stragglers=value["stragglers"],
        epochs=value["epochs"],
        presence={
            # Of a release that an older Ratchet began: from here on.
            name: _presence(value["presence"][name]) if name in value.get("presence", ()) else new
            for name, new in fresh.presence.items()
        },
    )


def _presence(value: Json) -> Presence:
    return Presence(YesNo(_capital_from(value["missing"])), Tally(**value["tally"]))


def _meter(meter: Meter) -> Json:
    shared = {
        "difference": {
            "above": _bound(meter.difference.above),
            "below": _bound(meter.difference.below),
        },
        "tally": asdict(meter.tally),
    }
    if isinstance(meter, RateMeter):
        return {**shared, "harm": _capital(meter.harm.capital)}
    shared["reference"] = _reference(meter.reference)
    if isinstance(meter, TimeMeter):
        return {
            **shared,
            "whole": _capital(meter.harm.whole.capital),
            "tails": _capital(meter.harm.tails.capital),
            "safe": _capital(meter.safe.capital),
            "slow": [asdict(tally) for tally in meter.slow],
        }
    if isinstance(meter, ScoreMeter):
        return {**shared, "harm": _capital(meter.harm.capital)}
    return {
        **shared,
        "more": _capital(meter.more.capital),
        "less": _capital(meter.less.capital),
        "not_more": _capital(meter.not_more.capital),
        "not_less": _capital(meter.not_less.capital),
    }


def _meter_from(fresh: Meter, value: Json) -> Meter:
    difference = Difference(
        _bound_from(value["difference"]["above"], fresh.difference.above),
        _bound_from(value["difference"]["below"], fresh.difference.below),
    )
    tally = Tally(**value["tally"])
    if isinstance(fresh, RateMeter):
        harm = YesNo(_capital_from(value["harm"]))
        return replace(fresh, difference=difference, tally=tally, harm=harm)
    reference = _reference_from(value["reference"])
    if isinstance(fresh, TimeMeter):
        return replace(
            fresh,
            difference=difference,
            tally=tally,
            reference=reference,
            harm=Slower(Shift(_capital_from(value["whole"])), YesNo(_capital_from(value["tails"]))),
            safe=Shift(_capital_from(value["safe"])),
            slow=tuple(Tally(**each) for each in value["slow"]),
        )
    if isinstance(fresh, ScoreMeter):
        shift = Shift(_capital_from(value["harm"]))
        return replace(fresh, difference=difference, tally=tally, reference=reference, harm=shift)
    return _amount_from(fresh, value, difference, reference)


def _amount_from(
    fresh: AmountMeter, value: Json, difference: Difference, reference: Reference
) -> AmountMeter:
    return replace(
        fresh,
        difference=difference,
        tally=Tally(**value["tally"]),
        reference=reference,
        more=Shift(_capital_from(value["more"])),
        less=Shift(_capital_from(value["less"])),
        not_more=Shift(_capital_from(value["not_more"])),
        not_less=Shift(_capital_from(value["not_less"])),
    )


def _reference(reference: Reference) -> Json:
    scale = reference.scale
    return {"scale": None if scale is None else asdict(scale), "warming": list(reference.warming)}


def _reference_from(value: Json) -> Reference:
    scale = value["scale"]
    known = None if scale is None else Scale(**{**scale, "bounds": tuple(scale["bounds"])})
    return Reference(known, tuple(value["warming"]))


def _bound(bound: RegressionBound) -> Json:
    return {
        "log_capital": bound.log_capital.tolist(),
        "units": float(bound.units),
        "total": float(bound.total),
    }


def _bound_from(value: Json, fresh: RegressionBound) -> RegressionBound:
    """Margins follow from the guard."""
    arrays = {name: np.array(part) for name, part in value.items()}
    return replace(fresh, **arrays)


def _capital(capital: Capital) -> Json:
    return {
        "log_bets": capital.log_bets.tolist(),
        "epoch": capital.epoch,
        "waiting": capital.waiting,
    }


def _capital_from(value: Json) -> Capital:
    return Capital(np.array(value["log_bets"]), value["epoch"], value["waiting"])


def watermarks(evidence: Evidence) -> dict[str, int]:
    return {group.value: stream.watermark for group, stream in evidence.streams.items()}


def watermarks_from(value: Mapping[str, int]) -> dict[Group, int]:
    return {Group(name): place for name, place in value.items()}
