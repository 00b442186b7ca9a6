"""Our values as JSON columns and back.  Floats survive bit for bit (Python prints the shortest
text that reads back the same)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from ratchet.core import serving
from ratchet.core.analysis import Evidence, Safety, Tally
from ratchet.core.gates import ItemResult, SuiteReport
from ratchet.core.spec import (
    BaseModel,
    Drill,
    EngineKind,
    Gate,
    Lora,
    ReleasePlan,
    Spec,
    Train,
)
from ratchet.stats.betting import RegressionBound
from ratchet.stats.eprocess import Capital
from ratchet.stats.harm import Scale, Shift, Slower, YesNo


def plan_to_json(plan: ReleasePlan) -> dict[str, Any]:
    return asdict(plan)


def plan_from_json(value: dict[str, Any]) -> ReleasePlan:
    drill = value.get("drill")
    notches = tuple(value["notches_percent"])
    rest = {k: v for k, v in value.items() if k not in ("drill", "notches_percent")}
    return ReleasePlan(notches_percent=notches, drill=Drill(**drill) if drill else None, **rest)


def spec_to_json(spec: Spec) -> dict[str, Any]:
    value = asdict(spec)
    value["engine"] = spec.engine.value
    value["serving"] = serving.to_json(spec.serving)
    return value


def spec_from_json(value: dict[str, Any]) -> Spec:
    train = dict(value["train"])
    lora = Lora(**train.pop("lora"))
    return Spec(
        project=value["project"],
        served_name=value["served_name"],
        base=BaseModel(**value["base"]),
        train_files=tuple(value["train_files"]),
        bad_rows_max_share=value["bad_rows_max_share"],
        train=Train(lora=lora, **train),
        suites=tuple(value["suites"]),
        gates=tuple(Gate(**gate) for gate in value["gates"]),
        engine=EngineKind(value["engine"]),
        serving=serving.from_json(value.get("serving", {})),
        release=plan_from_json(value["release"]),
    )


def evidence_to_json(evidence: Evidence) -> dict[str, Any]:
    return {
        "errors": _capital_to_json(evidence.errors.capital),
        "whole": _capital_to_json(evidence.latency.whole.capital),
        "tails": _capital_to_json(evidence.latency.tails.capital),
        "failed": asdict(evidence.failed),
        "slow": [asdict(tally) for tally in evidence.slow],
        "scale": None if evidence.scale is None else asdict(evidence.scale),
        "warming_ms": list(evidence.warming_ms),
        "watermark": evidence.watermark,
        "notch_units": evidence.notch_units,
        "weight_units": evidence.weight_units,
        "epochs": evidence.epochs,
        "safety": None if evidence.safety is None else _safety_to_json(evidence.safety),
    }


def evidence_from_json(value: dict[str, Any]) -> Evidence:
    """What `evidence_to_json` made.  Of an older judge only the places are kept: the evidence
    itself begins anew."""
    places = {"watermark": value["watermark"], "notch_units": value["notch_units"]}
    if "whole" not in value:
        return Evidence(**places)
    scale = value["scale"]
    return Evidence(
        errors=YesNo(_capital(value["errors"])),
        latency=Slower(Shift(_capital(value["whole"])), YesNo(_capital(value["tails"]))),
        failed=Tally(**value["failed"]),
        slow=tuple(Tally(**tally) for tally in value["slow"]),
        scale=None if scale is None else Scale(**{**scale, "bounds": tuple(scale["bounds"])}),
        warming_ms=tuple(value["warming_ms"]),
        weight_units=value["weight_units"],
        safety=None if value["safety"] is None else _safety(value["safety"]),
        epochs=value["epochs"],
        **places,
    )


def _safety_to_json(safety: Safety) -> dict[str, Any]:
    errors = safety.errors
    return {
        "latency": _capital_to_json(safety.latency.capital),
        "errors": {
            "log_capital": errors.log_capital.tolist(),
            "units": float(errors.units),
            "total": float(errors.total),
            "margins": errors.margins.tolist(),
        },
    }


def _safety(value: dict[str, Any]) -> Safety:
    arrays = {name: np.array(part) for name, part in value["errors"].items()}
    return Safety(RegressionBound(**arrays), Shift(_capital(value["latency"])))


def _capital_to_json(capital: Capital) -> dict[str, Any]:
    return {
        "log_bets": capital.log_bets.tolist(),
        "epoch": capital.epoch,
        "waiting": capital.waiting,
    }


def _capital(value: dict[str, Any]) -> Capital:
    return Capital(np.array(value["log_bets"]), value["epoch"], value["waiting"])


def suite_report_to_json(report: SuiteReport) -> dict[str, Any]:
    return asdict(report)


def suite_report_from_json(value: dict[str, Any]) -> SuiteReport:
    return SuiteReport(
        suite=value["suite"],
        digest=value["digest"],
        items=tuple(ItemResult(**item) for item in value["items"]),
    )
