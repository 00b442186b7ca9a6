"""Our values as JSON columns and back.  Floats survive bit for bit (Python prints the shortest
text that reads back the same)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ratchet.core import serving
from ratchet.core.analysis import Evidence
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
from ratchet.stats.sequential import BinaryEvidence


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
    return asdict(evidence)


def evidence_from_json(value: dict[str, Any]) -> Evidence:
    return Evidence(
        errors=_binary(value["errors"]),
        latency=tuple(_binary(metric) for metric in value["latency"]),
        reference_ms=tuple(value["reference_ms"]),
        warming_ms=tuple(value["warming_ms"]),
        watermark=value["watermark"],
        notch_units=value["notch_units"],
    )


def _binary(value: dict[str, Any]) -> BinaryEvidence:
    return BinaryEvidence(**{**value, "log_capital": tuple(value["log_capital"])})


def suite_report_to_json(report: SuiteReport) -> dict[str, Any]:
    return asdict(report)


def suite_report_from_json(value: dict[str, Any]) -> SuiteReport:
    return SuiteReport(
        suite=value["suite"],
        digest=value["digest"],
        items=tuple(ItemResult(**item) for item in value["items"]),
    )
