"""Bytes that went by become a turn, or a reason why not; feedback becomes a value, or an error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ratchet.core.errors import Rejected
from ratchet.core.turns import LeftOut, Seen, Turn, feedback_of, subject_digest, turn_of

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SEEN = Seen(
    request_id="r1", version="v_1", conversation="", key_id="key_1", principal="ana",
    sample=0.1, started_at=NOW,
)  # fmt: skip
WHOLE = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
DONE = "data: [DONE]\n\n"


def asked(**more: Any) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": "I am a@b.io"}], **more}
    return json.dumps(body).encode()


def stream(*deltas: dict[str, Any], end: str = DONE) -> bytes:
    events = [json.dumps({"choices": [{"index": 0, **delta}]}) for delta in deltas]
    return "".join([*(f"data: {event}\n\n" for event in events), end]).encode()


def made(request: bytes, answer: bytes) -> Turn:
    turn = turn_of("shop", SEEN, request, answer)
    assert isinstance(turn, Turn), turn
    return turn


def test_a_request_and_its_answer_become_a_scrubbed_turn() -> None:
    turn = made(asked(temperature=0.2, user="jane@b.io"), json.dumps(WHOLE).encode())

    assert turn.messages == ({"role": "user", "content": "I am [EMAIL]"},)
    assert turn.answer == {"role": "assistant", "content": "hi"}
    assert (turn.finish_reason, turn.scrubbed, turn.sample) == ("stop", {"EMAIL": 1}, 0.1)
    assert turn.parameters == {"model": "m", "temperature": 0.2}
    assert turn.subjects == (subject_digest("shop", "ana"), subject_digest("shop", "jane@b.io"))
    assert "jane" not in str(turn)


def test_a_streams_pieces_are_put_together() -> None:
    turn = made(
        asked(stream=True),
        stream(
            {"delta": {"role": "assistant", "content": "he"}},
            {"delta": {"content": "llo"}},
            {"delta": {}, "finish_reason": "length"},
        ),
    )

    assert (turn.answer["content"], turn.finish_reason) == ("hello", "length")


def test_a_streams_tool_calls_are_put_together() -> None:
    call = {"index": 0, "id": "c1", "type": "function"}
    turn = made(
        asked(stream=True),
        stream(
            {"delta": {"tool_calls": [{**call, "function": {"name": "f", "arguments": '{"a'}}]}},
            {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '": 1}'}}]}},
        ),
    )

    [known] = turn.answer["tool_calls"]
    assert known == {
        "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'},
    }  # fmt: skip


def test_plain_completions_are_turns_too() -> None:
    request = json.dumps({"prompt": ["say hi"], "metadata": {"conversation_id": "c"}}).encode()
    turn = made(request, b'{"choices": [{"text": "hi", "finish_reason": null}]}')

    assert turn.messages == ({"role": "user", "content": "say hi"},)
    assert (turn.answer["content"], turn.conversation) == ("hi", "c")
    assert made(request, stream({"text": "hi"})).answer["content"] == "hi"


@pytest.mark.parametrize(
    ("request_", "answer", "reason"),
    [
        (b"{", b"{}", LeftOut.UNREADABLE),
        (b"[]", b"{}", LeftOut.UNREADABLE),
        (b'{"messages": []}', json.dumps(WHOLE).encode(), LeftOut.UNREADABLE),
        (b'{"prompt": 7}', json.dumps(WHOLE).encode(), LeftOut.UNREADABLE),
        (b"[" * 100_000, b"{}", LeftOut.UNREADABLE),
        (asked(), b'{"choices": []}', LeftOut.UNREADABLE),
        # No database would take these numbers.
        (asked().replace(b'"m"', b"NaN"), json.dumps(WHOLE).encode(), LeftOut.UNREADABLE),
        (asked().replace(b'"m"', b"1e999"), json.dumps(WHOLE).encode(), LeftOut.UNREADABLE),
        (asked(), stream({"delta": {"content": "he"}}, end=""), LeftOut.CUT),
        (asked(), b'data: {"error": {"message": "x"}}\n\n' + DONE.encode(), LeftOut.CUT),
    ],
)
def test_what_is_no_turn_says_why(request_: bytes, answer: bytes, reason: LeftOut) -> None:
    assert turn_of("shop", SEEN, request_, answer) is reason


def said(project: str = "shop", **body: Any) -> Any:
    return feedback_of(project, json.dumps(body).encode(), "key_1", "ana", NOW)


def test_feedback_is_scrubbed_and_the_same_words_have_the_same_id() -> None:
    one = said(request_id="r1", thumbs="down", correction="mail a@b.io", comment="call +4930123456")
    again = said(
        comment="call +4930123456", correction="mail a@b.io", thumbs="down", request_id="r1"
    )

    assert (one.correction, one.comment) == ("mail [EMAIL]", "call [PHONE]")
    assert (one.id, one.thumbs, one.score) == (again.id, "down", None)
    assert said(request_id="r1", thumbs="up").id != one.id
    assert said(conversation_id="c", score=1).score == 1.0


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "either request_id"),
        ({"request_id": "r", "conversation_id": "c", "thumbs": "up"}, "either request_id"),
        ({"request_id": "r"}, "at least one of"),
        ({"request_id": "r", "thumbs": "sideways"}, "'sideways'"),
        ({"request_id": "r", "score": 7}, "from 0 to 1"),
        ({"request_id": "r", "score": True}, "from 0 to 1"),
        ({"request_id": 7, "score": 1}, "expected text"),
        ({"request_id": "r" * 300, "score": 1}, "at most 200"),
        ({"request_id": "r", "stars": 5}, "'stars'"),
        ({"request_id": "r\0", "score": 1}, "NUL"),
    ],
)
def test_bad_feedback_is_told_what_was_expected(body: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Rejected, match=complaint):
        said(**body)


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"[" * 100_000])
def test_feedback_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(Rejected):
        feedback_of("shop", body, "", "", NOW)


def test_a_call_that_comes_without_a_function_is_kept_as_far_as_it_came() -> None:
    turn = made(asked(), stream({"delta": {"tool_calls": [{"index": 0, "id": "c1"}]}}))

    assert turn.answer["tool_calls"] == [{"id": "c1"}]


def test_of_several_choices_the_first_is_kept() -> None:
    other = json.dumps({"choices": [{"index": 1, "delta": {"content": "no"}}]})
    both = stream({"delta": {"content": "yes"}}, end=f"data: {other}\n\n{DONE}")

    assert made(asked(n=2), both).answer["content"] == "yes"


def test_null_is_as_good_as_nothing_in_feedback() -> None:
    assert said(request_id="r1", thumbs="up", comment=None).comment == ""
