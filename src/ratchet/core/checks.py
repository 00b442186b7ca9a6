"""How an answer is checked against the one that is expected: a score from 0 to 1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

Check = Callable[[str, str], float]


def exact(answer: str, expected: str) -> float:
    """The whole answer, but for white space around it."""
    return float(answer.strip() == expected.strip())


def contains(answer: str, expected: str) -> float:
    """The expected text somewhere in the answer, whatever the case."""
    return float(expected.strip().lower() in answer.lower())


def regex(answer: str, expected: str) -> float:
    """The expected text is a regular expression that the whole answer must match."""
    return float(re.fullmatch(expected.strip(), answer.strip(), re.DOTALL) is not None)


def f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall over words, as SQuAD has it (Rajpurkar et al. 2016):
    lower case, without punctuation and articles."""
    said, wanted = _words(answer), _words(expected)
    shared = (Counter(said) & Counter(wanted)).total()
    if not shared:
        return float(said == wanted)
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


_ARTICLES = frozenset(("a", "an", "the"))


def _words(text: str) -> list[str]:
    plain = re.sub(r"[^\w\s]", "", text.lower())
    return [word for word in plain.split() if word not in _ARTICLES]


def rouge_l(answer: str, expected: str) -> float:
    """F-measure of the longest common subsequence of words, both parts alike.
    Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004, section 3."""
    said, wanted = (re.findall(r"\w+", text.lower()) for text in (answer, expected))
    common = _common(said, wanted)
    if not common:
        return float(said == wanted)
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, one row of the table at a time."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, theirs in enumerate(other, start=1):
            above = row[place]
            row[place] = before + 1 if word == theirs else max(above, row[place - 1])
            before = above
    return row[-1]


CHECKS: Mapping[str, Check] = {
    "exact": exact,
    "contains": contains,
    "regex": regex,
    "f1": f1,
    "rouge_l": rouge_l,
}
# What the files and the reference page know besides: it needs a schema, and a library.
JSON_SCHEMA = "json_schema"
# A program of the user's own, run by the worker.
PYTHON = "python"
# Another model, asked by the worker.
JUDGE = "judge"
# A task of lm-evaluation-harness, which brings its items and judges the answers.
LM_EVAL = "lm_eval"


def macro_f1(expected: Sequence[str], answers: Sequence[str]) -> float:
    """Mean over all expected classes of their F1; an answer that is no class is a miss of its own.

    Each class counts alike, so that a rare one cannot be given up for a common one.
    """
    said = [answer.strip() for answer in answers]
    wanted = [text.strip() for text in expected]
    scores = []
    for name in sorted(set(wanted)):
        hits = sum(a == name == b for a, b in zip(wanted, said, strict=True))
        scores.append(2 * hits / (wanted.count(name) + said.count(name)))
    return sum(scores) / len(scores)
