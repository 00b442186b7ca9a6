"""Dataset versions: rows in their order, named by what they say, stored so that only new ones cost.

Rows lie as lines in *packs*, which never change.  A version's manifest says which lines of which
packs it is made of, as *spans* of neighbours.  A version of a slightly changed file writes one pack
with the rows that are new, and a manifest.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ratchet.core.data import Row, row_of
from ratchet.core.errors import Rejected
from ratchet.core.retention import key_of
from ratchet.kit.digest import digest_bytes, digest_json, digest_lines

# What a row becomes when it is stored, and what a version is named by.  Another number gives other
# names to the same files.
CODE_VERSION = 1
PACK_BYTES = 16 * 1024 * 1024
# A pack of which less is still used is not built upon, so that no version drags old packs along
# for a handful of rows: what is stored stays within twice what is used.
LIVE_SHARE_MIN = 0.5
HELD_OUT_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Span:
    """`count` neighbouring lines of a pack, from `start` on."""

    pack: str
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which rows a version is made of, and how it was made."""

    id: str
    rows: int
    recipe: Mapping[str, object]
    packs: Mapping[str, int]
    """Lines of each pack, by its key in the object store."""
    spans: tuple[Span, ...]

    def to_json(self) -> dict[str, object]:
        keys = list(self.packs)
        places = {key: place for place, key in enumerate(keys)}
        return {
            "id": self.id,
            "rows": self.rows,
            "recipe": dict(self.recipe),
            "packs": [[key, self.packs[key]] for key in keys],
            "spans": [[places[span.pack], span.start, span.count] for span in self.spans],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, object]) -> Manifest:
        packs, spans, recipe = value["packs"], value["spans"], value["recipe"]
        assert isinstance(recipe, dict)
        assert isinstance(packs, list)
        assert isinstance(spans, list)
        return cls(
            id=str(value["id"]),
            rows=int(str(value["rows"])),
            recipe=recipe,
            packs=dict(packs),
            spans=tuple(Span(packs[place][0], start, count) for place, start, count in spans),
        )

    def moved(self, places: Mapping[str, str]) -> Manifest:
        """The same rows where they lie now: place by key of each pack."""
        return replace(
            self,
            packs={places[key]: lines for key, lines in self.packs.items()},
            spans=tuple(replace(span, pack=places[span.pack]) for span in self.spans),
        )

    def lines(self, packs: Mapping[str, Sequence[str]]) -> list[str]:
        """The version's rows as lines, in its order.  Raises `Rejected` if a pack is not whole."""
        for key, count in self.packs.items():
            if len(packs[key]) != count:
                raise Rejected(
                    f"dataset {self.id}: {key} has {len(packs[key])} rows, expected {count}"
                )
        return [
            line
            for span in self.spans
            for line in packs[span.pack][span.start : span.start + span.count]
        ]

    def live(self) -> dict[str, float]:
        """Of each pack, the share of its lines that this version uses."""
        used: Counter[str] = Counter()
        for span in self.spans:
            used[span.pack] += span.count
        return {key: used[key] / count for key, count in self.packs.items()}


@dataclass(frozen=True, slots=True)
class Packed:
    """A manifest, and the packs that have to be written before it."""

    manifest: Manifest
    new: Mapping[str, str]
    """Text by key."""


def dataset_id(lines: Sequence[str], recipe: Mapping[str, object]) -> str:
    """`ds_` and 16 hexadecimal digits of the rows in their order, their recipe, and our code."""
    content = {"rows": digest_lines(lines), "recipe": dict(recipe), "code": CODE_VERSION}
    return "ds_" + digest_json(content)[:16]


def pack(
    lines: Sequence[str],
    recipe: Mapping[str, object],
    before: Manifest | None = None,
    packs: Mapping[str, Sequence[str]] | None = None,
) -> Packed:
    """Lay rows out over the packs of an earlier version, and what is new over new packs."""
    known: dict[str, tuple[str, int]] = {}
    if before is not None and packs is not None:
        for key, share in before.live().items():
            if share >= LIVE_SHARE_MIN:
                known.update((line, (key, place)) for place, line in enumerate(packs[key]))
    fresh = list(dict.fromkeys(line for line in lines if line not in known))
    new: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for part in _parts(fresh):
        text = "".join(f"{line}\n" for line in part)
        key = pack_key(text)
        new[key], sizes[key] = text, len(part)
        known.update((line, (key, place)) for place, line in enumerate(part))
    spans = _spans(known[line] for line in lines)
    used = dict.fromkeys(span.pack for span in spans)
    counts = sizes if packs is None else {key: len(rows) for key, rows in packs.items()} | sizes
    manifest = Manifest(
        id=dataset_id(lines, recipe),
        rows=len(lines),
        recipe=recipe,
        packs={key: counts[key] for key in used},
        spans=spans,
    )
    return Packed(manifest, new)


def pack_key(text: str) -> str:
    return f"rows/{digest_bytes(text.encode())[:32]}.jsonl.gz"


def pack_bytes(text: str) -> bytes:
    """As it is stored.  No time in it: the same rows are the same bytes."""
    return gzip.compress(text.encode(), compresslevel=6, mtime=0)


def pack_lines(key: str, content: bytes) -> list[str]:
    """Lines of a stored pack.  Raises `Rejected` when they are not what the key says."""
    try:
        text = gzip.decompress(content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise Rejected(f"{key} cannot be read: {error}") from None
    if pack_key(text) != key_of(key):
        raise Rejected(f"{key} is not what it was: its rows have another digest")
    # Only line feeds end a row; other line ends may stand in its text.
    return text.split("\n")[:-1]


def _parts(lines: Sequence[str]) -> Iterable[list[str]]:
    part: list[str] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= PACK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _spans(places: Iterable[tuple[str, int]]) -> tuple[Span, ...]:
    spans: list[Span] = []
    for key, place in places:
        last = spans[-1] if spans else None
        if last is not None and last.pack == key and last.start + last.count == place:
            spans[-1] = Span(key, last.start, last.count + 1)
        else:
            spans.append(Span(key, place, 1))
    return tuple(spans)


def is_held_out(row: Row, share: float) -> bool:
    """Whether a row is kept from training.

    By its conversation where it names one, else by its prompt; so a row stays on its side when
    others come, and what was said of one prompt lies on one side.
    """
    key = row.metadata.get("conversation", "")
    digest = digest_bytes(key.encode()) if key else row.prompt_key
    return int(digest[:HELD_OUT_DIGITS], 16) < share * float(16**HELD_OUT_DIGITS)


@dataclass(frozen=True, slots=True)
class Difference:
    """What is in one version and not in another.  Rows that occur more often count as often."""

    added: tuple[Row, ...]
    removed: tuple[Row, ...]
    changed: tuple[tuple[Row, Row], ...]
    """The same prompt with another answer: before and after."""
    kept: int


def difference(before: Sequence[str], after: Sequence[str]) -> Difference:
    """Compare two versions row by row, whatever their order."""
    old, new = Counter(before), Counter(after)
    added = [row_of(line) for line in (new - old).elements()]
    removed = [row_of(line) for line in (old - new).elements()]
    waiting: dict[str, list[Row]] = {}
    for row in removed:
        waiting.setdefault(row.prompt_key, []).append(row)
    changed, only_added = [], []
    for row in added:
        if same := waiting.get(row.prompt_key):
            changed.append((same.pop(0), row))
        else:
            only_added.append(row)
    return Difference(
        added=tuple(only_added),
        removed=tuple(row for rows in waiting.values() for row in rows),
        changed=tuple(changed),
        kept=(old & new).total(),
    )
