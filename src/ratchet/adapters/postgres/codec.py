"""Our values as JSON columns and back; evidence has a module of its own."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from ratchet.core import serving
from ratchet.core.detectors import Detector
from ratchet.core.gates import ItemResult, SuiteReport
from ratchet.core.guards import ERRORS, LATENCY, Group, Guard, Kind
from ratchet.core.notices import Channel, Service
from ratchet.core.place import Place
from ratchet.core.retention import Retention
from ratchet.core.scrapes import CountQuery
from ratchet.core.segments import Dimension
from ratchet.core.shadow import PairJudge, Shadow
from ratchet.core.spec import (
    BaseModel,
    DataPlan,
    Drill,
    EngineKind,
    Gate,
    LearnedTurns,
    Lora,
    Personal,
    ReleasePlan,
    Spec,
    Train,
)
from ratchet.core.triggers import CatchUp, Concurrency, Merge, Schedule, Triggers


def plan_to_json(plan: ReleasePlan) -> dict[str, Any]:
    return {
        **asdict(plan),
        "guards": [guard_to_json(guard) for guard in plan.guards],
        "notify": [channel_to_json(channel) for channel in plan.notify],
        "segments": [dimension.value for dimension in plan.segments],
    }


def plan_from_json(value: dict[str, Any]) -> ReleasePlan:
    """What `plan_to_json` made, by this or an older Ratchet."""
    known = dict(value)
    known["notches_percent"] = tuple(known["notches_percent"])
    known["notify"] = tuple(map(channel_from_json, known.get("notify", ())))
    known["segments"] = tuple(Dimension(name) for name in known.get("segments", ()))
    known["freeze"] = tuple(known.get("freeze", ()))
    known["detectors"] = tuple(
        Detector(**{**each, "labels": tuple(each["labels"])}) for each in known.get("detectors", ())
    )
    known["shadow"] = _shadow(known["shadow"]) if known.get("shadow") else None
    known["queries"] = tuple(CountQuery(**each) for each in known.get("queries", ()))
    known["drill"] = Drill(**known["drill"]) if known.get("drill") else None
    errors, latency = known.pop("errors_margin", None), known.pop("latency_margin", None)
    if errors is not None and latency is not None:
        # Before guards had a list.
        slower = replace(LATENCY, margin=latency, tolerance=latency)
        known["guards"] = (replace(ERRORS, margin=errors), slower)
    else:
        known["guards"] = tuple(guard_from_json(guard) for guard in known["guards"])
    return ReleasePlan(**known)


def _shadow(value: dict[str, Any]) -> Shadow:
    judge = value["judge"]
    return Shadow(pairs=value["pairs"], judge=PairJudge(**judge) if judge else None)


def channel_to_json(channel: Channel) -> dict[str, str]:
    return {
        "service": channel.service.value, "variable": channel.variable, "url": channel.url
    }  # fmt: skip


def channel_from_json(value: dict[str, str]) -> Channel:
    return Channel(
        service=Service(value["service"]), variable=value["variable"], url=value["url"]
    )  # fmt: skip


def guard_to_json(guard: Guard) -> dict[str, Any]:
    return {**asdict(guard), "kind": guard.kind.value, "group": guard.group.value}


def guard_from_json(value: dict[str, Any]) -> Guard:
    known = {**value, "kind": Kind(value["kind"]), "group": Group(value["group"])}
    return Guard(**known)


def triggers_to_json(triggers: Triggers) -> dict[str, Any]:
    value = asdict(triggers)
    value["concurrency"] = triggers.concurrency.value
    if triggers.schedule is not None:
        value["schedule"]["catch_up"] = triggers.schedule.catch_up.value
    return value


def triggers_from_json(value: dict[str, Any]) -> Triggers:
    """What `triggers_to_json` made; of a project from before there were triggers, none."""
    if not value:
        return Triggers()
    known = dict(value)
    known["concurrency"] = Concurrency(known["concurrency"])
    if known["merge"] is not None:
        known["merge"] = Merge(**{**known["merge"], "paths": tuple(known["merge"]["paths"])})
    if known["schedule"] is not None:
        catch_up = CatchUp(known["schedule"]["catch_up"])
        known["schedule"] = Schedule(**{**known["schedule"], "catch_up": catch_up})
    return Triggers(**known)


def spec_to_json(spec: Spec) -> dict[str, Any]:
    value = asdict(spec)
    value["engine"] = spec.engine.value
    value["place"] = spec.place.to_json()
    value["data"]["personal"] = spec.data.personal.value
    value["serving"] = serving.to_json(spec.serving)
    value["release"] = plan_to_json(spec.release)
    value["triggers"] = triggers_to_json(spec.triggers)
    return value


def spec_from_json(value: dict[str, Any]) -> Spec:
    train = dict(value["train"])
    lora = Lora(**train.pop("lora"))
    train |= {key: tuple(train[key]) for key in ("command", "files") if key in train}
    return Spec(
        project=value["project"],
        served_name=value["served_name"],
        base=BaseModel(**value["base"]),
        data=_data(value),
        train=Train(lora=lora, **train),
        place=Place.from_json(value.get("place", {})),
        suites=tuple(value["suites"]),
        gates=tuple(Gate(**gate) for gate in value["gates"]),
        engine=EngineKind(value["engine"]),
        serving=serving.from_json(value.get("serving", {})),
        release=plan_from_json(value["release"]),
        triggers=triggers_from_json(value.get("triggers", {})),
        retention=Retention(**value.get("retention", {})),
    )


def _data(value: dict[str, Any]) -> DataPlan:
    if "data" not in value:
        # Before there was more to say of data.
        return DataPlan(
            files=tuple(value["train_files"]), bad_rows_max_share=value["bad_rows_max_share"]
        )
    known = dict(value["data"])
    known["files"] = tuple(known["files"])
    known["personal"] = Personal(known["personal"])
    if (turns := known.get("turns")) is not None:
        known["turns"] = LearnedTurns(**{**turns, "keys": tuple(turns["keys"])})
    return DataPlan(**known)


def suite_report_to_json(report: SuiteReport) -> dict[str, Any]:
    return asdict(report)


def suite_report_from_json(value: dict[str, Any]) -> SuiteReport:
    return SuiteReport(
        suite=value["suite"],
        digest=value["digest"],
        items=tuple(ItemResult(**item) for item in value["items"]),
        memory_bytes=value.get("memory_bytes", 0),
    )
