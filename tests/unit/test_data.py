"""Chat rows: good ones are kept in order, bad ones are named."""

from __future__ import annotations

import json

import pytest

from ratchet.core.data import Dataset, Rows, inspect_training, read_rows


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
        ("[]", 'no list "messages"'),
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


def test_bad_rows_above_the_bound_stop_a_run_and_say_which() -> None:
    found = read_rows("t.jsonl", [line("a", "x"), line("b", "y"), "{"])

    tolerant = inspect_training(found, [], bad_max_share=0.5)
    strict = inspect_training(found, [], bad_max_share=0.01)

    assert tolerant.problems == ()
    assert "1 of 3 rows are bad" in strict.problems[0]
    assert "t.jsonl:3" in strict.problems[0]


def test_empty_data_one_class_and_leaks_are_all_named_at_once() -> None:
    one_class = rows(("a", "x"), ("b", "x"))
    held_out = rows(("  A ", "x"))

    assert "no rows" in inspect_training(Rows((), ()), [], 0.01).problems[0]
    problems = inspect_training(one_class, held_out.good, 0.01).problems
    assert len(problems) == 2
    assert "one class" in problems[0]
    assert "also in the training data" in problems[1]


def test_duplicates_are_counted() -> None:
    assert inspect_training(rows(("a", "x"), ("a", "y"), ("b", "y")), [], 0.01).duplicates == 1


def test_a_dataset_is_named_by_what_it_says() -> None:
    one, same = Dataset(rows(("a", "x")).good), Dataset(read_rows("u", [line("a", "x")]).good)
    other = Dataset(rows(("a", "y")).good)

    assert one.id == same.id
    assert one.id != other.id
    assert one.id.startswith("ds_")
