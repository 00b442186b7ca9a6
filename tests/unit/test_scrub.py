"""What is taken out of text before it is kept, and what stays."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.core.scrub import luhn, scrub, scrub_json


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("mail jane.doe+x@example.co.uk now", "mail [EMAIL] now"),
        ("call +49 (0)30 1234567", "call [PHONE]"),
        ("call 00491701234567!", "call [PHONE]!"),
        ("(555) 123-4567 or 030/1234567", "[PHONE] or [PHONE]"),
        ("card 4111 1111 1111 1111, please", "card [CARD], please"),
        ("from 10.0.0.1:8080 and fe80::1", "from [IP]:8080 and [IP]"),
        ("at http://[2001:db8::1]/", "at http://[[IP]]/"),
        ("key sk-proj-abcdefghijklmnop123456", "key [KEY]"),
        ("rk_eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.c2ln", "[KEY]"),
        ("AKIAIOSFODNN7EXAMPLE", "[KEY]"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ0123", "[KEY]"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----", "[KEY]"),
        # A key that was cut off is one still.
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE", "[KEY]"),
    ],
)
def test_what_names_a_person_or_opens_a_door_is_replaced_by_its_kind(text: str, clean: str) -> None:
    assert scrub(text)[0] == clean


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112 fails its check digit",
        "order 12345678 of 2026-11-25, 12:30:45",
        "25.11.2026 and 25/11/2026 and 2026/11/25",
        "10.000.000 people, 1 000 000 rows, 3.14159265",
        "version 1.2.3.4.5 and 999.1.1.1",
        "std::vector<int> a; mac 00:1A:2B:3C:4D:5E",
        "user@host without a domain, @handle",
        "risk-free, task-based, disk-to-disk",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert scrub(text) == (text, Counter())


def test_it_is_counted_by_kind() -> None:
    assert scrub("a@b.io, c@d.io, 192.168.1.1")[1] == {"EMAIL": 2, "IP": 1}


def test_a_json_value_is_scrubbed_in_all_its_texts() -> None:
    counts: Counter[str] = Counter()
    picture = "data:image/png;base64," + "A" * 500
    value = {"a@b.io": ["c@d.io", 7, None], "url": picture, "ok": True}

    assert scrub_json(value, counts) == {
        "[EMAIL]": ["[EMAIL]", 7, None],
        "url": "[DATA]",
        "ok": True,
    }
    assert counts == {"EMAIL": 2, "DATA": 1}


def test_what_no_database_holds_is_left_out() -> None:
    assert scrub("a\0b\ud800c")[0] == "ab?c"


@pytest.mark.parametrize("number", ["4111111111111111", "5500005555555559", "371449635398431"])
def test_the_check_digit_of_cards(number: str) -> None:
    assert luhn(number)
    assert not luhn(number[:-1] + str((int(number[-1]) + 1) % 10))


@given(st.text(max_size=200))
def test_scrubbing_twice_changes_nothing_more(text: str) -> None:
    once, _ = scrub(text)

    assert scrub(once) == (once, Counter())


@given(st.text(alphabet="0123456789 -./()+@:abcsk_", max_size=300))
def test_no_text_takes_long(text: str) -> None:
    # Patterns that look back and forth over digits would; hypothesis has its own deadline.
    scrub(text)
