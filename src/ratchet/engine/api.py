"""The OpenAI HTTP API over a batcher: chat completions, completions, models, health.

Errors have OpenAI's form, so that the official clients raise their own exceptions.  What this
engine cannot do is refused by name, never ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ratchet.engine.batch import FAILED, Batcher, Busy, Job, Sampling
from ratchet.engine.journal import Journal
from ratchet.kit.clock import SystemClock
from ratchet.kit.ids import new_id

ANSWER_TOKENS_DEFAULT = 256
IDLE_HEADER = "x-ratchet-idle-seconds"
IDLE_SECONDS_DEFAULT = 300.0
# What other servers know and this one does not; refused when set to anything but the default.
NOT_SUPPORTED = (
    "tools",
    "functions",
    "response_format",
    "logprobs",
    "logit_bias",
    "echo",
    "best_of",
)


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: Literal["system", "user", "assistant", "developer", "tool"]
    content: str | list[dict[str, Any]]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content)


class StreamOptions(BaseModel):
    include_usage: bool = False


class Parameters(BaseModel):
    """What both endpoints take."""

    model_config = ConfigDict(extra="allow")
    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(1.0, ge=0.0, le=2.0)
    top_p: float | None = Field(1.0, gt=0.0, le=1.0)
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = Field(1, ge=1, le=1)

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


_Body = TypeVar("_Body", bound="Parameters")


class ChatRequest(Parameters):
    messages: list[ChatMessage] = Field(min_length=1)


class CompletionRequest(Parameters):
    prompt: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A drill: fail and dawdle on purpose, so that a rollback can be seen to work."""

    error_rate: float = 0.0
    delay_seconds: float = 0.0
    delay_share: float = 1.0
    """Of the requests, how many are delayed."""


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer; `end` with the last."""

    text: str
    end: str | None


class ApiError(Exception):
    """An answer in OpenAI's error form."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        headers = {"retry-after": "1"} if self.status == 503 else None
        return JSONResponse(self.body(), self.status, headers)


SILENT = "silent"
# Ends of an answer that is not whole.
BROKEN = {
    FAILED: ApiError(500, "the engine failed in the middle of the answer", "engine_failed"),
    SILENT: ApiError(504, "the model was silent for too long (gateway.timeouts)", "timeout"),
}


class Api:
    """Handlers for one served model."""

    def __init__(
        self,
        name: str,
        version: str,
        batcher: Batcher,
        tokenizer: Any,
        fault: Fault,
        journal: Journal | None = None,
    ) -> None:
        self._name, self._version = name, version
        self._batcher, self._tokenizer = batcher, tokenizer
        self._fault = fault
        self._journal = journal or Journal(None, version)
        self._chance = random.Random(version)
        self._tasks: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/completions", self.complete, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/health", self.health),
            ],
            exception_handlers={ApiError: _api_error, HTTPException: _http_error},
        )

    async def health(self, _: Request) -> Response:
        running, waiting = self._batcher.load
        return JSONResponse(
            {"status": "ok", "version": self._version, "running": running, "waiting": waiting}
        )

    async def models(self, _: Request) -> Response:
        model = {"id": self._name, "object": "model", "created": 0, "owned_by": "ratchet"}
        return JSONResponse({"object": "list", "data": [model]})

    async def chat(self, request: Request) -> Response:
        body = await _parse(request, ChatRequest)
        messages = [{"role": m.role, "content": m.text} for m in body.messages]
        prompt = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        return await self._answer(request, body, list(prompt), chat=True)

    async def complete(self, request: Request) -> Response:
        body = await _parse(request, CompletionRequest)
        return await self._answer(request, body, self._tokenizer.encode(body.prompt), chat=False)

    async def _answer(
        self, request: Request, body: Parameters, prompt: list[int], *, chat: bool
    ) -> Response:
        self._check(body, prompt)
        await self._misbehave()
        wanted = body.max_completion_tokens or body.max_tokens or ANSWER_TOKENS_DEFAULT
        sampling = Sampling(
            max_tokens=min(wanted, self._batcher.positions - len(prompt)),
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
        )
        queue: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def emit(token: int | None, end: str | None) -> None:
            # A server that stops closes its loop while the last step is being computed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(queue.put_nowait, (token, end))

        job = Job(prompt, sampling, emit)
        try:
            self._batcher.submit(job)
        except Busy:
            raise ApiError(503, "the engine's queue is full, try again", "overloaded") from None
        envelope = _Envelope(self._name, self._version, chat)
        deltas = self._read(request, job, queue, body.stops)
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(
                _events(envelope, deltas, job, usage), media_type="text/event-stream"
            )
        watcher = asyncio.create_task(self._cancel_when_gone(request, job, queue))
        self._tasks.add(watcher)
        watcher.add_done_callback(self._tasks.discard)
        try:
            pieces = [delta async for delta in deltas]
        finally:
            watcher.cancel()
        if (error := BROKEN.get(pieces[-1].end or "")) is not None:
            raise error
        return JSONResponse(envelope.whole("".join(p.text for p in pieces), pieces[-1].end, job))

    def _check(self, body: Parameters, prompt: Sequence[int]) -> None:
        if body.model != self._name:
            raise ApiError(
                404,
                f"The model `{body.model}` does not exist; this engine serves `{self._name}`",
                "model_not_found",
                "model",
            )
        for name in NOT_SUPPORTED:
            if (body.model_extra or {}).get(name):
                raise ApiError(
                    400, f"`{name}` is not supported by the built-in engine", "unsupported", name
                )
        if len(prompt) >= self._batcher.positions:
            raise ApiError(
                400,
                f"the prompt has {len(prompt)} tokens, the context is {self._batcher.positions}",
                "context_length_exceeded",
                "messages",
            )

    async def _misbehave(self) -> None:
        """The drill, when one is on.  Says so in what it answers."""
        if self._fault.delay_seconds and self._chance.random() < self._fault.delay_share:
            await asyncio.sleep(self._fault.delay_seconds)
        if self._chance.random() < self._fault.error_rate:
            raise ApiError(500, "injected fault: this engine runs a drill", "drill")

    async def _read(
        self,
        request: Request,
        job: Job,
        queue: asyncio.Queue[tuple[int | None, str | None]],
        stops: Sequence[str],
    ) -> AsyncIterator[Delta]:
        """Text as it comes, never half a character, never beyond a stop string.

        The last one ends with a key of `BROKEN` when the model failed or was silent for too long.
        """
        sent = ""
        idle_seconds = _idle_seconds(request)
        held = max((len(stop) for stop in stops), default=1) - 1
        try:
            while True:
                try:
                    _, end = await asyncio.wait_for(queue.get(), idle_seconds)
                except TimeoutError:
                    end = SILENT
                text = self._tokenizer.decode(job.answer, skip_special_tokens=True)
                cut = min((i for stop in stops if (i := text.find(stop)) >= 0), default=-1)
                if cut >= 0:
                    yield Delta(text[len(sent) : cut], "stop")
                    return
                if end is not None:
                    yield Delta(text[len(sent) :], end)
                    return
                ready = text[: len(text) - held] if held else text
                if not ready.endswith("�") and len(ready) > len(sent):
                    yield Delta(ready[len(sent) :], None)
                    sent = ready
        finally:
            # Also when the client has gone: nobody reads what would be computed.
            self._batcher.cancel(job)
            self._journal.add(request, job)

    async def _cancel_when_gone(
        self, request: Request, job: Job, queue: asyncio.Queue[tuple[int | None, str | None]]
    ) -> None:
        # The body is read, so the next message can only be the disconnect.
        while (await request.receive())["type"] != "http.disconnect":
            continue
        self._batcher.cancel(job)
        queue.put_nowait((None, "stop"))


