"""What can be known before a cent is spent: every problem with its place and its fix."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ratchet.core import precheck
from ratchet.core.data import Rows, read_rows
from ratchet.core.precheck import Found, Tokens, together


def rows(*pairs: tuple[str, str], method: str = "sft", **more: object) -> Rows:
    lines = [json.dumps({"prompt": q, "completion": a, **more}) for q, a in pairs]
    return read_rows("t.jsonl", lines, method)


def tokens(lengths: Sequence[int], prompts: Sequence[int], fault: str = "") -> Tokens:
    return Tokens(lengths=lengths, prompt_lengths=prompts, context_tokens=100, template_fault=fault)


def test_bad_rows_above_the_bound_stop_a_run_and_say_which() -> None:
    found = read_rows("t.jsonl", ['{"prompt": "a", "completion": "b"}', "{"])

    tolerant, strict = precheck.readable(found, 0.5), precheck.readable(found, 0.01)

    assert tolerant.problems == ()
    assert "1 bad rows are left out: t.jsonl:2" in tolerant.notes[0]
    assert "1 of 2 rows are bad" in strict.problems[0]
    assert "t.jsonl:2: not JSON" in strict.problems[0]
    assert "no rows" in precheck.readable(Rows((), ()), 0.01).problems[0]


def test_one_class_teaches_nothing() -> None:
    assert "one class" in precheck.answers(rows(("a", "x"), ("b", "x")).good).problems[0]
    assert precheck.answers(rows(("a", "x")).good).problems == ()


def test_prompts_with_two_answers_and_rare_answers_are_noted() -> None:
    many = [(f"q{n}", "x") for n in range(30)]

    found = precheck.answers(rows(*many, ("q1", "y"), ("new", "x")).good)

    assert found.facts["duplicates"] == 1
    assert found.facts["different_answers"] == 2
    assert "1 prompts have more than one answer (t.jsonl:2 and t.jsonl:31)" in found.notes[0]
    assert "few rows have the answers 'y' (1)" in found.notes[1]


def test_two_answers_are_what_thumbs_are_about() -> None:
    many = [(f"q{n}", "x") for n in range(30)]

    assert precheck.answers(rows(*many, ("q1", "y"), label=True).good).notes[1:] == ()


def test_kto_needs_both_kinds_of_thumbs() -> None:
    liked = rows(("a", "x"), ("b", "y"), method="kto", label=True).good
    disliked = rows(("c", "x"), method="kto", label=False).good

    assert "all 2 rows have the label true" in precheck.labels(liked, "kto").problems[0]
    assert "the label false" in precheck.labels(disliked, "kto").problems[0]
    assert precheck.labels([*liked, *disliked], "kto").facts == {"liked": 2, "disliked": 1}
    assert precheck.labels(liked, "sft") == Found()


def test_a_suite_without_items_and_its_bad_lines_are_named() -> None:
    good = rows(("a", "x"))

    found = precheck.evaluation(
        {"good": good, "empty": Rows((), ()), "bad": read_rows("e.jsonl", ["{"])}
    )

    assert "suite empty has no items" in found.problems[0]
    assert "e.jsonl:1: not JSON" in found.problems[1]
    assert len(found.problems) == 3
    assert precheck.evaluation({"good": good}) == Found(facts={"held_out": 1})


def test_what_is_expected_as_a_pattern_is_one() -> None:
    found = precheck.patterns(rows(("a", r"\d+"), ("b", "(")).good)

    assert found.problems[0].startswith("evaluate: t.jsonl:2: no regular expression:")
    assert len(found.problems) == 1


def test_what_is_asked_was_not_taught_nor_nearly() -> None:
    taught = rows(("the red ball is over there now", "x"), ("where is it", "y")).good
    asked = rows(("Where  is it", "y"), ("the red ball is over there now then", "x")).good

    strict = precheck.leaks(taught, asked, 0.0)
    tolerant = precheck.leaks(taught, asked, 0.5)

    assert (
        "1 held-out prompts are also in the training data (t.jsonl:1 is t.jsonl:2)"
        in (strict.problems[0])
    )
    assert "t.jsonl:2 is 83% t.jsonl:1" in strict.problems[1]
    assert len(tolerant.problems) == len(tolerant.notes) == 1
    assert precheck.leaks(taught, [], 0.0).problems == ()


def test_what_looks_personal_is_named_by_its_place() -> None:
    good = rows(("write to ann@example.org", "x"), ("a", "b")).good

    assert (
        "1 rows hold what looks personal: t.jsonl:1 (EMAIL)"
        in (precheck.personal(good, refuse=True).problems[0])
    )
    assert precheck.personal(good, refuse=False).problems == ()
    assert precheck.personal(good, refuse=False).facts == {"personal": {"EMAIL": 1}}
    assert precheck.personal(good[1:], refuse=True) == Found(facts={"personal": {}})


def test_rows_fit_into_what_is_trained_and_that_into_the_model() -> None:
    good = rows(("a", "x"), ("b", "y"), ("c", "z")).good

    fits = precheck.lengths(good, tokens([10, 20, 30], [5, 5, 5]), 64)
    cut = precheck.lengths(good, tokens([10, 70, 80], [5, 5, 64]), 64, every=2)
    large = precheck.lengths(good, tokens([10] * 3, [5] * 3), 101)

    assert (fits.problems, fits.notes) == ((), ())
    assert fits.facts["tokens"] == {"p50": 20, "p95": 30, "max": 30}
    assert fits.facts["tokens_an_epoch"] == 60
    assert cut.facts["tokens_an_epoch"] == 2 * (10 + 64 + 64)
    assert (
        "1 prompts fill all 64 tokens and leave no answer to learn (t.jsonl:3)" in (cut.problems[0])
    )
    assert "1 rows are cut at 64 tokens" in cut.notes[0]
    assert "reads at most 100 tokens" in large.problems[0]


def test_a_template_that_does_not_fit_is_said() -> None:
    found = precheck.lengths([], tokens([], [], "t.jsonl:1: no system role"), 64)

    assert "the chat template does not fit: t.jsonl:1: no system role" in found.problems[0]
    assert "tokens" not in found.facts


def test_more_than_ten_places_are_counted() -> None:
    bad = read_rows("t.jsonl", ["{"] * 13)

    assert precheck.readable(bad, 0.0).problems[0].endswith("and 3 more")


def test_parts_add_up() -> None:
    both = together([Found(("p",), ("n",), {"a": 1}), Found(("q",), (), {"b": 2})])

    assert both == Found(("p", "q"), ("n",), {"a": 1, "b": 2})
