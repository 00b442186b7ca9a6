"""How a request finds its engine, through a real Envoy: arms, regions, limits of time and size."""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2 as httpx
import openai
import pytest

from ratchet.core.access import Admission, Scope
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Rejected
from ratchet.core.routing import WEIGHT_TOTAL, Arm
from ratchet.core.serving import MEBIBYTE, Access, Fallback, Serving, Sticky, Timeouts
from tests.gateway import VERSION, Gateway, Upstream, running_gateway
from tests.integration.test_keys_at_the_gateway import CLOSED, error_of, token

OPEN = Admission(is_open=True, project="shop", served_name="router", jwks=(), revoked=())
CANARY = VersionId("v_2")


@pytest.fixture(scope="module")
def envoy() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture
def engines() -> Iterator[list[Upstream]]:
    upstreams = [Upstream() for _ in range(3)]
    yield upstreams
    for upstream in upstreams:
        upstream.kill()


def open_serving(**changes: Any) -> Serving:
    return Serving(access=Access.OPEN, **changes)


def two_arms(engines: list[Upstream], canary_weight: int) -> dict[str, Any]:
    return {
        "arms": (Arm(CANARY, canary_weight), Arm(VERSION, WEIGHT_TOTAL - canary_weight)),
        "endpoints": {CANARY: (engines[0].endpoint,), VERSION: (engines[1].endpoint,)},
        "fallback": VERSION,
    }


def arms_of(gateway: Gateway, names: range, **body: Any) -> dict[int, str]:
    """Which version each conversation got."""
    found = {}
    for name in names:
        answer = gateway.ask(None, headers={"x-ratchet-conversation": f"c{name}"}, **body)
        assert answer.status_code == 200
        found[name] = answer.headers["x-ratchet-version"]
    return found


def test_a_raised_weight_never_moves_a_conversation_back(
    envoy: Gateway, engines: list[Upstream]
) -> None:
    seen = []
    for weight in (1000, 3000, 6000):
        envoy.serve(OPEN, serving=open_serving(), **two_arms(engines, weight))
        arms = arms_of(envoy, range(60))
        seen.append({name for name, version in arms.items() if version == CANARY})

    assert seen[0] < seen[1] < seen[2] < set(range(60))


def test_the_body_names_the_conversation_where_the_spec_says_so(
    envoy: Gateway, engines: list[Upstream]
) -> None:
    envoy.serve(OPEN, serving=open_serving(sticky=Sticky.USER), **two_arms(engines, 5000))
    bodies: list[dict[str, Any]] = [{"user": f"u{n}"} for n in range(12)]
    bodies += [{"metadata": {"conversation_id": f"m{n}"}} for n in range(12)]

    arms = [
        {envoy.ask(None, json=body).headers["x-ratchet-version"] for _ in range(4)}
        for body in bodies
    ]

    assert all(len(versions) == 1 for versions in arms), arms
    assert set().union(*arms) == {VERSION, CANARY}


def test_a_tester_chooses_the_version_and_others_do_not(
    envoy: Gateway, engines: list[Upstream]
) -> None:
    envoy.serve(CLOSED, **two_arms(engines, 0))
    wish = {"x-ratchet-version": CANARY}
    plain = token(scopes=frozenset({Scope.ANSWERS, Scope.MODELS}))

    assert envoy.ask(token(), headers=wish).headers["x-ratchet-version"] == CANARY
    assert error_of(envoy.ask(plain, headers=wish)) == (403, "scope_not_allowed")
    assert envoy.ask(plain).headers["x-ratchet-version"] == VERSION


def test_a_pinned_principal_gets_the_baseline(envoy: Gateway, engines: list[Upstream]) -> None:
    arms = two_arms(engines, 10_000) | {"fallback": VERSION}
    envoy.serve(CLOSED, serving=Serving(pinned=("acme",)), **arms)

    assert envoy.ask(token(principal="acme")).headers["x-ratchet-version"] == VERSION
    assert envoy.ask(token(principal="ana")).headers["x-ratchet-version"] == CANARY


