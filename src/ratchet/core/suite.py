"""A suite: items with expected answers, and how an answer is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.core.data import Row, Rows
from ratchet.kit.digest import digest_json

# Instead of a file: what `data.held_out` keeps from training.
HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteFile:
    """A suite as its file says it."""

    name: str
    items: str
    """Pattern of files, relative to the suite's folder, or `held_out`; empty with a task."""
    check: str
    max_tokens: int
    schema: Mapping[str, object] | None = None
    """JSON Schema that an answer must meet, for the check of that name."""
    code: str = ""
    """The program of the check `python`, whole: another program is another suite."""
    judge: Mapping[str, str] | None = None
    """Of the check `judge`: `url`, `model`, and if given `key` and `rubric`."""
    task: Mapping[str, object] | None = None
    """Of the check `lm_eval`: `task`, `limit`, and if given `few_shot` and `metric`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite with its items."""

    name: str
    digest: str
    """Of what is asked and how answers are checked: the same questions have the same."""
    rows: Rows
    check: str
    max_tokens: int
    schema: Mapping[str, object] | None = None
    code: str = ""
    judge: Mapping[str, str] | None = None
    task: Mapping[str, object] | None = None

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "digest": self.digest, **_content(self, self.rows.good)}


def suite_of(file: SuiteFile, rows: Rows) -> Suite:
    return Suite(
        name=file.name,
        digest=digest_json(_content(file, rows.good))[:24],
        rows=rows,
        check=file.check,
        max_tokens=file.max_tokens,
        schema=file.schema,
        code=file.code,
        judge=file.judge,
        task=file.task,
    )


def _content(how: SuiteFile | Suite, rows: Sequence[Row]) -> dict[str, object]:
    content: dict[str, object] = {
        "check": how.check,
        "max_tokens": how.max_tokens,
        "rows": [row.to_json() for row in rows],
    }
    if how.schema is not None:
        content["schema"] = dict(how.schema)
    if how.code:
        content["code"] = how.code
    if how.judge is not None:
        content["judge"] = dict(how.judge)
    if how.task is not None:
        content["task"] = dict(how.task)
    return content
