"""`ratchet.yaml`: read, checked with line and column, turned into a `Spec`.

All problems are reported at once.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ratchet.adapters.specfile.document import Document, construct, shown
from ratchet.adapters.specfile.fields import FIELDS, GATE_BOUNDS, GATE_SLICES, NOT_BUILT
from ratchet.adapters.specfile.guards import PREFIX, guards_from, queries_from
from ratchet.adapters.specfile.values import Unfit, duration, number, share
from ratchet.core.errors import Rejected
from ratchet.core.place import Capacity, Executor, Place
from ratchet.core.retention import Retention
from ratchet.core.serving import Access, Serving, Sticky, Timeouts
from ratchet.core.spec import (
    LEARNING_RATES,
    STARTS,
    BaseModel,
    DataPlan,
    Drill,
    EngineKind,
    Gate,
    Lora,
    Personal,
    ReleasePlan,
    Spec,
    Train,
)
from ratchet.core.triggers import Concurrency, Merge, Triggers


def duration_seconds(text: str) -> float:
    """A duration as people write it.  Raises `Rejected`."""
    try:
        return duration(text)
    except Unfit as unfit:
        raise Rejected(f"found {text!r}, expected {unfit}") from unfit


class SpecFiles:
    """Specs as `SpecReader` gives them."""

    async def read(self, path: Path) -> Spec:
        return await asyncio.to_thread(load_spec, path)


def load_spec(path: Path) -> Spec:
    """Read a spec file.  Raises `Rejected` with every problem on a line of its own."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Rejected(f"{path}: cannot be read: {error.strerror}") from error
    return parse_spec(text, path)


def parse_spec(text: str, path: Path) -> Spec:
    """Parse a spec whose relative paths start from `path`'s folder.  Raises `Rejected`."""
    reader = _Reader(str(path))
    reader.read(text)
    reader.check()
    values = reader.values
    if values["model.base"].startswith("path:"):
        folder = path.parent / values["model.base"].removeprefix("path:")
        values["model.base"] = f"path:{folder.resolve()}"
    try:
        return _build(values, tuple(reader.gates))
    except Rejected as impossible:
        # Each value is right by itself, and together they are not.
        raise Rejected(f"{path}: {impossible}") from None


def _build(values: Mapping[str, Any], gates: tuple[Gate, ...]) -> Spec:
    return Spec(
        project=values["project"],
        served_name=values["model.name"],
        base=BaseModel(source=values["model.base"]),
        data=_data(values),
        train=_train(values),
        place=_place(values),
        suites=values["evaluate.suites"],
        gates=gates,
        engine=EngineKind(values.get("engine", "builtin")),
        serving=_serving(values),
        release=_release(values),
        triggers=_triggers(values),
        retention=Retention(
            **_given(
                values,
                "artifacts",
                promoted="promoted",
                age_seconds="age",
                grace_seconds="grace",
                prune="prune",
            )
        ),
    )


def _triggers(values: Mapping[str, Any]) -> Triggers:
    given = _given(
        values,
        "triggers",
        repository="repository",
        spec_path="spec",
        token_variable="token",
        report="report",
        schedule="schedule",
        feedback="feedback",
    )
    if "triggers.concurrency" in values:
        given["concurrency"] = Concurrency(values["triggers.concurrency"])
    merge = _given(
        values,
        "triggers.merge",
        branch="branch",
        paths="paths",
        secret_variable="secret",
        poll_seconds="poll",
        settle_seconds="settle",
    )
    return Triggers(merge=Merge(**merge) if merge else None, **given)


def _train(values: Mapping[str, Any]) -> Train:
    recipe = _given(
        values,
        "train",
        method="method",
        start="start",
        epochs="epochs",
        learning_rate="learning_rate",
        batch_size="batch_size",
        max_length_tokens="max_length",
        seed="seed",
        beta="beta",
        load_in_4bit="load_in_4bit",
        checkpoint_every_steps="checkpoint_every_steps",
        command="command",
        files="files",
    )
    method = recipe.setdefault("method", "command" if "command" in recipe else "sft")
    recipe.setdefault("start", STARTS[method])
    recipe.setdefault("learning_rate", LEARNING_RATES[method])
    return Train(lora=Lora(**_given(values, "train.lora", rank="rank", alpha="alpha")), **recipe)


