"""Take out of text what names a person or opens a door, before it is written anywhere.

Patterns with checks (a card's check digit, an address's numbers), each replaced by a placeholder
that says what stood there.  It is no proof: a name in a sentence stays.  What it takes is chosen so
that a model can still be trained on the rest.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# Bodies may carry pictures and files as text; nobody trains on those here.
DATA_URL_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: str
    pattern: re.Pattern[str]
    hint: re.Pattern[str] | None = None
    """Text without this has nothing for the rule; a cheap look first."""
    is_real: Callable[[str], bool] = lambda _: True


def luhn(digits: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and luhn(digits)


def _is_ip(found: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return True


# Dates, and large numbers in groups of three.
_NO_PHONE = re.compile(
    r"\d{4}([-./ ])\d{1,2}\1\d{1,2}|\d{1,2}([-./ ])\d{1,2}\2\d{4}"
    r"|[1-9]\d{0,2}([. ])\d{3}(?:\3\d{3})*"
)


def _is_phone(found: str) -> bool:
    # ITU-T E.164: at most 15 digits; fewer than 7 is a short number, of nobody in particular.
    return 7 <= sum(map(str.isdigit, found)) <= 15 and not _NO_PHONE.fullmatch(found.strip())


_DIGIT = re.compile(r"\d")
_RULES: Sequence[_Rule] = (
    _Rule(
        "KEY",
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
            r"|\b(?:rk_)?eyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"
            r"|\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9_-]{16,}"
            r"|\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}"
            r"|\bglpat-[\w-]{16,}|\bxox[abposr]-[\w-]{10,}|\bhf_[A-Za-z0-9]{20,}"
            r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}",
            re.DOTALL,
        ),
        re.compile(r"-----BEGIN|eyJ|[spr]k[-_]|gh[pousr]_|github_pat_|glpat-|xox|hf_|A[KS]IA|AIza"),
    ),
    _Rule(
        "EMAIL",
        re.compile(r"(?<![\w.+-])[\w.+%'-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"),
        re.compile("@"),
    ),
    _Rule("CARD", re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])"), _DIGIT, _is_card),
    _Rule(
        "IP",
        re.compile(
            r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\d)"
            r"|(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"
        ),
        re.compile(r"\d\.\d|:[0-9A-Fa-f:]"),
        _is_ip,
    ),
    _Rule(
        "PHONE",
        re.compile(
            # With the country's code; with an area's; or in groups, the first perhaps in brackets.
            r"(?<![\w.-])(?:\+|00)\d{1,3}(?:[ ./()-]{0,3}\d){6,13}(?!\w)"
            r"|(?<![\w.+-])\(?0\d{1,4}\)?[ /-]{1,2}\d{5,9}(?![\w.-]*\d)"
            r"|(?<![\w.+-])\(?0?\d{2,5}\)?[ ./-]{1,2}\d{2,5}(?:[ ./-]\d{2,5}){1,4}(?![\w.-]*\d)"
        ),
        _DIGIT,
        _is_phone,
    ),
)


def scrub(text: str) -> tuple[str, Counter[str]]:
    """The text with `[EMAIL]`, `[PHONE]`, `[CARD]`, `[IP]`, `[KEY]` for what was found, and how
    much of each there was.  Scrubbing twice changes nothing more."""
    counts: Counter[str] = Counter()
    # What no database holds: NUL, and halves of characters.
    text = text.replace("\0", "").encode(errors="replace").decode()
    for rule in _RULES:
        if rule.hint is not None and rule.hint.search(text) is None:
            continue

        def replaced(match: re.Match[str], rule: _Rule = rule) -> str:
            if not rule.is_real(match[0]):
                return match[0]
            counts[rule.kind] += 1
            return f"[{rule.kind}]"

        text = rule.pattern.sub(replaced, text)
    return text, counts


def scrub_json(value: object, counts: Counter[str]) -> object:
    """The same for every text of a JSON value, names of objects included; data as text (pictures,
    files) becomes `[DATA]`.  Adds to `counts`."""
    if isinstance(value, str):
        if len(value) > DATA_URL_CHARACTERS and value.startswith("data:"):
            counts["DATA"] += 1
            return "[DATA]"
        clean, found = scrub(value)
        counts.update(found)
        return clean
    if isinstance(value, Mapping):
        return {str(scrub_json(str(k), counts)): scrub_json(v, counts) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [scrub_json(item, counts) for item in value]
    return value
