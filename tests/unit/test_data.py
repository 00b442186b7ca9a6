"""Chat rows: good ones are kept in order, bad ones are named."""

from __future__ import annotations

import json

import pytest

from ratchet.core.data import Row, Rows, read_rows, row_of


def line(question: str, answer: str) -> str:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages})


def rows(*pairs: tuple[str, str]) -> Rows:
    return read_rows("t.jsonl", [line(q, a) for q, a in pairs])


def test_good_rows_are_kept_in_order_and_blank_lines_skipped() -> None:
    found = read_rows("t.jsonl", [line("a", "x"), "", line("b", "y")])

    assert [row.answer for row in found.good] == ["x", "y"]
    assert found.good[1].place == "t.jsonl:3"
    assert found.bad == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"text": "x"}', 'neither "messages", nor a "prompt"'),
        ('{"messages": 1}', '"messages" is no text and no list'),
        ('{"prompt": [], "completion": "x"}', '"prompt" is empty'),
        ('{"completion": "x"}', "1 messages"),
        ('{"prompt": "x", "completion": "y", "metadata": {"a": []}}', '"metadata" is no object'),
        ('{"prompt": "x", "completion": "\\ud800"}', "half a character"),
        ("[" * 100_000, "nested too deeply"),
        ('{"prompt": "x", "chosen": "y", "rejected": "y"}', "the same answer"),
        ('{"messages": []}', "0 messages"),
        ('{"messages": [1, 2]}', "message 1 is not an object"),
        ('{"messages": [{"role": "boss", "content": "x"}, {}]}', "role 'boss'"),
        ('{"messages": [{"role": "user", "content": " "}, {}]}', "has no text"),
        (
            '{"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]}',
            'last message has role "user"',
        ),
    ],
)
def test_a_bad_line_is_named_with_file_line_and_reason(text: str, says: str) -> None:
    [bad] = read_rows("t.jsonl", [line("a", "x"), text]).bad

    assert bad.place == "t.jsonl:2"
    assert says in bad.found


@pytest.mark.parametrize(
    ("text", "prompt", "answer"),
    [
        ('{"prompt": "q", "completion": "a"}', "q", "a"),
        ('{"prompt": "q", "chosen": "a", "rejected": "b"}', "q", "a"),
        (
            '{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],'
            ' "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}'
            "]}",
            "q",
            "a",
        ),
        ('{"prompt": "q", "completion": "a", "label": true}', "q", "a"),
    ],
)
def test_rows_come_in_the_forms_that_trl_reads(text: str, prompt: str, answer: str) -> None:
    [row] = read_rows("t.jsonl", [text]).good

    assert (row.prompt[0].content, row.answer) == (prompt, answer)
    assert row.rejected == ("b" if "rejected" in text else None)
    assert row.label == (True if "label" in text else None)


@pytest.mark.parametrize(("method", "says"), [("dpo", 'no "rejected"'), ("kto", '"label" is None')])
def test_a_method_says_what_a_row_must_hold_for_it(method: str, says: str) -> None:
    [bad] = read_rows("t.jsonl", [line("a", "x")], method).bad

    assert says in bad.found


def test_a_stored_row_is_the_row() -> None:
    text = json.dumps(
        {"prompt": "q", "chosen": "a", "rejected": "b", "metadata": {"language": "de", "n": 1}}
    )
    [row] = read_rows("t.jsonl", [text], "dpo").good
    labelled = Row(row.messages, "", label=False)

    again = row_of(row.line)

    assert (again.messages, again.rejected) == (row.messages, "b")
    assert again.metadata == {"language": "de", "n": "1"}
    assert row_of(labelled.line) == labelled
    assert row_of(again.line) == again


def test_prompts_that_differ_in_case_and_spaces_are_the_same() -> None:
    good = rows(("  Where is\nIT? ", "x"), ("where is it?", "y"), ("where is he?", "x")).good

    assert good[0].prompt_key == good[1].prompt_key != good[2].prompt_key
