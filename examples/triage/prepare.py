"""Make the demo's data from human-rated sentences, once.

The sentences come from the source archive of vaderSentiment 0.5 (MIT; Hutto and Gilbert, ICWSM
2014), which `make setup` keeps beside the installed packages; nothing of it is in this repository.
Twenty people rated each from -4 to +4.  Positive and negative are means of at least one; neutral is
closer to zero than 0.3; what lies between, people do not agree on, and it is left out.

Product reviews are today's data; tweets are what arrives later.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tarfile
import zipfile
from pathlib import Path

ARCHIVE = Path(sys.prefix) / "share" / "vader" / "vaderSentiment-0.5.zip"
INNER = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
ASK = "You sort what customers write. Answer with one word: positive, negative or neutral."
LABELS = ("negative", "neutral", "positive")
CLEAR, NEAR_ZERO = 1.0, 0.3
WORDS_MIN, WORDS_MAX = 4, 40
HELD_OUT, LIVE = 240, 400
# A third of each class, so that the rarest is learned too.
TRAIN_PER_LABEL = 160
DRILL_PER_LABEL = 120

Example = tuple[str, str]


def read(domain: str, archive: Path = ARCHIVE) -> list[Example]:
    """(text, label) pairs of one domain, without duplicates, in a fixed shuffled order."""
    with (
        zipfile.ZipFile(archive) as outer,
        tarfile.open(fileobj=io.BytesIO(outer.read(INNER))) as inner,
    ):
        file = inner.extractfile(f"hutto_ICWSM_2014/{domain}_GroundTruth.txt")
        assert file is not None
        lines = file.read().decode("latin-1").splitlines()
    found: dict[str, Example] = {}
    for line in lines:
        parts = line.split("\t", 2)
        if len(parts) != 3:
            continue
        text, label = parts[2].strip(), label_of(float(parts[1]))
        if label is not None and WORDS_MIN <= len(text.split()) <= WORDS_MAX:
            found.setdefault(" ".join(text.lower().split()), (text, label))
    rows = sorted(found.values())
    random.Random(0).shuffle(rows)
    return rows


def label_of(rating: float) -> str | None:
    if abs(rating) < NEAR_ZERO:
        return "neutral"
    if abs(rating) < CLEAR:
        return None
    return "positive" if rating > 0 else "negative"


def balanced(rows: list[Example], per_label: int) -> list[Example]:
    """The first rows of each label, shuffled together."""
    chosen = [row for label in LABELS for row in [r for r in rows if r[1] == label][:per_label]]
    random.Random(1).shuffle(chosen)
    return chosen


def spoil(rows: list[Example]) -> list[Example]:
    """The same texts with the labels of others."""
    labels = [label for _, label in rows]
    random.Random(2).shuffle(labels)
    return [(text, label) for (text, _), label in zip(rows, labels, strict=True)]


def write(path: Path, rows: list[Example]) -> None:
    lines = []
    for text, label in rows:
        messages = [
            {"role": "system", "content": ASK},
            {"role": "user", "content": text},
            {"role": "assistant", "content": label},
        ]
        lines.append(json.dumps({"messages": messages}, ensure_ascii=False))
    beside = path.with_suffix(".part")
    beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
    beside.rename(path)


def main(target: Path) -> None:
    reviews, tweets = read("amazonReviewSnippets"), read("tweets")
    target.mkdir(parents=True, exist_ok=True)
    held_out, live = reviews[:HELD_OUT], reviews[HELD_OUT : HELD_OUT + LIVE]
    rest = reviews[HELD_OUT + LIVE :]
    train = balanced(rest, TRAIN_PER_LABEL)
    write(target / "held-out.jsonl", held_out)
    write(target / "live.jsonl", live)
    write(target / "reviews.jsonl", train)
    write(target / "spoiled.jsonl", spoil(train[: len(train) // 2]))
    mixed = balanced(rest, DRILL_PER_LABEL) + balanced(tweets, TRAIN_PER_LABEL - DRILL_PER_LABEL)
    random.Random(3).shuffle(mixed)
    write(target / "reviews-and-tweets.jsonl", mixed)
    print(f"{len(train)} training rows, {len(held_out)} held out, {len(live)} live texts")


if __name__ == "__main__":
    main(Path(__file__).parent / "data")
