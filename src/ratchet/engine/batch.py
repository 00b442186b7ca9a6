"""Continuous batching: a loop that always computes the next step of whatever is asked.

Requests join between two steps and leave when they end; nobody waits for a batch to fill or to
finish.  Prompts are taken in pieces under a token budget, so that a long prompt delays running
answers by a bounded time.  The queue is bounded; over it `Busy` is raised at once.

The loop belongs on the thread that loaded the model.  OpenMP gives every thread that computes a
team of helpers of its own, and with more helpers than cores they sleep between two operations
instead of waiting awake: a step then takes almost twice as long (docs/log.md).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ratchet.engine.packed import PackedModel, Piece, Prefix

SLOTS = 32
# Prompt tokens a step may take: about a tenth of a second on two cores for a 135 M model.
STEP_PROMPT_TOKENS = 256
QUEUE_MAX = 256
# Prompts whose keys and values are kept for reuse; 90 kB a token for SmolLM2-135M in bfloat16.
PREFIX_TOKENS_MAX = 2_048
PREFIX_SHARED_MIN = 8


FAILED = "failed"
"""The end of an answer whose computation raised."""


class Busy(Exception):
    """The queue is full: come back later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to choose tokens."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(slots=True)
class Job:
    """One request while it lives.  `emit(token, end)` is called by `Batcher.run`; `end` is None,
    "stop", "length" or `FAILED`."""

    prompt: list[int]
    sampling: Sampling
    emit: Callable[[int | None, str | None], None]
    slot: int = -1
    done: int = 0
    """Prompt tokens whose keys are in the slot."""
    reused: int = 0
    answer: list[int] = field(default_factory=list)
    cancelled: bool = False
    generator: torch.Generator | None = None


class Batcher:
    """Owns the model; everything else talks to it through `submit` and `cancel`."""

    def __init__(self, model: PackedModel, stop_tokens: frozenset[int]) -> None:
        self._model = model
        self._stop = stop_tokens
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._free = list(range(model.slots))
        self._prefixes: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._wake = threading.Condition()
        self._closed = False

    def run(self) -> None:
        """Compute until `close`.  What a step raises is a bug and is raised here, after every
        request was told: an engine must not stay up and answer nobody."""
        try:
            self._run()
        except BaseException:
            for job in (*self._running, *self._waiting):
                job.emit(None, FAILED)
            raise

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._running or self._closed):
                    self._wake.wait()
                if self._closed:
                    return
                self._admit()
            self._step()

    def close(self) -> None:
        """Make `run` return after the present step.  From any thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    @property
    def positions(self) -> int:
        return self._model.positions

    @property
    def load(self) -> tuple[int, int]:
        """Requests that run and that wait."""
        return len(self._running), len(self._waiting)

    def submit(self, job: Job) -> None:
        """Queue a request.  Raises `Busy`."""
        with self._wake:
            if len(self._waiting) >= QUEUE_MAX:
                raise Busy
            self._waiting.append(job)
            self._wake.notify()

    def cancel(self, job: Job) -> None:
        """Stop computing for a request whose client has gone."""
        job.cancelled = True

    def _admit(self) -> None:
        while self._waiting and self._free:
            job = self._waiting.popleft()
            if job.cancelled:
                continue
            job.slot = self._free.pop(0)
            self._reuse(job)
            if job.sampling.seed is not None:
                job.generator = torch.Generator().manual_seed(job.sampling.seed)
            self._running.append(job)

    def _reuse(self, job: Job) -> None:
        """Start from the remembered prompt that shares most with this one."""
        best: Prefix | None = None
        length = 0
        for prefix in self._prefixes.values():
            # The last token is always computed: its logits are the answer's beginning.
            shared = min(prefix.shared(job.prompt), len(job.prompt) - 1)
            if shared > length:
                best, length = prefix, shared
        if best is None or length < PREFIX_SHARED_MIN:
            return
        self._model.copy_prefix(job.slot, best, length)
        self._prefixes.move_to_end(best.tokens)
        job.done = job.reused = length

    def _step(self) -> None:
        for job in [job for job in self._running if job.cancelled]:
            self._leave(job)
        work = self._plan()
        if not work:
            return
        logits = self._model.step([piece for _, piece in work])
        for (job, piece), row in zip(work, logits, strict=True):
            if job.done < len(job.prompt):
                job.done += len(piece.tokens)
                if job.done < len(job.prompt):
                    continue
                self._remember(job)
            self._take(job, _choose(row, job))

    def _plan(self) -> list[tuple[Job, Piece]]:
        work: list[tuple[Job, Piece]] = []
        budget = STEP_PROMPT_TOKENS
        for job in self._running:
            if job.done == len(job.prompt):
                place = len(job.prompt) + len(job.answer) - 1
                work.append((job, Piece(job.slot, place, job.answer[-1:])))
            elif budget > 0:
                tokens = job.prompt[job.done : job.done + budget]
                work.append((job, Piece(job.slot, job.done, tokens)))
                budget -= len(tokens)
        return work

    def _take(self, job: Job, token: int) -> None:
        if token in self._stop:
            job.emit(None, "stop")
            self._leave(job)
            return
        job.answer.append(token)
        full = len(job.prompt) + len(job.answer) >= self._model.positions
        if len(job.answer) >= job.sampling.max_tokens or full:
            job.emit(token, "length")
            self._leave(job)
        else:
            job.emit(token, None)

    def _leave(self, job: Job) -> None:
        self._running.remove(job)
        self._free.append(job.slot)
        self._free.sort()

    def _remember(self, job: Job) -> None:
        """Keep a prompt, unless almost all of it is kept already."""
        if len(job.prompt) > PREFIX_TOKENS_MAX // 2 or job.reused * 2 > len(job.prompt):
            return
        prefix = self._model.remember(job.slot, job.prompt)
        self._prefixes[prefix.tokens] = prefix
        while sum(len(tokens) for tokens in self._prefixes) > PREFIX_TOKENS_MAX:
            self._prefixes.popitem(last=False)


def _choose(logits: torch.Tensor, job: Job) -> int:
    """The next token: the likeliest, or drawn from the (nucleus of the) distribution."""
    sampling = job.sampling
    if sampling.temperature <= 0.0:
        return int(logits.argmax())
    shares = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        ordered, places = shares.sort(descending=True)
        # Keep the smallest set of tokens whose mass reaches top_p, at least one.
        beyond = ordered.cumsum(0) - ordered >= sampling.top_p
        shares = torch.zeros_like(shares).scatter(0, places, ordered.masked_fill(beyond, 0.0))
    return int(torch.multinomial(shares, 1, generator=job.generator))
