"""What can be known of a run before a cent is spent: all problems at once, each with its fix.

A *problem* stops the run, a *note* does not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ratchet.core.data import Row, Rows
from ratchet.core.scrub import scrub
from ratchet.stats.overlap import resembling

PROBLEMS_SHOWN = 10  # more would scroll the first one, the usual cause, off the screen
ANSWERS_SHOWN = 10
NEAR_DUPLICATE = 0.8
# So many different answers are still labels; more are texts.
LABELS_MAX = 50
RARE_LABEL_ROWS = 10
QUANTILES = {"p50": 0.5, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True, slots=True)
class Found:
    """What one look at the data gave."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


def together(parts: Sequence[Found]) -> Found:
    facts: dict[str, object] = {}
    for part in parts:
        facts |= part.facts
    return Found(
        tuple(problem for part in parts for problem in part.problems),
        tuple(note for part in parts for note in part.notes),
        facts,
    )


def _places(places: Sequence[str]) -> str:
    shown = ", ".join(places[:PROBLEMS_SHOWN])
    left = len(places) - PROBLEMS_SHOWN
    return f"{shown} and {left} more" if left > 0 else shown


def readable(rows: Rows, bad_max_share: float) -> Found:
    """Are there rows, and few enough lines that are none?"""
    total = len(rows.good) + len(rows.bad)
    facts = {"rows": len(rows.good), "bad_rows": len(rows.bad)}
    said = _places([f"{bad.place}: {bad.found}" for bad in rows.bad])
    if total == 0:
        return Found(("data.train: no rows; write at least one conversation a line",), (), facts)
    if len(rows.bad) > bad_max_share * total:
        problem = (
            f"data.train: {len(rows.bad)} of {total} rows are bad, at most {bad_max_share:.1%} "
            f"may be (data.bad_rows): {said}"
        )
        return Found((problem,), (), facts)
    notes = (f"data.train: {len(rows.bad)} bad rows are left out: {said}",) if rows.bad else ()
    return Found((), notes, facts)


def answers(rows: Sequence[Row]) -> Found:
    """Is there something to learn, and does the data agree with itself?"""
    counts = Counter(row.answer for row in rows)
    prompts: dict[str, list[Row]] = {}
    for row in rows:
        prompts.setdefault(row.prompt_key, []).append(row)
    facts: dict[str, object] = {
        "answers": dict(counts.most_common(ANSWERS_SHOWN)),
        "different_answers": len(counts),
        "duplicates": len(rows) - len(prompts),
    }
    if len(rows) > 1 and len(counts) == 1 and rows[0].rejected is None:
        problem = (
            f"data.train: all {len(rows)} answers are {next(iter(counts))!r}; a model learns "
            "nothing from one class: add rows with other answers"
        )
        return Found((problem,), (), facts)
    notes = []
    quarrels = [same for same in prompts.values() if len({row.answer for row in same}) > 1]
    if quarrels and all(row.rejected is None and row.label is None for row in rows):
        shown = _places([" and ".join(row.place for row in same[:2]) for same in quarrels])
        notes.append(
            f"data.train: {len(quarrels)} prompts have more than one answer ({shown}); the model "
            "learns both"
        )
    rare = [f"{text!r} ({n})" for text, n in counts.items() if n < RARE_LABEL_ROWS]
    if len(counts) <= LABELS_MAX and rare and len(rows) >= RARE_LABEL_ROWS * len(counts):
        notes.append(f"data.train: few rows have the answers {_places(rare)}")
    return Found((), tuple(notes), facts)


def labels(rows: Sequence[Row], method: str) -> Found:
    """Are there both kinds of thumbs, where a method learns from them?"""
    if method != "kto" or not rows:
        return Found()
    liked = sum(row.label is True for row in rows)
    facts = {"liked": liked, "disliked": len(rows) - liked}
    if 0 < liked < len(rows):
        return Found((), (), facts)
    problem = (
        f"data.train: all {len(rows)} rows have the label {'true' if liked else 'false'}; kto "
        "needs answers that were liked and answers that were not"
    )
    return Found((problem,), (), facts)


def evaluation(suites: Mapping[str, Rows]) -> Found:
    """Does every suite ask something?"""
    problems = []
    for name, rows in suites.items():
        problems += [f"evaluate: {bad.place}: {bad.found}" for bad in rows.bad[:PROBLEMS_SHOWN]]
        if not rows.good:
            problems.append(f"evaluate: suite {name} has no items; write at least one a line")
    return Found(tuple(problems), (), {"held_out": sum(len(r.good) for r in suites.values())})


