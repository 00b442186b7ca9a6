"""Rows: what a training or evaluation file must hold, and what is wrong with a bad line.

One row is one conversation whose last message is the assistant's: the answer to learn, or the one
that is expected.  The forms are those that TRL reads, as text or as chat messages:

    {"messages": [...]}                                    a conversation
    {"prompt": ..., "completion": ...}                     the same in two parts
    {"prompt": ..., "chosen": ..., "rejected": ...}        two answers, the better one first (DPO)
    {"prompt": ..., "completion": ..., "label": true}      an answer and whether it was liked (KTO)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ratchet.core.errors import Rejected
from ratchet.kit.digest import digest_bytes

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation, with the place it came from for error messages."""

    messages: tuple[Message, ...]
    place: str
    rejected: str | None = None
    """An answer that somebody found worse than the last message."""
    label: bool | None = None
    """Whether somebody liked the last message."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What a report is divided by: language, product, ..."""

    @property
    def answer(self) -> str:
        return self.messages[-1].content

    @property
    def prompt(self) -> tuple[Message, ...]:
        return self.messages[:-1]

    def to_json(self) -> dict[str, object]:
        value: dict[str, object] = {
            "messages": [{"role": m.role, "content": m.content} for m in self.messages]
        }
        if self.rejected is not None:
            value["rejected"] = self.rejected
        if self.label is not None:
            value["label"] = self.label
        if self.metadata:
            value["metadata"] = dict(self.metadata)
        return value

    @property
    def line(self) -> str:
        """The row as it is stored: the same content is the same text."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def prompt_key(self) -> str:
        """The same for prompts that differ in case and white space only."""
        said = [[m.role, " ".join(m.content.lower().split())] for m in self.prompt]
        return digest_bytes(json.dumps(said).encode())


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


def read_rows(name: str, lines: Iterable[str], method: str = "sft") -> Rows:
    """Parse JSON lines.  Blank lines are skipped; nothing is ever dropped silently.

    `method` says what a row must hold besides a conversation: `dpo` a rejected answer, `kto` a
    label.
    """
    good: list[Row] = []
    bad: list[BadRow] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            good.append(_parse(line, place, method))
        except Rejected as problem:
            bad.append(BadRow(place, str(problem)))
    return Rows(tuple(good), tuple(bad))


def row_of(line: str) -> Row:
    """A row as it was stored."""
    value = json.loads(line)
    return Row(
        tuple(Message(m["role"], m["content"]) for m in value["messages"]),
        place="",
        rejected=value.get("rejected"),
        label=value.get("label"),
        metadata=value.get("metadata", {}),
    )


def _parse(line: str, place: str, method: str) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise Rejected(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise Rejected("nested too deeply") from None
    if not isinstance(value, dict):
        raise Rejected("not an object")
    messages = _conversation(value)
    rejected = _text_of(value, "rejected") if "rejected" in value else None
    label = value.get("label")
    if method == "dpo" and rejected is None:
        raise Rejected('no "rejected": dpo learns from two answers to one prompt')
    if method == "kto" and not isinstance(label, bool):
        raise Rejected(f'"label" is {label!r}: kto learns from answers with true or false')
    if rejected is not None and rejected == messages[-1].content:
        raise Rejected('"chosen" and "rejected" are the same answer')
    return Row(
        messages,
        place,
        rejected=rejected,
        label=label if isinstance(label, bool) else None,
        metadata=_metadata(value.get("metadata")),
    )


def _conversation(value: Mapping[str, object]) -> tuple[Message, ...]:
    """Prompt and answer, whichever form they came in."""
    if "messages" in value:
        messages = _messages(value["messages"], "messages")
    else:
        answer = next((key for key in ("chosen", "completion") if key in value), None)
        if answer is None:
            raise Rejected('neither "messages", nor a "prompt" with "completion" or "chosen"')
        said = _messages(value[answer], answer, "assistant")
        # Both answers may repeat the prompt instead of naming it.
        before = _messages(value["prompt"], "prompt") if "prompt" in value else ()
        messages = (*before, *said)
    if len(messages) < 2:
        raise Rejected(f"{len(messages)} messages; a prompt and an answer are needed")
    if messages[-1].role != "assistant":
        raise Rejected(f'last message has role "{messages[-1].role}", not "assistant"')
    return messages


def _text_of(value: Mapping[str, object], key: str) -> str:
    return _messages(value[key], key, "assistant")[-1].content


def _messages(value: object, key: str, role: str = "user") -> tuple[Message, ...]:
    if isinstance(value, str):
        value = [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise Rejected(f'"{key}" is no text and no list of messages')
    if not value and key != "messages":
        raise Rejected(f'"{key}" is empty')
    return tuple(_message(message, place) for place, message in enumerate(value, start=1))


def _message(message: object, place: int) -> Message:
    if not isinstance(message, dict):
        raise Rejected(f"message {place} is not an object")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise Rejected(f"message {place} has role {role!r}; expected one of {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise Rejected(f"message {place} has no text")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise Rejected(f"message {place} holds half a character (a lone surrogate)") from None
    return Message(role, content)


def _metadata(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    flat = isinstance(value, dict) and all(
        isinstance(each, str | int | float | bool) for each in value.values()
    )
    if not flat:
        raise Rejected('"metadata" is no object of texts, numbers and truth values')
    assert isinstance(value, dict)
    return {str(key): str(each) for key, each in value.items()}
