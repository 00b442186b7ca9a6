"""`release.guards` and `release.metrics`: keys as they are written, guards as values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ratchet.adapters.specfile.values import Unfit, duration, points, read_one_of, share
from ratchet.core.detectors import REFUSAL, Detector
from ratchet.core.errors import Rejected
from ratchet.core.guards import (
    ALWAYS,
    FEEDBACK_SECONDS,
    FORMAT,
    IN_THE_TEXT,
    KNOWN,
    REFUSALS,
    THUMBS_DOWN,
    Group,
    Guard,
    Kind,
    with_always,
)
from ratchet.core.scrapes import VERSION, CountQuery

PREFIX = "release.guards."
_MARGIN = re.compile(r"^[+-]?(\d+(?:\.\d+)?)%$")
_METRIC_KEYS = {"kind", "margin", "tolerance", "prove", "within", "two_sided", "prometheus"}
_METRIC_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
# By key: how it is read, what it means.
Keys = dict[str, tuple[Callable[[Any], Any], str]]

MEANINGS: Mapping[str, str] = {
    "errors": "Answers that fail; on by itself.",
    "latency_p95": "Time until an answer ends; on by itself.",
    "ttft_p95": "Time until the first byte.",
    "tokens_per_second": "Tokens of an answer over its time.",
    "length": "Tokens of an answer; shorter is as bad as longer.",
    "cost": "What an answer costs, by the ledger's prices.",
    REFUSALS: "Answers that refuse. Needs gateway.capture.",
    FORMAT: "Answers without the agreed form. Needs gateway.capture.",
    THUMBS_DOWN: "Conversations that somebody gave a thumbs-down.",
}


def read_share_margin(value: Any) -> float:
    """A change as a share, with or without its sign."""
    match = _MARGIN.match(value) if isinstance(value, str) else None
    if match is None or not 0 < float(match[1]) <= 1000:
        raise Unfit('a change in per cent, like "+10%"')
    return float(match[1]) / 100.0


def read_fewer(value: Any) -> float:
    """So many per cent fewer tokens a second, as more time for each."""
    fewer = read_share_margin(value)
    if fewer >= 1:
        raise Unfit('a change below 100%, like "-10%"')
    return 1.0 / (1.0 - fewer) - 1.0


def read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit("true or false")
    return value


def read_regex(value: Any) -> str:
    try:
        re.compile(value if isinstance(value, str) else "(")
    except re.error:
        raise Unfit("a regular expression") from None
    if not value:
        raise Unfit("a regular expression that is not empty")
    return str(value)


def read_labels(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise Unfit("a list of texts")
    return tuple(value)


def read_schema(value: Any) -> str:
    if not isinstance(value, dict):
        raise Unfit("a JSON Schema")
    return json.dumps(value, sort_keys=True)


def keys() -> Iterator[tuple[str, Callable[[Any], Any], str]]:
    """Every key below `release.guards`, with its reader and its meaning."""
    for guard in KNOWN.values():
        for key, (read, doc) in _keys_of(guard).items():
            yield f"{PREFIX}{guard.name}.{key}", read, doc


def _keys_of(guard: Guard) -> Keys:
    reader: Callable[[Any], Any] = points if guard.is_absolute else read_share_margin
    if guard.name == "tokens_per_second":
        reader = read_fewer
    amount = f"+{guard.margin * 100:g}pp" if guard.is_absolute else f"{guard.margin:.0%}"
    found: Keys = {
        "margin": (
            reader,
            f"{MEANINGS[guard.name]} A promotion by proof shows that it is not worse by this. "
            f"Default {amount}.",
        ),
        "tolerance": (
            _or_none(reader),
            f"So much worse is no harm. Default {'0' if not guard.tolerance else 'the margin'}.",
        ),
        "prove": (read_flag, "Must a promotion by proof wait for this guard? Default true."),
    }
    if guard.name in IN_THE_TEXT:
        found["pattern"] = (
            read_regex,
            "Found in an answer, it is a refusal. Default: usual words in English."
            if guard.name == REFUSALS
            else "What the whole answer must match.",
        )
    if guard.name == FORMAT:
        found["labels"] = (read_labels, "Or: answers that there may be.")
        found["json_schema"] = (read_schema, "Or: what the answer, as JSON, must be.")
    if guard.name == THUMBS_DOWN:
        found["within"] = (
            duration,
            f"How long people are given to say it. Default {FEEDBACK_SECONDS / 60:.0f}m.",
        )
    return found


def _or_none(reader: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: 0.0 if value == 0 and not isinstance(value, bool) else reader(value)


Metrics = tuple[tuple[Guard, CountQuery | None], ...]


def read_metrics(value: Any) -> Metrics:
    """Guards over what a project's own systems push, or count."""
    if not isinstance(value, dict) or not value:
        raise Unfit("{NAME: {kind: score, margin: 0.02}}")
    return tuple((_metric(name, each), _query(name, each)) for name, each in value.items())