def test_a_dead_engine_is_left_out_and_nobody_notices(
    envoy: Gateway, engines: list[Upstream]
) -> None:
    places = tuple(engine.endpoint for engine in engines)
    envoy.serve(OPEN, serving=open_serving(), endpoints={VERSION: places})
    engines[0].kill()

    statuses = collections.Counter(envoy.ask(None).status_code for _ in range(40))

    assert statuses == {200: 40}


def test_a_region_that_dies_is_replaced_and_comes_back(
    envoy: Gateway, engines: list[Upstream]
) -> None:
    near, far = engines[0], engines[1]
    places = (replace(near.endpoint, region="near"), replace(far.endpoint, region="far"))
    envoy.region = "near"
    envoy.serve(OPEN, serving=open_serving(), endpoints={VERSION: places})
    answered: list[str | None] = []
    failed: list[tuple[int, str]] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answer = envoy.ask(None)
            answered.append(answer.json().get("test-engine"))
            if answer.status_code != 200:
                failed.append((len(answered), answer.text))

    loading = threading.Thread(target=load)
    loading.start()
    time.sleep(0.5)
    before = len(answered)
    near.kill()
    time.sleep(1.0)
    during = len(answered)
    again = Upstream(near.endpoint.port)
    deadline = time.monotonic() + 30
    while answered[-1] != str(near.endpoint.port) and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    loading.join()
    again.kill()
    envoy.region = ""

    assert failed == [], (before, during)
    assert set(answered[:before]) == {str(near.endpoint.port)}
    assert answered[during - 1] == str(far.endpoint.port)
    assert answered[-1] == str(near.endpoint.port)


def test_a_fallback_answers_when_the_baseline_is_gone_and_says_so(
    envoy: Gateway, engines: list[Upstream]
) -> None:
    other = engines[2]
    fallback = Fallback(url=f"http://127.0.0.1:{other.endpoint.port}", key_variable="OTHER_KEY")
    envoy.env = {"OTHER_KEY": "sk-other"}
    serving = Serving(fallback=fallback)
    envoy.serve(CLOSED, serving=serving, endpoints={VERSION: (engines[0].endpoint,)})
    mine = envoy.ask(token())
    envoy.serve(CLOSED, serving=serving, endpoints={VERSION: ()})
    theirs = envoy.ask(token())
    envoy.serve(CLOSED, serving=serving, endpoints={VERSION: (engines[0].endpoint,)})
    again = envoy.ask(token())

    assert (mine.headers["x-ratchet-version"], again.headers["x-ratchet-version"]) == (VERSION,) * 2
    assert theirs.status_code == 200
    assert theirs.headers["x-ratchet-version"] == "fallback"
    seen = theirs.json()
    assert seen["authorization"] == "Bearer sk-other"
    assert not [name for name in seen if name.startswith("x-ratchet-")]
    assert "sk-other" not in str(mine.json())


def test_a_fallback_without_its_key_is_refused_by_name(envoy: Gateway) -> None:
    envoy.env = {}
    fallback = Fallback(url="http://127.0.0.1:9", key_variable="NO_SUCH_KEY")

    with pytest.raises(Exception, match="environment has no NO_SUCH_KEY"):
        envoy.serve(CLOSED, serving=Serving(fallback=fallback))


def test_the_first_byte_and_the_whole_have_their_time(envoy: Gateway) -> None:
    timeouts = Timeouts(first_byte_seconds=0.5, idle_seconds=0.4, total_seconds=2.0)
    envoy.serve(OPEN, serving=open_serving(timeouts=timeouts))

    began = time.monotonic()
    late = envoy.ask(None, headers={"x-test-wait": "3"})

    assert error_of(late) == (504, "timeout")
    assert time.monotonic() - began < 2.0
    assert envoy.ask(None).status_code == 200


