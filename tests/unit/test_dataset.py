"""Dataset versions: the same rows are the same version, and a version costs its new rows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.core.data import Message, Row
from ratchet.core.dataset import (
    Manifest,
    Packed,
    dataset_id,
    difference,
    is_held_out,
    pack,
    pack_bytes,
    pack_lines,
)
from ratchet.core.errors import Rejected

RECIPE = {"files": ["a.jsonl"]}


def line(number: int, answer: str = "x") -> str:
    return row(number, answer).line


def row(number: int, answer: str = "x", **metadata: str) -> Row:
    messages = (Message("user", f"question {number}"), Message("assistant", answer))
    return Row(messages, f"t:{number}", metadata=metadata)


class Store:
    """Packs by key, as an object store has them."""

    def __init__(self) -> None:
        self.packs: dict[str, list[str]] = {}

    def keep(self, packed: Packed) -> Manifest:
        for key, text in packed.new.items():
            self.packs[key] = pack_lines(key, pack_bytes(text))
        return Manifest.from_json(json.loads(json.dumps(packed.manifest.to_json())))

    def of(self, manifest: Manifest) -> dict[str, list[str]]:
        return {key: self.packs[key] for key in manifest.packs}


@given(st.lists(st.lists(st.integers(0, 12), max_size=30), min_size=1, max_size=6))
def test_every_version_gives_back_its_rows_in_order(versions: list[list[int]]) -> None:
    store, before = Store(), None
    for numbers in versions:
        lines = [line(number) for number in numbers]
        packs = None if before is None else store.of(before)

        before = store.keep(pack(lines, RECIPE, before, packs))

        assert before.lines(store.of(before)) == lines
        assert before.id == dataset_id(lines, RECIPE) == pack(lines, RECIPE).manifest.id
        assert before.rows == len(lines)


def test_a_changed_set_writes_only_what_is_new() -> None:
    store = Store()
    lines = [line(number) for number in range(1_000)]
    first = store.keep(pack(lines, RECIPE))
    changed = [line(n, "y") if n % 100 == 0 else text for n, text in enumerate(lines)]
    changed += [line(2_000)]
    del changed[5]

    second = pack(changed, RECIPE, first, store.of(first))

    [new] = second.new.values()
    assert new.count("\n") == 11
    assert len(second.manifest.spans) == 22
    assert store.keep(second).lines(store.of(second.manifest)) == changed


def test_a_pack_that_is_mostly_unused_is_left_behind() -> None:
    store = Store()
    first = store.keep(pack([line(number) for number in range(10)], RECIPE))
    second = store.keep(pack([line(number) for number in range(4)], RECIPE, first, store.of(first)))

    third = store.keep(
        pack([line(number) for number in range(5)], RECIPE, second, store.of(second))
    )

    assert set(second.packs) == set(first.packs)
    assert not set(third.packs) & set(first.packs)


def test_a_large_set_is_several_packs() -> None:
    lines = [line(number, "x" * 1_000_000) for number in range(40)]

    packed = pack(lines, RECIPE)

    assert len(packed.new) == 3
    assert sum(packed.manifest.packs.values()) == 40


def test_a_version_is_named_by_rows_order_and_recipe() -> None:
    lines = [line(1), line(2)]

    ids = {
        dataset_id(lines, RECIPE),
        dataset_id(lines[::-1], RECIPE),
        dataset_id(lines, {"files": ["b.jsonl"]}),
    }

    assert len(ids) == 3
    assert all(each.startswith("ds_") for each in ids)


def test_a_pack_that_is_not_what_it_was_is_refused() -> None:
    [(key, text)] = pack([line(1)], RECIPE).new.items()

    with pytest.raises(Rejected, match="another digest"):
        pack_lines(key, pack_bytes(text + "\n"))
    with pytest.raises(Rejected, match="cannot be read"):
        pack_lines(key, b"no gzip")
    with pytest.raises(Rejected, match="cannot be read"):
        pack_lines(key, pack_bytes(text)[:-9])
    manifest = pack([line(1)], RECIPE).manifest
    with pytest.raises(Rejected, match="has 0 rows, expected 1"):
        manifest.lines({key: []})


def test_a_row_is_stored_with_other_line_ends_in_it() -> None:
    odd = line(1, "one\u2028two\x85three\rfour")
    [(key, text)] = pack([odd], RECIPE).new.items()

    assert pack_lines(key, pack_bytes(text)) == [odd]


def test_a_difference_names_added_removed_and_other_answers() -> None:
    before = [line(1), line(2), line(3), line(3), line(5)]
    after = [line(5), line(3), line(2, "y"), line(4)]

    found = difference(before, after)

    assert [each.line for each in found.added] == [line(4)]
    assert sorted(each.line for each in found.removed) == [line(1), line(3)]
    assert [(a.answer, b.answer) for a, b in found.changed] == [("x", "y")]
    assert found.kept == 2


def test_the_held_out_share_is_kept_and_a_row_stays_on_its_side() -> None:
    rows = [row(number) for number in range(4_000)]

    held_out = [each for each in rows if is_held_out(each, 0.1)]

    assert 320 < len(held_out) < 480
    assert all(is_held_out(each, 0.2) for each in held_out)
    assert all(is_held_out(row(n, "another"), 0.1) == is_held_out(row(n), 0.1) for n in range(99))


def test_a_conversation_lies_on_one_side() -> None:
    sides = {is_held_out(row(number, conversation="c1"), 0.5) for number in range(50)}

    assert len(sides) == 1