def patterns(rows: Sequence[Row]) -> Found:
    """Is what is expected a regular expression, where it is used as one?"""
    problems = []
    for row in rows:
        try:
            re.compile(row.answer.strip())
        except re.error as error:
            problems.append(f"evaluate: {row.place}: no regular expression: {error}")
    return Found(tuple(problems[:PROBLEMS_SHOWN]))


def leaks(rows: Sequence[Row], held_out: Sequence[Row], near_max_share: float) -> Found:
    """Is what the model is asked also what it was taught?"""
    taught = {row.prompt_key: row.place for row in reversed(rows)}
    problems, notes = [], []
    leaked = [row for row in held_out if row.prompt_key in taught]
    if leaked:
        shown = _places([f"{row.place} is {taught[row.prompt_key]}" for row in leaked])
        problems.append(
            f"evaluate: {len(leaked)} held-out prompts are also in the training data ({shown}); "
            "remove them from one side, or the score means nothing"
        )
    exact = {id(row) for row in leaked}
    rest = [row for row in held_out if id(row) not in exact]
    near = resembling([_asked(row) for row in rest], (_asked(row) for row in rows), NEAR_DUPLICATE)
    if near:
        shown = _places(
            [f"{rest[n.one].place} is {n.similarity:.0%} {rows[n.other].place}" for n in near]
        )
        said = f"evaluate: {len(near)} held-out prompts are nearly in the training data ({shown})"
        if len(near) > near_max_share * len(held_out):
            problems.append(
                f"{said}; remove them, or allow more by evaluate.near_duplicates (now "
                f"{near_max_share:.1%})"
            )
        else:
            notes.append(said)
    return Found(tuple(problems), tuple(notes), {"leaked": len(leaked), "near": len(near)})


def _asked(row: Row) -> str:
    """What a person said: instructions are the same for everybody."""
    return "\n".join(message.content for message in row.prompt if message.role == "user")


def personal(rows: Sequence[Row], refuse: bool) -> Found:
    """Is there something in the rows that names a person or opens a door?"""
    kinds: Counter[str] = Counter()
    places = []
    for row in rows:
        found: Counter[str] = Counter()
        for message in row.messages:
            found += scrub(message.content)[1]
        if found:
            kinds += found
            places.append(f"{row.place} ({', '.join(sorted(found))})")
    facts = {"personal": dict(kinds)}
    if not places:
        return Found((), (), facts)
    said = f"data.train: {len(places)} rows hold what looks personal: {_places(places)}"
    if refuse:
        return Found((f"{said}; take it out, or set data.personal: allow",), (), facts)
    return Found((), (said,), facts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The rows as the model will read them."""

    lengths: Sequence[int]
    """Of whole conversations, in the rows' order."""
    prompt_lengths: Sequence[int]
    context_tokens: int
    """What the base model can read at most."""
    template_fault: str = ""
    """Why the chat template does not fit, empty if it does."""
    config_digest: str = ""
    tokenizer_digest: str = ""


def lengths(rows: Sequence[Row], tokens: Tokens, max_length: int, every: int = 1) -> Found:
    """Do the rows fit into what is trained, and that into the model?

    `rows` are every so manieth of the data.
    """
    problems, notes = [], []
    if tokens.template_fault:
        problems.append(f"model.base: the chat template does not fit: {tokens.template_fault}")
    if max_length > tokens.context_tokens:
        problems.append(
            f"train.max_length: found {max_length}, the base model reads at most "
            f"{tokens.context_tokens} tokens: lower it, or take another base"
        )
    blind = [
        row.place
        for row, length in zip(rows, tokens.prompt_lengths, strict=True)
        if length >= max_length
    ]
    if blind:
        problems.append(
            f"train.max_length: {len(blind)} prompts fill all {max_length} tokens and leave no "
            f"answer to learn ({_places(blind)}): raise it, or shorten them"
        )
    cut = sum(length > max_length for length in tokens.lengths) - len(blind)
    if cut > 0:
        notes.append(f"train.max_length: {cut} rows are cut at {max_length} tokens")
    return Found(tuple(problems), tuple(notes), _token_facts(tokens, max_length, every))


def _token_facts(tokens: Tokens, max_length: int, every: int) -> dict[str, object]:
    facts: dict[str, object] = {
        "context_tokens": tokens.context_tokens,
        "base_config": tokens.config_digest,
        "tokenizer": tokens.tokenizer_digest,
    }
    if ordered := sorted(tokens.lengths):
        facts["tokens"] = {
            name: ordered[min(int(q * len(ordered)), len(ordered) - 1)]
            for name, q in QUANTILES.items()
        }
        facts["tokens_an_epoch"] = every * sum(min(each, max_length) for each in ordered)
    return facts
