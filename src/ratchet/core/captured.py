"""Rows out of turns: what users were answered, and what people said of it.

    said of an answer        sft              dpo                       kto
    correction               the correction   correction over answer    both, with their labels
    thumbs up, score >= 0.5  the answer       over a disliked one of    the answer, true
    thumbs down, score < 0.5 nothing          the same prompt           the answer, false

What is said of a whole conversation is of no answer in particular, and is not learned from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.core.data import ROLES, Message, Row

GOOD_SCORE = 0.5
CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """One feedback on one answer, as it was stored."""

    thumbs: str = ""
    score: float | None = None
    correction: str = ""

    @property
    def liked(self) -> bool | None:
        """None when it says neither; thumbs are clearer than a score."""
        if self.thumbs:
            return self.thumbs == "up"
        return None if self.score is None else self.score >= GOOD_SCORE


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One turn and what was said of it, the oldest first."""

    request_id: str
    conversation: str
    messages: Sequence[Mapping[str, Any]]
    answer: Mapping[str, Any]
    opinions: Sequence[Opinion]

    @property
    def liked(self) -> bool | None:
        """By majority; None when people are divided or say nothing."""
        said = Counter(opinion.liked for opinion in self.opinions)
        return None if said[True] == said[False] else said[True] > said[False]

    @property
    def correction(self) -> str:
        """The newest one."""
        return next((o.correction for o in reversed(self.opinions) if o.correction.strip()), "")


@dataclass(frozen=True, slots=True)
class Captured:
    """Rows in the order of their turns, and why turns gave none."""

    rows: tuple[Row, ...]
    left_out: Mapping[str, int]


def rows_of(turns: Sequence[Answered], method: str) -> Captured:
    """What a method of training learns from turns."""
    readable = [(turn, chat) for turn in turns if (chat := _chat(turn)) is not None]
    left_out = Counter({"tools, images or no text": len(turns) - len(readable)})
    make = {"dpo": _pairs, "kto": _thumbs}.get(method, _answers)
    rows = tuple(make(readable))
    used = {row.place for row in rows}
    left_out["nothing to learn from"] = sum(_place(turn) not in used for turn, _ in readable)
    return Captured(rows, {why: count for why, count in left_out.items() if count})


_Readable = Sequence[tuple[Answered, tuple[Message, ...]]]


def _answers(turns: _Readable) -> Iterator[Row]:
    for turn, chat in turns:
        if turn.correction:
            yield _row(turn, chat, turn.correction)
        elif turn.liked:
            yield _row(turn, chat, chat[-1].content)


def _thumbs(turns: _Readable) -> Iterator[Row]:
    for turn, chat in turns:
        if turn.correction:
            yield _row(turn, chat, turn.correction, label=True)
            yield _row(turn, chat, chat[-1].content, label=False)
        elif turn.liked is not None:
            yield _row(turn, chat, chat[-1].content, label=turn.liked)


def _pairs(turns: _Readable) -> Iterator[Row]:
    disliked: dict[str, list[str]] = {}
    for turn, chat in turns:
        if turn.liked is False:
            disliked.setdefault(_asked(chat), []).append(chat[-1].content)
    for turn, chat in turns:
        answer = chat[-1].content
        if turn.correction:
            if turn.correction != answer:
                yield _row(turn, chat, turn.correction, rejected=answer)
        elif turn.liked:
            worse = dict.fromkeys(disliked.get(_asked(chat), ()))
            yield from (
                _row(turn, chat, answer, rejected=other) for other in worse if other != answer
            )


def _asked(chat: tuple[Message, ...]) -> str:
    return Row(chat, "").prompt_key


def _row(turn: Answered, chat: tuple[Message, ...], answer: str, **more: Any) -> Row:
    # Held out by conversation: who asks twice is not on both sides.
    known = {CONVERSATION: turn.conversation} if turn.conversation else {}
    messages = (*chat[:-1], Message("assistant", answer))
    return Row(messages, _place(turn), metadata=known, **more)


def _place(turn: Answered) -> str:
    return f"turn {turn.request_id}"


def _chat(turn: Answered) -> tuple[Message, ...] | None:
    """Prompt and answer; None when something in it is no text."""
    said = [*turn.messages, turn.answer]
    plain = all(
        each.get("role") in ROLES
        and isinstance(each.get("content"), str)
        and each["content"].strip()
        and not each.get("tool_calls")
        for each in said
    )
    return tuple(Message(each["role"], each["content"]) for each in said) if plain else None
