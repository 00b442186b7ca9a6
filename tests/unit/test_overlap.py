"""Texts that say nearly the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ratchet.stats.overlap import TEMPLATE_TEXTS_MIN, resembling, shingles

TEXT = "the quick brown fox jumps over the lazy dog while it rains"


def test_the_same_words_are_one_and_other_words_are_nothing() -> None:
    found = resembling([TEXT, "something else altogether here"], ["nothing of it", TEXT.upper()])

    assert [(each.one, each.other, each.similarity) for each in found] == [(0, 1, 1.0)]


def test_the_most_alike_is_named() -> None:
    nearly, less = f"{TEXT} again", f"{TEXT} again and again"

    [found] = resembling([TEXT], [less, nearly, less])

    assert found.other == 1
    assert found.similarity == 10 / 11


def test_short_texts_resemble_only_themselves() -> None:
    assert resembling(["yes", ""], ["no", "yes please", ""]) == []
    assert len(resembling(["yes"], ["Yes"])) == 1


def test_what_many_share_is_a_template_and_no_resemblance() -> None:
    template = "please classify the following text into one of three classes and say only its name"
    asked = [f"{template} {word} {word}" for word in "abcdefghijklmnopqrstuvwxyz"]

    found = resembling(asked, [f"{template} 1 1", f"{template} b b"])

    assert len(asked) > TEMPLATE_TEXTS_MIN
    assert [(each.one, each.other) for each in found] == [(1, 1)]


WORDS = st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join)


@given(st.lists(WORDS, max_size=TEMPLATE_TEXTS_MIN), st.lists(WORDS, max_size=8))
def test_it_finds_what_comparing_all_pairs_finds(few: list[str], many: list[str]) -> None:
    def jaccard(one: str, other: str) -> float:
        a, b = shingles(one), shingles(other)
        return len(a & b) / len(a | b) if a | b else 0.0

    wanted = {
        number: max(jaccard(one, other) for other in many)
        for number, one in enumerate(few)
        if many and max(jaccard(one, other) for other in many) >= 0.5
    }

    assert {each.one: each.similarity for each in resembling(few, many, 0.5)} == wanted
