"""Chat rows: what a training or evaluation file must hold, and what is wrong with a bad one.

One row is one conversation, `{"messages": [{"role": ..., "content": ...}, ...]}`, whose last
message is the assistant's: the answer to learn, or the answer that is expected.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ratchet.kit.digest import digest_json, digest_lines

ROLES = ("system", "user", "assistant")
PROBLEMS_SHOWN = 10  # more would scroll the first one, the usual cause, off the screen


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation, with the place it came from for error messages."""

    messages: tuple[Message, ...]
    place: str

    @property
    def answer(self) -> str:
        return self.messages[-1].content

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    def to_json(self) -> dict[str, object]:
        return {"messages": [{"role": m.role, "content": m.content} for m in self.messages]}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that is no row, and why."""

    place: str
    found: str


@dataclass(frozen=True, slots=True)
class Rows:
    """What reading a file gave: rows in file order, and the lines that were none."""

    good: tuple[Row, ...]
    bad: tuple[BadRow, ...]


def read_rows(name: str, lines: Iterable[str]) -> Rows:
    """Parse JSON lines.  Blank lines are skipped; nothing is ever dropped silently."""
    good: list[Row] = []
    bad: list[BadRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        row = _parse(line, place)
        if isinstance(row, Row):
            good.append(row)
        else:
            bad.append(row)
    return Rows(tuple(good), tuple(bad))


def _parse(line: str, place: str) -> Row | BadRow:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow(place, f"not JSON: {error.msg} at column {error.colno}")
    if not isinstance(value, dict) or not isinstance(value.get("messages"), list):
        return BadRow(place, 'no list "messages"')
    messages = value["messages"]
    if len(messages) < 2:
        return BadRow(place, f"{len(messages)} messages; a prompt and an answer are needed")
    parsed: list[Message] = []
    for position, message in enumerate(messages, start=1):
        fault = _fault(message)
        if fault is not None:
            return BadRow(place, f"message {position} {fault}")
        parsed.append(Message(message["role"], message["content"]))
    if parsed[-1].role != "assistant":
        return BadRow(place, f'last message has role "{parsed[-1].role}", not "assistant"')
    return Row(tuple(parsed), place)


def _fault(message: object) -> str | None:
    if not isinstance(message, dict):
        return "is not an object"
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        return f"has role {role!r}; expected one of {', '.join(ROLES)}"
    if not isinstance(content, str) or not content.strip():
        return "has no text"
    return None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A frozen training set: rows in order, addressed by what they say."""

    rows: tuple[Row, ...]

    @property
    def id(self) -> str:
        """`ds_` and 16 hexadecimal digits of the digest of all rows in their order."""
        return "ds_" + digest_lines(digest_json(row.to_json()) for row in self.rows)[:16]


@dataclass(frozen=True, slots=True)
class DataReport:
    """What the pre-check saw."""

    rows: int
    duplicates: int
    answers: tuple[tuple[str, int], ...]
    """The commonest answers with their counts, at most ten."""
    problems: tuple[str, ...]


def inspect_training(rows: Rows, held_out: Sequence[Row], bad_max_share: float) -> DataReport:
    """Say what is wrong with a training set, all at once."""
    problems: list[str] = []
    total = len(rows.good) + len(rows.bad)
    if total == 0:
        problems.append("data.train: no rows; write at least one conversation a line")
    elif len(rows.bad) > bad_max_share * total:
        shown = [f"{bad.place}: {bad.found}" for bad in rows.bad[:PROBLEMS_SHOWN]]
        more = f" and {len(rows.bad) - len(shown)} more" if len(rows.bad) > len(shown) else ""
        problems.append(
            f"data.train: {len(rows.bad)} of {total} rows are bad, at most "
            f"{bad_max_share:.1%} may be: " + "; ".join(shown) + more
        )
    answers = Counter(row.answer for row in rows.good)
    if len(rows.good) > 1 and len(answers) == 1:
        problems.append(
            f"data.train: all {len(rows.good)} answers are {next(iter(answers))!r}; "
            "a model learns nothing from one class"
        )
    keys = Counter(_prompt_key(row) for row in rows.good)
    problems += _leaks(keys, held_out)
    return DataReport(
        rows=len(rows.good),
        duplicates=sum(count - 1 for count in keys.values()),
        answers=tuple(answers.most_common(10)),
        problems=tuple(problems),
    )


def _leaks(keys: Counter[str], held_out: Sequence[Row]) -> list[str]:
    leaked = [row.place for row in held_out if _prompt_key(row) in keys]
    if not leaked:
        return []
    shown = ", ".join(leaked[:PROBLEMS_SHOWN])
    return [
        f"evaluate: {len(leaked)} held-out prompts are also in the training data ({shown}); "
        "remove them from one side, or the score means nothing"
    ]


def _prompt_key(row: Row) -> str:
    return digest_json([[m.role, " ".join(m.content.lower().split())] for m in row.prompt])
