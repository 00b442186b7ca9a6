"""The built-in engine on a tiny real model: the same answers as transformers, whatever the mix."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from torch.nn.functional import linear

from ratchet.engine.api import Api, Fault
from ratchet.engine.batch import Batcher, Job, Sampling
from ratchet.engine.llama import laid_out
from ratchet.engine.packed import (
    ATTENTION,
    PackedModel,
    Piece,
    UnsupportedModel,
    untouched_zeros,
)
from ratchet.engine.weights import load_merged, quiet, stop_tokens
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet()
    return tiny.build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    model, _ = load_merged(folder, None, "sdpa")
    return model.float()


def packed(folder: Path, *, fused: bool, slots: int = 8) -> tuple[PackedModel, Any]:
    model, tokenizer = load_merged(folder, None, ATTENTION)
    return PackedModel(model.float(), slots=slots, positions=256, fused=fused), tokenizer


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    with torch.inference_mode():
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        out = model.generate(
            ids, attention_mask=mask, max_new_tokens=count, do_sample=False, eos_token_id=-1
        )
    return [int(token) for token in out[0, len(prompt) :]]


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_gives_the_logits_of_transformers(folder: Path, reference: Any, fused: bool) -> None:
    model, _ = packed(folder, fused=fused)
    one, two = list(range(10, 40)), list(range(50, 61))

    logits = model.step([Piece(3, 0, one), Piece(1, 0, two)])

    with torch.inference_mode():
        for row, prompt in zip(logits, (one, two), strict=True):
            wanted = reference(torch.tensor([prompt])).logits[0, -1]
            torch.testing.assert_close(row, wanted.float(), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("fused", [True, False])
def test_many_requests_at_once_are_answered_as_if_alone(
    folder: Path, reference: Any, fused: bool
) -> None:
    model, _ = packed(folder, fused=fused, slots=4)
    batcher = Batcher(model, frozenset())
    chance = random.Random(1)
    shared = [chance.randrange(3, 300) for _ in range(20)]
    prompts = [
        shared + [chance.randrange(3, 300) for _ in range(chance.randrange(1, 40))]
        for _ in range(12)
    ]

    answers = ask_all(batcher, prompts, 6)

    assert answers == [greedy(reference, prompt, 6) for prompt in prompts]


@contextmanager
def running(batcher: Batcher) -> Iterator[None]:
    thread = threading.Thread(target=batcher.run)
    thread.start()
    yield
    batcher.close()
    thread.join(10)


def ask_all(batcher: Batcher, prompts: list[list[int]], count: int) -> list[list[int]]:
    done = [threading.Event() for _ in prompts]
    jobs = []
    for prompt, event in zip(prompts, done, strict=True):

        def emit(_: int | None, end: str | None, event: threading.Event = event) -> None:
            if end is not None:
                event.set()

        jobs.append(Job(prompt, Sampling(max_tokens=count), emit))
    with running(batcher):
        for job in jobs:
            batcher.submit(job)
        assert all(event.wait(60) for event in done)
    return [job.answer for job in jobs]


def test_what_is_in_memory_before_it_is_written_spoils_no_answer(folder: Path) -> None:
    """A masked place counts with weight zero, and zero times not-a-number is not a number."""
    torch.empty(10**7).fill_(float("nan"))  # given back, and likely to be handed out again
    stores = [packed(folder, fused=True)[0] for _ in range(3)]

    for model in stores:
        assert torch.isfinite(model.keys).all()
        assert torch.isfinite(model.values).all()


def test_pages_that_are_not_written_cost_no_memory() -> None:
    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident_bytes()
    stores = untouched_zeros((4, 8, 1024, 1024), torch.float32)
    lain = resident_bytes() - before
    stores[1].fill_(1.0)
    written = resident_bytes() - before

    assert not stores[0, 0, 0].any()
    assert lain < 2**20
    assert written > 8 * 2**22 * 0.9


def test_a_prompt_longer_than_a_step_is_taken_in_pieces(folder: Path, reference: Any) -> None:
    model, _ = packed(folder, fused=True)
    prompt = [3 + i % 290 for i in range(200)]
    whole = model.step([Piece(0, 0, prompt)])

    model.step([Piece(1, 0, prompt[:70])])
    pieces = model.step([Piece(1, 70, prompt[70:])])

    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=1e-3)


def test_a_shared_prefix_is_computed_once(folder: Path) -> None:
    model, _ = packed(folder, fused=True)
    batcher = Batcher(model, frozenset())
    first = Job(list(range(10, 60)), Sampling(max_tokens=1), lambda *_: None)
    batcher.submit(first)
    batcher._admit()
    batcher._step()
    second = Job([*range(10, 50), 7, 8], Sampling(max_tokens=1), lambda *_: None)
    batcher.submit(second)
    batcher._admit()

    assert (first.reused, second.reused) == (0, 40)


def test_models_with_windows_are_refused_by_name(folder: Path) -> None:
    model, _ = load_merged(folder, None, ATTENTION)
    model.config.layer_types = ["sliding_attention", "full_attention"]

    with pytest.raises(UnsupportedModel, match="engine: vllm"):
        PackedModel(model, slots=1, positions=64)


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    model, tokenizer = packed(folder, fused=True)
    batcher = Batcher(model, stop_tokens(model.model, tokenizer))
    with running(batcher):
        yield TestClient(Api("tiny", "v_1", batcher, tokenizer, Fault()).app())


ASK = [{"role": "user", "content": "the ball is red"}]


def body(**more: object) -> dict[str, object]:
    return {"model": "tiny", "messages": ASK, "max_tokens": 5, "temperature": 0, **more}


def test_a_chat_is_answered_with_its_usage(client: TestClient) -> None:
    answer = client.post("/v1/chat/completions", json=body()).json()

    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")
    assert answer["usage"]["completion_tokens"] <= 5
    assert answer["system_fingerprint"] == "v_1"


def test_a_stream_says_the_same_as_a_whole_answer(client: TestClient) -> None:
    whole = client.post("/v1/chat/completions", json=body()).json()
    options = {"include_usage": True}

    text = client.post("/v1/chat/completions", json=body(stream=True, stream_options=options)).text

    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    assert said == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


def test_the_last_chunk_tells_the_usage_also_to_who_did_not_ask(client: TestClient) -> None:
    whole = client.post("/v1/chat/completions", json=body()).json()

    text = client.post("/v1/chat/completions", json=body(stream=True)).text

    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert chunks[-1]["choices"][0]["finish_reason"] in ("length", "stop")
    assert chunks[-1]["usage"] == whole["usage"] | {
        "prompt_tokens_details": chunks[-1]["usage"]["prompt_tokens_details"]
    }
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_the_same_seed_draws_the_same_answer(client: TestClient) -> None:
    asked = body(temperature=1.3, seed=5, max_tokens=12, top_p=0.9)

    one, two = (client.post("/v1/chat/completions", json=asked).json() for _ in range(2))

    assert one["choices"] == two["choices"]


def test_an_answer_ends_before_a_stop_string(client: TestClient) -> None:
    whole = client.post("/v1/chat/completions", json=body(max_tokens=20)).json()
    text = whole["choices"][0]["message"]["content"]
    stop = text[len(text) // 2 : len(text) // 2 + 2]

    cut = client.post("/v1/chat/completions", json=body(max_tokens=20, stop=stop)).json()

    assert cut["choices"][0]["message"]["content"] == text[: text.index(stop)]
    assert cut["choices"][0]["finish_reason"] == "stop"


def test_plain_completions_and_models_are_there(client: TestClient) -> None:
    asked = {"model": "tiny", "prompt": "the ball", "max_tokens": 3, "temperature": 0}

    answer = client.post("/v1/completions", json=asked).json()

    assert answer["object"] == "text_completion"
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert client.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model": "other"}, 404, "does not exist"),
        ({"messages": []}, 400, "at least 1"),
        ({"max_tokens": 0}, 400, "greater than or equal to 1"),
        ({"temperature": 9}, 400, "less than or equal to 2"),
        ({"n": 2}, 400, "less than or equal to 1"),
        ({"tools": [{"type": "function"}]}, 400, "`tools` is not supported"),
        ({"messages": [{"role": "user", "content": "red " * 400}]}, 400, "the context is 256"),
    ],
)
def test_wrong_requests_are_refused_in_openais_form(
    client: TestClient, change: dict[str, object], status: int, says: str
) -> None:
    answer = client.post("/v1/chat/completions", json={**body(), **change})

    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_broken_json_and_wrong_methods_have_openais_form(client: TestClient) -> None:
    assert client.post("/v1/chat/completions", content=b"{").json()["error"]["code"]
    assert client.get("/v1/chat/completions").status_code == 405
    assert client.get("/v2").json()["error"]["type"] == "invalid_request_error"


def test_a_drill_fails_as_often_as_it_was_told(folder: Path) -> None:
    model, tokenizer = packed(folder, fused=True)
    batcher = Batcher(model, frozenset())
    broken = TestClient(Api("tiny", "v", batcher, tokenizer, Fault(error_rate=1.0)).app())

    answer = broken.post("/v1/chat/completions", json=body())

    assert answer.status_code == 500
    assert "drill" in answer.json()["error"]["message"]


def test_a_step_that_raises_ends_the_engine_instead_of_hanging_its_clients(folder: Path) -> None:
    model, _ = packed(folder, fused=True)
    batcher = Batcher(model, frozenset())
    batcher.submit(Job([10**6], Sampling(max_tokens=1), lambda *_: None))

    with pytest.raises(IndexError):
        batcher.run()


@pytest.mark.parametrize("stream", [True, False])
def test_who_waits_when_the_model_raises_gets_an_error_and_no_silent_end(
    folder: Path, stream: bool
) -> None:
    model, tokenizer = packed(folder, fused=True)
    batcher = Batcher(model, frozenset())
    step, steps = model.step, 0

    def breaks(pieces: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > 2:
            raise RuntimeError("out of memory")
        return step(pieces)

    model.step = breaks
    computing = threading.Thread(target=lambda: suppressed(batcher.run), daemon=True)
    computing.start()
    asked = TestClient(Api("tiny", "v_1", batcher, tokenizer, Fault()).app())

    answer = asked.post("/v1/chat/completions", json=body(stream=stream, max_tokens=50))

    if stream:
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        assert lines[-1] == "[DONE]"
        assert json.loads(lines[-2])["error"]["code"] == "engine_failed"
        assert "error" not in json.loads(lines[0])
    else:
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "engine_failed"


def test_a_stream_that_is_silent_for_too_long_ends_with_an_error_event(folder: Path) -> None:
    model, tokenizer = packed(folder, fused=True)
    batcher = Batcher(model, frozenset())  # nobody runs it
    asked = TestClient(Api("tiny", "v_1", batcher, tokenizer, Fault()).app())

    answer = asked.post(
        "/v1/chat/completions", json=body(stream=True), headers={"x-ratchet-idle-seconds": "0.1"}
    )

    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert json.loads(events[0])["error"]["code"] == "timeout"
    assert events[1:] == ["[DONE]"]


def suppressed(work: Callable[[], None]) -> None:
    with suppress(RuntimeError):
        work()


def test_a_weight_in_onednns_layout_multiplies_as_it_did() -> None:
    torch.manual_seed(0)
    weight = torch.randn(96, 64, dtype=torch.bfloat16)
    x = torch.randn(5, 64, dtype=torch.bfloat16)

    answer = laid_out(weight)(x)

    torch.testing.assert_close(answer, linear(x, weight), atol=0.2, rtol=0.02)


@pytest.mark.parametrize("slots", [(0, 1, 2), (1, 3, 4), (0, 7)])
def test_running_answers_agree_wherever_their_slots_are(
    folder: Path, reference: Any, slots: tuple[int, ...]
) -> None:
    model, _ = packed(folder, fused=True)
    prompts = [list(range(10 + 9 * i, 20 + 11 * i)) for i in range(len(slots))]
    model.step([Piece(s, 0, p[:-1]) for s, p in zip(slots, prompts, strict=True)])

    logits = model.step(
        [Piece(s, len(p) - 1, p[-1:]) for s, p in reversed(list(zip(slots, prompts, strict=True)))]
    )

    with torch.inference_mode():
        for row, prompt in zip(logits, reversed(prompts), strict=True):
            wanted = reference(torch.tensor([prompt])).logits[0, -1]
            torch.testing.assert_close(row, wanted.float(), atol=1e-4, rtol=1e-3)
