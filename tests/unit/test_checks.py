"""How answers are checked: published examples, and what users would expect."""

from __future__ import annotations

import pytest

from ratchet.core.checks import CHECKS, macro_f1


@pytest.mark.parametrize(
    ("check", "answer", "expected", "score"),
    [
        ("exact", " refund \n", "refund", 1.0),
        ("exact", "Refund", "refund", 0.0),
        ("contains", "It is a Refund.", "refund", 1.0),
        ("contains", "no idea", "refund", 0.0),
        ("regex", "ticket 4711", r"ticket \d+", 1.0),
        ("regex", "my ticket 4711", r"ticket \d+", 0.0),
        ("regex", "a\nb", "a.b", 1.0),
        # As SQuAD's script has it: articles and punctuation do not count.
        ("f1", "The Norman dynasty!", "norman dynasty", 1.0),
        ("f1", "in the 10th century", "10th and 11th centuries", 2 / 7),
        ("f1", "nothing", "10th century", 0.0),
        ("f1", "", "", 1.0),
        # Lin (2004), section 3: against "police killed the gunman".
        ("rouge_l", "police kill the gunman", "police killed the gunman", 0.75),
        ("rouge_l", "the gunman kill police", "police killed the gunman", 0.5),
        ("rouge_l", "the gunman police killed", "police killed the gunman", 0.5),
        ("rouge_l", "", "words", 0.0),
        ("rouge_l", "", "", 1.0),
    ],
)
def test_an_answer_has_its_score(check: str, answer: str, expected: str, score: float) -> None:
    assert CHECKS[check](answer, expected) == pytest.approx(score)


def test_each_class_counts_alike() -> None:
    expected = ["a"] * 8 + ["b"] * 2

    assert macro_f1(expected, ["a"] * 10) == pytest.approx((16 / 18 + 0) / 2)
    assert macro_f1(expected, expected) == 1.0
    # By hand: a has 7 hits of 8 wanted and 8 said, b has 1 of 2 and 1; "?" is no class.
    said = ["a"] * 7 + ["?"] + ["a", "b"]
    assert macro_f1(expected, said) == pytest.approx((14 / 16 + 2 / 3) / 2)
