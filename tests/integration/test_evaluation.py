"""Suites asked of a real HTTP server: every kind of check, and a kill in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from ratchet.core.errors import Rejected
from ratchet.kit.processes import StopNotice, peak_memory_bytes
from ratchet.train.desk import Desk
from ratchet.train.evaluate import answers_in, run_suite
from ratchet.train.evaluation import ItemCount
from ratchet.train.job import Preempted


class Parrot(ThreadingHTTPServer):
    """Speaks OpenAI's API and says what it is asked; not a model, so that answers are known."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Parrot

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = asked["messages"][-1]["content"]
        self.server.asked.append(said)
        body = json.dumps(
            {
                "choices": [{"message": {"role": "assistant", "content": said}}],
                "usage": {"completion_tokens": len(said.split())},
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@contextmanager
def parrot() -> Iterator[tuple[Parrot, str]]:
    server = Parrot()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def suite(check: str, *pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
    rows = [
        {
            "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}],
            "metadata": {"number": str(number)},
        }
        for number, (q, a) in enumerate(pairs)
    ]
    return {"name": "s", "digest": "d", "check": check, "max_tokens": 4, "rows": rows, **more}


SCHEMA = {"type": "object", "required": ["label"]}


@pytest.mark.parametrize(
    ("asked", "scores"),
    [
        (suite("exact", ("a", "a"), ("a", "b")), [1.0, 0.0]),
        (suite("regex", ("no 7", r"no \d"), ("7", "x")), [1.0, 0.0]),
        (suite("f1", ("a red car", "red car"), ("x", "y")), [1.0, 0.0]),
        (
            suite("json_schema", ('{"label": 1}', "x"), ("{}", "x"), ("{", "x"), schema=SCHEMA),
            [1.0, 0.0, 0.0],
        ),
    ],
)
def test_answers_are_scored_by_the_suites_check(
    tmp_path: Path, asked: dict[str, Any], scores: list[float]
) -> None:
    with parrot() as (_, url):
        report = run_suite(asked, url, "m", tmp_path / "kept.jsonl", lambda _: None)

    assert [item["score"] for item in report["items"]] == scores
    assert report["items"][1]["metadata"] == {"number": "1"}
    assert report["items"][0]["tokens"] >= 1


GRADE = """
import os
print("what a program prints comes between no lines")
def score(answer, expected, row):
    if answer == "raise":
        raise ValueError("no such word")
    if answer == "end":
        os._exit(3)
    if answer == "odd":
        return "very"
    assert "RATCHET_TOKEN" not in os.environ
    return 0.25 if row["metadata"]["number"] == "0" else answer == expected
"""


def test_a_program_of_the_users_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_TOKEN", "secret")
    asked = suite("python", ("a", "b"), ("a", "a"), ("a", "b"), code=GRADE)
    asked["name"] = "../any/name"
    with parrot() as (_, url):
        report = run_suite(asked, url, "m", tmp_path / "kept.jsonl", lambda _: None)

    assert [item["score"] for item in report["items"]] == [0.25, 1.0, 0.0]


def test_the_most_memory_of_a_process_and_its_child_is_known() -> None:
    hold = "b = bytearray(80_000_000); import sys; print(1, flush=True); sys.stdin.read()"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        assert 80_000_000 < peak_memory_bytes(process.pid) < 400_000_000
    finally:
        process.communicate()
    assert peak_memory_bytes(process.pid) == 0, "it is gone"


@pytest.mark.parametrize(
    ("said", "code", "fault"),
    [
        ("raise", GRADE, "its check raised ValueError: no such word \\(line 6\\), on the item"),
        ("end", GRADE, "its check ended with code 3"),
        ("odd", GRADE, "its check answered 'very', expected a number from 0 to 1"),
        ("a", "import nothing_of_that_name\ndef score(*_): ...", "No module named"),
    ],
)
def test_what_is_wrong_with_a_program_that_scores_is_said(
    tmp_path: Path, said: str, code: str, fault: str
) -> None:
    asked = suite("python", ("a", "b"), (said, "b"), code=code)
    with parrot() as (_, url), pytest.raises(Rejected, match=fault):
        run_suite(asked, url, "m", tmp_path / "kept.jsonl", lambda _: None)


JUDGED = {"key": "$JUDGE_KEY", "model": "j"}
SAYS = "Fine. Score: {}"


@contextmanager
def judge_that_says(*said: str | int) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """Not a model, so that marks are known: each answer in its turn, a number as an error."""
    turns, asked = list(said), []

    class Handler(_Handler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append({**body, "key": self.headers["authorization"]})
            turn = turns.pop(0) if len(turns) > 1 else turns[0]
            is_error = isinstance(turn, int)
            message = {"message": {"role": "assistant", "content": turn}}
            answer = json.dumps({} if is_error else {"choices": [message]}).encode()
            self.send_response(turn if isinstance(turn, int) else 200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield asked, f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def test_a_judge_gives_marks_and_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    monkeypatch.setattr("ratchet.train.judge.PAUSE_SECONDS", 0.01)
    kept = tmp_path / "kept.jsonl"
    with parrot() as (_, url), judge_that_says(503, SAYS.format(7)) as (asked, place):
        wish = suite("judge", ("a", "b"), ("c", "d"), judge={**JUDGED, "url": place})
        report = run_suite(wish, url, "m", kept, lambda _: None)
        again = run_suite(wish, url, "m", kept, lambda _: None)

    assert [item["score"] for item in report["items"]] == [0.7, 0.7]
    assert again == report
    assert len(asked) == 3, "two answers, and one that was asked again"
    assert {each["key"] for each in asked} == {"Bearer secret"}
    words = asked[-1]["messages"][0]["content"]
    assert "Expected answer:\n" in words
    assert "Answer to grade:\n" in words


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (401, "its judge at .* refused: 401"),
        ("I like it", "its judge gave no `score: N` from 0 to 10: 'I like it'"),
        (SAYS.format(70), "its judge gave no `score: N`"),
        (500, "its judge at .* does not answer: 500"),
    ],
)
def test_what_is_wrong_with_a_judge_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | int, fault: str
) -> None:
    monkeypatch.setattr("ratchet.train.judge.PAUSE_SECONDS", 0.01)
    kept = tmp_path / "kept.jsonl"
    with parrot() as (_, url), judge_that_says(said) as (_, place):
        wish = suite("judge", ("a", "b"), judge={"url": place, "model": "j"})
        with pytest.raises(Rejected, match=fault):
            run_suite(wish, url, "m", kept, lambda _: None)
        nameless = suite("judge", ("a", "b"), judge={**JUDGED, "url": place})
        with pytest.raises(Rejected, match=r"judge\.key: \$JUDGE_KEY is not set"):
            run_suite(nameless, url, "m", kept, lambda _: None)


class Killed(Exception):
    pass


def test_a_killed_evaluation_asks_for_the_rest_only(tmp_path: Path) -> None:
    asked = suite("exact", *((f"question {number}", "x") for number in range(40)))
    kept = tmp_path / "kept.jsonl"

    def die(number: int) -> None:
        if number == 20:
            raise Killed

    with parrot() as (server, url):
        with pytest.raises(Killed):
            run_suite(asked, url, "m", kept, die)
        # The kernel may have written half of the last line.
        text = kept.read_text()
        kept.write_text(text[:-7])
        server.asked.clear()

        report = run_suite(asked, url, "m", kept, lambda _: None)

    assert sorted(server.asked) == sorted(f"question {number}" for number in range(19, 40))
    assert [item["answer"] for item in report["items"]] == [f"question {n}" for n in range(40)]
    with parrot() as (server, url):
        again = run_suite(asked, url, "m", kept, lambda _: None)
        assert server.asked == []
    assert again == report


class Asked:
    """A desk whose worker is to save and leave; what it hears is what is tested."""

    def __init__(self) -> None:
        self.stop = StopNotice()
        self.heard: list[int] = []

    def report(self, progress: dict[str, Any], _: list[Any]) -> None:
        self.heard.append(progress["step"])

    def check(self) -> None: ...


def test_an_evaluation_that_is_asked_to_leave_does_so_and_keeps_its_answers(tmp_path: Path) -> None:
    desk, kept = Asked(), tmp_path / "kept.jsonl"
    count = ItemCount(cast(Desk, desk), total=3)
    wanted = suite("exact", ("a", "a"), ("b", "b"), ("c", "c"))

    def item(number: int) -> None:
        desk.stop.given = number == 2
        count.item(number)

    with parrot() as (server, url):
        with pytest.raises(Preempted, match="after 2 of 3 items"):
            run_suite(wanted, url, "m", kept, item)
        assert answers_in(kept) == 2
        server.asked.clear()
        desk.stop.given = False
        run_suite(wanted, url, "m", kept, lambda _: None)

    assert server.asked == ["c"], "what was answered is not asked again"