class _Envelope:
    """The JSON around an answer, for chat or plain completions."""

    def __init__(self, name: str, version: str, chat: bool) -> None:
        self._chat = chat
        self._head = {
            "id": new_id("chatcmpl" if chat else "cmpl"),
            "created": _unix_seconds(),
            "model": name,
            "system_fingerprint": version,
        }

    def whole(self, text: str, end: str | None, job: Job) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": end, "logprobs": None}
        choice |= (
            {"message": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        )
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": [choice], "usage": _usage(job)}

    def chunk(self, delta: Delta, *, first: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": delta.end, "logprobs": None}
        if self._chat:
            choice["delta"] = ({"role": "assistant"} if first else {}) | {"content": delta.text}
        else:
            choice["text"] = delta.text
        return {**self._head, "object": self._kind, "choices": [choice]}

    def usage(self, job: Job) -> dict[str, Any]:
        return {**self._head, "object": self._kind, "choices": [], "usage": _usage(job)}

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"


async def _events(
    envelope: _Envelope, deltas: AsyncIterator[Delta], job: Job, usage: bool
) -> AsyncIterator[str]:
    first = True
    async for delta in deltas:
        if (error := BROKEN.get(delta.end or "")) is not None:
            # The status is long sent.  An error event is what OpenAI's clients raise from.
            yield f"data: {json.dumps(error.body())}\n\ndata: [DONE]\n\n"
            return
        chunk = envelope.chunk(delta, first=first)
        if delta.end is not None and not usage:
            # Also for who did not ask: the gateway counts by what answers say.
            chunk["usage"] = _usage(job)
        yield f"data: {json.dumps(chunk)}\n\n"
        first = False
    if usage:
        yield f"data: {json.dumps(envelope.usage(job))}\n\n"
    yield "data: [DONE]\n\n"


def _idle_seconds(request: Request) -> float:
    """How long the answer may be silent, as the gateway says it."""
    try:
        return float(request.headers.get(IDLE_HEADER, ""))
    except ValueError:
        return IDLE_SECONDS_DEFAULT


def _usage(job: Job) -> dict[str, Any]:
    asked, answered = len(job.prompt), len(job.answer)
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": job.reused},
    }


def _unix_seconds() -> int:
    return int(SystemClock().now().timestamp())


async def _parse(request: Request, kind: type[_Body]) -> _Body:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{where}: {first['msg']}" if where else first["msg"]
        raise ApiError(400, message, "invalid_request", where or None) from error


def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, error.detail, "http_error").response()