def _query(name: str, value: dict[str, Any]) -> CountQuery | None:
    query = value.get("prometheus")
    if query is None:
        return None
    if Kind(value["kind"]) is not Kind.RATE or "within" in value:
        raise Unfit(f"of {name}: kind rate and no within, for what Prometheus counts")
    fits = isinstance(query, dict) and set(query) == {"bad", "all"}
    if not fits or not all(isinstance(q, str) and VERSION in q for q in query.values()):
        raise Unfit(f"of {name}: prometheus: {{bad: PROMQL, all: PROMQL}}, both with {VERSION}")
    return CountQuery(guard=name, bad=query["bad"], all=query["all"])


def _metric(name: Any, value: Any) -> Guard:
    if not isinstance(name, str) or not _METRIC_NAME.match(name) or name in KNOWN:
        raise Unfit(f"of a metric: a name of its own in lower case, not {name!r}")
    if not isinstance(value, dict) or not {"kind", "margin"} <= set(value) <= _METRIC_KEYS:
        raise Unfit(f"of {name}: kind and margin, and if wanted {_listed(_METRIC_KEYS)}")
    kind = Kind(read_one_of("rate", "score", "amount")(value["kind"]))
    is_share = kind is Kind.AMOUNT
    read = {Kind.RATE: points, Kind.SCORE: _amount, Kind.AMOUNT: read_share_margin}[kind]
    margin = read(value["margin"])
    default = margin if is_share else 0.0
    try:
        return Guard(
            name=name,
            kind=kind,
            group=Group.SCRAPED if "prometheus" in value else Group.JUDGED,
            margin=margin,
            tolerance=_or_none(read)(value["tolerance"]) if "tolerance" in value else default,
            is_two_sided=is_share and read_flag(value.get("two_sided", False)),
            must_be_proven=read_flag(value.get("prove", True)),
            within_seconds=(0.0 if "prometheus" in value else duration(value.get("within", "10m"))),
        )
    except Rejected as error:
        raise Unfit(str(error)) from None


def _amount(value: Any) -> float:
    """Of a score from 0 to 1: a share in other words."""
    found = share(value)
    if not 0 < found < 1:
        raise Unfit("of a score: a margin between 0 and 1")
    return found


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names - {"kind", "margin"}))


def guards_from(values: Mapping[str, Any]) -> tuple[tuple[Guard, ...], tuple[Detector, ...]]:
    """The guards and detectors of a file's values.  Raises `Rejected`."""
    guards, detectors = [], []
    for known in KNOWN.values():
        start = f"{PREFIX}{known.name}."
        given = {key.removeprefix(start): v for key, v in values.items() if key.startswith(start)}
        if not given and known not in ALWAYS:
            continue
        guards.append(_guard(known, given))
        if known.name in IN_THE_TEXT:
            detectors.append(_detector(known.name, given))
    guards += [guard for guard, _ in values.get("release.metrics", ())]
    return with_always(guards), tuple(detectors)


def queries_from(values: Mapping[str, Any]) -> tuple[CountQuery, ...]:
    return tuple(query for _, query in values.get("release.metrics", ()) if query is not None)


def _guard(known: Guard, given: Mapping[str, Any]) -> Guard:
    margin = given.get("margin", known.margin)
    default = margin if known.tolerance else 0.0
    return replace(
        known,
        margin=margin,
        tolerance=given.get("tolerance", default),
        must_be_proven=given.get("prove", True),
        within_seconds=given.get("within", known.within_seconds),
    )


def _detector(name: str, given: Mapping[str, Any]) -> Detector:
    if name == REFUSALS:
        return Detector(name, matches=given.get("pattern", REFUSAL))
    return Detector(
        name,
        pattern=given.get("pattern", ""),
        labels=given.get("labels", ()),
        json_schema=given.get("json_schema", ""),
    )