def test_a_full_engine_refuses_early_and_keeps_room_for_better_tiers(envoy: Gateway) -> None:
    envoy.serve(CLOSED, serving=Serving(in_flight_per_engine=2, priority_tiers=("gold",)))
    slow = {"x-test-wait": "1"}

    async def ask(tier: str, headers: dict[str, str]) -> httpx.Response:
        return await asyncio.to_thread(envoy.ask, token(tier=tier), headers=headers)

    async def scenario() -> tuple[list[Any], Any, Any]:
        busy = [asyncio.create_task(ask("standard", slow)) for _ in range(2)]
        await asyncio.sleep(0.4)
        refused, better = await ask("standard", {}), await ask("gold", {})
        return await asyncio.gather(*busy), refused, better

    busy, refused, better = asyncio.run(scenario())

    assert [answer.status_code for answer in busy] == [200, 200]
    assert error_of(refused) == (503, "engines_busy")
    assert refused.headers["retry-after"] == "1"
    assert better.status_code == 200


def test_a_stream_whose_engine_is_killed_never_ends_silently(envoy: Gateway) -> None:
    envoy.serve(OPEN, serving=open_serving())
    client = openai.OpenAI(base_url=f"{envoy.url}/v1", api_key="none", max_retries=0)
    got: list[str | None] = []

    def read() -> None:
        for chunk in client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "x"}],
            stream=True,
            extra_headers={"x-test-kind": "broken"},
        ):
            got.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIConnectionError):
        read()

    assert got == ["hi"]


def test_without_an_engine_one_is_told_when_to_come_again(envoy: Gateway) -> None:
    envoy.serve(OPEN, serving=open_serving(), alive=False)

    answer = envoy.ask(None)

    assert error_of(answer) == (503, "no_engine")
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("told", [True, False], ids=["length told", "length not told"])
def test_eight_mebibytes_pass_and_more_is_refused(envoy: Gateway, told: bool) -> None:
    envoy.serve(OPEN, serving=open_serving())

    def body(length: int) -> Any:
        content = b"x" * length
        return content if told else iter([content[: length // 2], content[length // 2 :]])

    fits = envoy.ask(None, json=None, content=body(8 * MEBIBYTE))
    over = envoy.ask(None, json=None, content=body(8 * MEBIBYTE + 1))

    assert (fits.status_code, fits.json()["test-length"]) == (200, str(8 * MEBIBYTE))
    assert error_of(over) == (413, "request_too_large")


def test_the_largest_body_is_a_setting(envoy: Gateway) -> None:
    envoy.serve(OPEN, serving=open_serving(body_bytes_max=1000))
    assert error_of(envoy.ask(None, json=None, content=b"x" * 1001)) == (413, "request_too_large")

    envoy.serve(OPEN, serving=open_serving(body_bytes_max=40 * MEBIBYTE))
    answer = envoy.ask(None, json=None, content=b"x" * (40 * MEBIBYTE))
    assert (answer.status_code, answer.json()["test-length"]) == (200, str(40 * MEBIBYTE))


def test_clusters_that_envoy_refuses_change_nothing(envoy: Gateway) -> None:
    envoy.serve(OPEN, serving=open_serving())
    # A new agent tells each of these: its first label must not be taken for the last agent's.
    envoy.serve(OPEN, serving=open_serving(fallback=Fallback(url="http://127.0.0.1:80")))
    impossible = open_serving(fallback=Fallback(url="http://:80"))

    began = time.monotonic()
    with pytest.raises(Rejected, match="Envoy rejected cds"):
        envoy.serve(OPEN, serving=impossible)

    assert time.monotonic() - began < 4.0
    assert envoy.ask(None).status_code == 200
    envoy.serve(OPEN, serving=open_serving(in_flight_per_engine=7))
    assert envoy.ask(None).status_code == 200