def _place(values: Mapping[str, Any]) -> Place:
    given = _given(
        values,
        "train",
        image="image",
        deadline_seconds="deadline",
        machine="machine",
        usd_per_hour="usd_per_hour",
        spot_usd_per_hour="spot_usd_per_hour",
        budget_usd="budget_usd",
        pool="pool",
        priority="priority",
    )
    given |= _given(values, "train.resources", cpus="cpus", memory_bytes="memory", gpus="gpus")
    for key, kind in (("executor", Executor), ("capacity", Capacity)):
        if f"train.{key}" in values:
            given[key] = kind(values[f"train.{key}"])
    return Place(**given)


def _data(values: Mapping[str, Any]) -> DataPlan:
    given = _given(values, "data", bad_rows_max_share="bad_rows", held_out_share="held_out")
    given |= _given(values, "evaluate", near_duplicates_max_share="near_duplicates")
    if "data.personal" in values:
        given["personal"] = Personal(values["data.personal"])
    return DataPlan(files=values.get("data.train", ()), turns=values.get("data.turns"), **given)


def _release(values: Mapping[str, Any]) -> ReleasePlan:
    drill = _given(
        values,
        "release.drill",
        error_rate="error_rate",
        delay_seconds="delay",
        delay_share="delay_share",
    )
    plan = _given(
        values,
        "release",
        notches_percent="notches",
        harm_budget="harm_budget",
        units_per_notch="units_per_notch",
        seconds_per_notch="time_per_notch",
        min_duration_seconds="min_duration",
        needs_approval="approval",
        deadline_seconds="deadline",
        max_duration_seconds="max_duration",
        shadow="shadow",
        segments="segments",
        freeze="freeze",
        holdback_seconds="holdback",
        holdback_share="holdback_share",
        blind_hold_seconds="blind_hold",
    )
    guards, detectors = guards_from(values)
    plan |= {"notify": values["notify"]} if "notify" in values else {}
    if "notches_percent" in plan:
        plan.setdefault("harm_budget", None)
    return ReleasePlan(
        drill=Drill(**drill) if drill else None,
        guards=guards,
        detectors=detectors,
        queries=queries_from(values),
        **plan,
    )


def _given(values: Mapping[str, Any], prefix: str, **names: str) -> dict[str, Any]:
    """Arguments for a value, only those that the file sets; defaults live in `core`."""
    found = {argument: f"{prefix}.{key}" for argument, key in names.items()}
    return {argument: values[key] for argument, key in found.items() if key in values}


def _serving(values: Mapping[str, Any]) -> Serving:
    timeouts = _given(
        values,
        "gateway.timeouts",
        first_byte_seconds="first_byte",
        idle_seconds="idle",
        total_seconds="total",
    )
    rest = _given(
        values,
        "gateway",
        body_bytes_max="max_body",
        key_rates="limits.key",
        tier_rates="limits.tier",
        in_flight_per_engine="in_flight_per_engine",
        priority_tiers="priority_tiers",
        pinned="pinned",
        fallback="fallback",
        oidc="oidc",
        capture="capture",
        cache="cache",
        exact="exact",
    )
    return Serving(
        access=Access(values.get("gateway.access", "keys")),
        sticky=Sticky(values.get("gateway.sticky", "header")),
        timeouts=Timeouts(**timeouts),
        **rest,
    )


