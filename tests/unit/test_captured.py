"""Rows out of turns: what was liked, disliked and corrected."""

from __future__ import annotations

import pytest

from ratchet.core.captured import Answered, Opinion, rows_of

UP, DOWN = Opinion(thumbs="up"), Opinion(thumbs="down")


def turn(request: str, answer: str, *opinions: Opinion, prompt: str = "where?") -> Answered:
    return Answered(
        request_id=request,
        conversation=f"c{request}",
        messages=[{"role": "user", "content": prompt}],
        answer={"role": "assistant", "content": answer},
        opinions=opinions,
    )


def corrected(text: str) -> Opinion:
    return Opinion(correction=text)


def test_answers_that_were_liked_or_corrected_are_learned() -> None:
    found = rows_of(
        [turn("1", "here", UP), turn("2", "there", DOWN), turn("3", "hre", corrected("here"))],
        "sft",
    )

    assert [(row.place, row.answer) for row in found.rows] == [
        ("turn 1", "here"),
        ("turn 3", "here"),
    ]
    assert found.rows[0].metadata == {"conversation": "c1"}
    assert found.left_out == {"nothing to learn from": 1}


def test_thumbs_become_labels_and_a_correction_two_of_them() -> None:
    found = rows_of(
        [turn("1", "here", UP), turn("2", "there", DOWN), turn("3", "hre", corrected("here"))],
        "kto",
    )

    assert [(row.answer, row.label) for row in found.rows] == [
        ("here", True),
        ("there", False),
        ("here", True),
        ("hre", False),
    ]


def test_pairs_are_corrections_and_a_liked_against_a_disliked_answer_to_one_prompt() -> None:
    found = rows_of(
        [
            turn("1", "here", UP),
            turn("2", "there", DOWN),
            turn("3", "here", DOWN, prompt="when?"),
            turn("4", "hre", corrected("here"), prompt="why?"),
            turn("5", "here", DOWN),
        ],
        "dpo",
    )

    assert [(row.place, row.answer, row.rejected) for row in found.rows] == [
        ("turn 1", "here", "there"),
        ("turn 4", "here", "hre"),
    ]
    assert found.left_out == {"nothing to learn from": 3}


@pytest.mark.parametrize(
    ("opinions", "liked"),
    [
        ([UP, UP, DOWN], True),
        ([UP, DOWN], None),
        ([], None),
        ([Opinion(score=0.5)], True),
        ([Opinion(score=0.49)], False),
        ([Opinion(thumbs="down", score=1.0)], False),
        ([Opinion(correction="x"), UP], True),
    ],
)
def test_people_decide_by_majority(opinions: list[Opinion], liked: bool | None) -> None:
    assert turn("1", "here", *opinions).liked is liked


def test_the_newest_correction_counts() -> None:
    said = turn("1", "hre", corrected("her"), UP, corrected("here"), corrected(" "))

    assert said.correction == "here"


def test_what_is_no_text_is_left_out_and_counted() -> None:
    call = Answered(
        request_id="1",
        conversation="",
        messages=[{"role": "user", "content": "where?"}],
        answer={"role": "assistant", "content": "", "tool_calls": [{"id": "x"}]},
        opinions=[UP],
    )
    image = Answered(
        request_id="2",
        conversation="",
        messages=[{"role": "user", "content": [{"type": "image_url"}]}],
        answer={"role": "assistant", "content": "a cat"},
        opinions=[UP],
    )

    found = rows_of([call, image, turn("3", "here", UP)], "sft")

    assert len(found.rows) == 1
    assert found.left_out == {"tools, images or no text": 2}


def test_an_answer_on_which_people_do_not_agree_gets_no_label() -> None:
    found = rows_of([turn("1", "here", UP, DOWN), turn("2", "there", DOWN)], "kto")

    assert [row.place for row in found.rows] == ["turn 2"]
    assert found.left_out == {"nothing to learn from": 1}


def test_a_correction_that_corrects_nothing_makes_no_pair() -> None:
    found = rows_of([turn("1", "here", corrected("here"))], "dpo")

    assert found.rows == ()
    assert found.left_out == {"nothing to learn from": 1}
