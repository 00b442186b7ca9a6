"""What the agent does beside the gateway, in a whole stack."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tests.e2e.stack import Stack, ask
from tests.e2e.test_loop import cli

SERVED = "keys, capture: {sample: 100%}, cache: true, exact: true"
ASKED = [{"role": "user", "content": "the ball is red, says ann@example.com"}]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("beside"))
    made.prepare()
    made.start()
    spec = made.spec("all", train="good.jsonl", access=SERVED)
    made.client().post("/projects", {"spec": spec.read_text(), "path": str(spec)})
    made.until(lambda: ask(made.gateway).status_code == 401, 10, "the gateway asks for keys")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def key(stack: Stack) -> dict[str, Any]:
    return new_key(stack, "app", "ann")


def new_key(stack: Stack, name: str, principal: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        cli(stack, "key", "create", "--name", name, "--principal", principal, "--json").stdout
    )
    return made


def answered(stack: Stack, key: dict[str, Any], **more: Any) -> Any:
    """The raw answer to the official client."""
    client = openai.OpenAI(base_url=f"{stack.gateway}/v1", api_key=key["key"], max_retries=0)
    body = {"model": "colours", "messages": ASKED, "max_tokens": 4, "temperature": 0, **more}
    return client.chat.completions.with_raw_response.create(**body)


def turns(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli(stack, "data", "list", "--json").stdout)
    return found


def test_a_turn_is_answered_again_kept_judged_and_erased(stack: Stack, key: dict[str, Any]) -> None:
    first = answered(stack, key)
    again = answered(stack, key)
    said = httpx.post(
        f"{stack.gateway}/v1/feedback",
        headers={"authorization": f"Bearer {key['key']}"},
        json={"request_id": first.headers["x-request-id"], "thumbs": "down", "correction": "red"},
    )
    stack.until(lambda: any(t["feedback"] for t in turns(stack)), 10, "the turn and its feedback")

    assert (first.headers["x-ratchet-cache"], again.headers["x-ratchet-cache"]) == ("miss", "hit")
    assert first.parse().choices == again.parse().choices
    assert said.status_code == 202
    # The hit is no second turn.
    [turn] = turns(stack)
    assert turn["request_id"] == first.headers["x-request-id"]
    assert turn["messages"][0]["content"] == "the ball is red, says [EMAIL]"
    assert turn["answer"]["content"] == first.parse().choices[0].message.content
    assert [each["correction"] for each in turn["feedback"]] == ["red"]
    shown = cli(stack, "data", "status").stdout
    assert "1 answers sampled, 1 kept, 0 lost" in shown

    erased = cli(stack, "data", "erase", "--subject", "ann", "--why", "she asked", "--yes")
    assert "erased: 1 turns, 1 feedback" in erased.stdout
    assert turns(stack) == []


def test_turns_and_feedback_wait_for_a_server_that_is_killed(
    stack: Stack, key: dict[str, Any]
) -> None:
    seeds = itertools.count()

    def is_back() -> bool:
        # Without an agent the route itself says "bypass".
        return str(answered(stack, key, seed=next(seeds)).headers["x-ratchet-cache"]) == "miss"

    for _ in range(3):
        stack.kill("cli.main server")
        stack.kill("cli.main agent")
        # Nobody notices: the request goes on without the agent.
        said = answered(stack, key, seed=next(seeds), temperature=1)
        assert said.http_response.status_code == 200
        stack.until(is_back, 30, "the agent takes part again")

    asked = next(seeds)

    def kept() -> bool:
        found = stack.client().get("/capture", project="colours")
        # What passed by while there was no agent is on the record, and will count as lost.
        return bool(found["sampled"] == asked >= found["kept"] >= 3)

    stack.until(kept, 20, "the records of all, and the turns that there are, came in")


def test_an_exact_budget_refuses_before_and_frees_what_was_not_used(stack: Stack) -> None:
    # Of its own: how much the others took depends on how long they waited.
    key = new_key(stack, "exact", "ben")
    cli(stack, "budget", "set", "2000tokens", "--per", "day", "--key", key["id"])

    # Gateways hear of a new budget within half a second.
    time.sleep(1.5)

    with pytest.raises(openai.RateLimitError, match="2000 tokens a day") as refused:
        answered(stack, key, max_tokens=5000, seed=1000)
    assert refused.value.code == "insufficient_quota"
    # Each may take hundreds and takes a few; so all of them find room, one after the other.
    for number in range(10):
        assert answered(stack, key, seed=100 + number).http_response.status_code == 200
    stack.kill("valkey-server")
    # Without Valkey the route allows, and the ledger still counts.
    stack.until(
        lambda: answered(stack, key, seed=200).http_response.status_code == 200, 10, "it is allowed"
    )