class _Reader(Document):
    """Walks the YAML tree beside the table and collects values and problems."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.values: dict[str, Any] = {}
        self.gates: list[Gate] = []
        self._sections = {
            key.rsplit(".", depth)[0] for key in FIELDS for depth in range(1, key.count(".") + 1)
        }

    def read(self, text: str) -> None:
        root = self.root(text, "keys such as `project:`")
        if root is None:
            return
        self._mapping(root, "")
        for key, field in FIELDS.items():
            if field.required and key not in self.values and not self._blamed(key):
                self.add(1, 1, key, "nothing", f"a value: {field.doc}")
        if "gates" not in self.values and not self._blamed("gates"):
            self.add(1, 1, "gates", "nothing", "at least one gate")

    def _blamed(self, key: str) -> bool:
        return any(key == p.key or key.startswith(f"{p.key}.") for p in self.problems)

    def _mapping(self, node: yaml.Node, prefix: str) -> None:
        is_empty = isinstance(node, yaml.MappingNode) and not node.value
        if is_empty and prefix.startswith(PREFIX):
            self.problem(node, prefix.rstrip("."), "nothing", "at least a margin")
        for key_node, name, value_node in self.pairs(node, prefix.rstrip(".")):
            key = f"{prefix}{name}"
            if key in NOT_BUILT:
                self.problem(
                    key_node, key, "a key that is not built yet", f"no such key: {NOT_BUILT[key]}"
                )
            elif key == "gates":
                self._gates(value_node)
            elif key in FIELDS:
                value = self.leaf(key, value_node, FIELDS[key].read)
                if value is not None:
                    self.values[key] = value
            elif key in self._sections:
                self._mapping(value_node, f"{key}.")
            else:
                self._unknown(key_node, key)

    def _gates(self, node: yaml.Node) -> None:
        self.values["gates"] = True
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.problem(node, "gates", shown(node), "a list of gates")
            return
        for position, item in enumerate(node.value):
            key = f"gates[{position}]"
            value = construct(item)
            if not isinstance(value, dict) or not isinstance(value.get("metric"), str):
                self.problem(item, key, shown(item), "{metric: NAME, BOUND: NUMBER}")
                continue
            unknown = [k for k in value if k not in ("metric", GATE_SLICES, *GATE_BOUNDS)]
            bounds = [k for k in value if k in GATE_BOUNDS]
            if unknown or len(bounds) != 1:
                found = ", ".join(unknown) or f"{len(bounds)} bounds"
                self.problem(item, key, found, "one of " + ", ".join(GATE_BOUNDS))
                continue
            self._gate(item, key, value, bounds[0])

    def _gate(self, node: yaml.Node, key: str, said: Mapping[str, Any], bound: str) -> None:
        value, slices = said[bound], said.get(GATE_SLICES, "")
        relative = isinstance(value, str) and value.endswith("%")
        try:
            if relative and bound != GATE_BOUNDS[2]:
                raise Unfit(f"a number ({bound} is absolute)")
            amount = share(value) if relative else number(-1e12, 1e12)(value)
        except Unfit as unfit:
            self.problem(node, f"{key}.{bound}", repr(value), str(unfit))
            return
        if not isinstance(slices, str):
            self.problem(node, f"{key}.{GATE_SLICES}", repr(slices), "a key of metadata")
            return
        bounds: dict[str, float] = {bound: amount}
        gate = Gate(metric=said["metric"], relative=relative, slices=slices, **bounds)
        self.gates.append(gate)

    def _unknown(self, node: yaml.Node, key: str) -> None:
        known = [*FIELDS, *self._sections, "gates"]
        close = difflib.get_close_matches(key, known, n=1)
        expected = f"`{close[0]}`?" if close else "one of " + ", ".join(_siblings(key, known))
        self.problem(node, key, "an unknown key", expected)


def _siblings(key: str, known: list[str]) -> list[str]:
    prefix = key.rpartition(".")[0]
    start = f"{prefix}." if prefix else ""
    names = {k.removeprefix(start).split(".")[0] for k in known if k.startswith(start)}
    return sorted(names) or sorted({k.split(".")[0] for k in known})
