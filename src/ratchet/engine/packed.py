"""One forward pass over many conversations at once, each at its own place.

Theory of operation.  A step takes any mix of work: the next token of running answers and pieces
of new prompts.  All their tokens are laid end to end in one row, so that every linear layer is one
large multiplication, and no token is padding.  Only attention must know who is who: it is
replaced by `_attend`, which writes the new keys and values into the slot of each conversation and
lets running answers attend as one batch over slots and each prompt piece for itself.

A slot is a row of the key and value stores, (layers, slots, kv heads, positions, head size).
Pages that were never written cost no memory.  `copy_prefix` fills a slot from a remembered
prompt, so that a system prompt shared by all requests is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from ratchet.engine.llama import FusedLlama, is_llama, laid_out

ATTENTION = "ratchet_packed"


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive tokens of one conversation, to be computed in this step."""

    slot: int
    start: int
    """Position of the first of `tokens` in the conversation."""
    tokens: Sequence[int]


class UnsupportedModel(Exception):
    """The model's attention is of a kind that this engine does not know."""


class PackedModel:
    """A causal language model with slots."""

    def __init__(self, model: Any, *, slots: int, positions: int, fused: bool = True) -> None:
        config = model.config
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"}:
            raise UnsupportedModel(
                f"built-in engine knows full attention only, {config.model_type} has {kinds}; "
                "set `engine: vllm`"
            )
        self.model = model
        self.slots = slots
        self.positions = min(positions, config.max_position_embeddings)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, slots, heads, self.positions, size)
        dtype = next(model.parameters()).dtype
        self._scaling = size**-0.5
        self._fused = FusedLlama(model, self.positions) if fused and is_llama(model) else None
        self._head = laid_out(model.lm_head.weight) if self._fused else model.lm_head
        # Zeros, although nobody may look beyond what is written: a weight of zero times what an
        # empty page holds, which may be no number, is no number.
        self.keys = untouched_zeros(shape, dtype)
        self.values = untouched_zeros(shape, dtype)

    @torch.inference_mode()
    def step(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Logits after each piece's last token, (pieces, vocabulary), float32."""
        # Single tokens first and in the order of their slots, as `_Plan` wants them.
        turns = sorted(
            range(len(pieces)), key=lambda i: (len(pieces[i].tokens) > 1, pieces[i].slot)
        )
        plan = _Plan(self, [pieces[i] for i in turns])
        ids = torch.tensor([t for piece in plan.pieces for t in piece.tokens])
        places = torch.tensor([p.start + i for p in plan.pieces for i in range(len(p.tokens))])
        hidden = self._hidden(ids, places, plan)  # (tokens, hidden size)
        logits = self._head(hidden[plan.last_tokens]).float()
        return torch.empty_like(logits).index_copy_(0, torch.tensor(turns), logits)

    def _hidden(self, ids: torch.Tensor, places: torch.Tensor, plan: _Plan) -> torch.Tensor:
        if self._fused is not None:
            scaling = self._scaling

            def attend(
                layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
            ) -> torch.Tensor:
                return _attend(plan, layer, query, key, value, scaling)

            return self._fused.hidden(ids, places, attend)
        answer = self.model.model(
            input_ids=ids[None], position_ids=places[None], use_cache=False, packed=plan
        )
        hidden: torch.Tensor = answer.last_hidden_state[0]
        return hidden

    def copy_prefix(self, slot: int, prefix: Prefix, length: int) -> None:
        self.keys[:, slot, :, :length] = prefix.keys[:, :, :length]
        self.values[:, slot, :, :length] = prefix.values[:, :, :length]

    def remember(self, slot: int, tokens: Sequence[int]) -> Prefix:
        """The keys and values of a slot's first tokens, copied out."""
        length = len(tokens)
        return Prefix(
            tuple(tokens),
            self.keys[:, slot, :, :length].clone(),
            self.values[:, slot, :, :length].clone(),
        )


@dataclass(frozen=True, slots=True)
class Prefix:
    """A prompt that was computed before, (layers, kv heads, tokens, head size)."""

    tokens: tuple[int, ...]
    keys: torch.Tensor
    values: torch.Tensor

    def shared(self, tokens: Sequence[int]) -> int:
        """How many leading tokens a prompt has in common with this one."""
        count = 0
        for mine, theirs in zip(self.tokens, tokens, strict=False):
            if mine != theirs:
                break
            count += 1
        return count


class _Plan:
    """Who is who in one step: single tokens first, by slot, prompt pieces behind them."""

    def __init__(self, owner: PackedModel, pieces: Sequence[Piece]) -> None:
        self.owner = owner
        self.pieces = list(pieces)
        singles = [piece for piece in pieces if len(piece.tokens) == 1]
        self.single_count = len(singles)
        self.single_slots = torch.tensor([piece.slot for piece in singles], dtype=torch.long)
        self.single_places = torch.tensor([piece.start for piece in singles], dtype=torch.long)
        self.longest = max((piece.start + 1 for piece in singles), default=0)
        places = self.single_places
        self.window = _window([piece.slot for piece in singles])
        self.rows: torch.Tensor | None = None
        if self.window is not None and len(singles) < self.window.stop - self.window.start:
            # Slots between two running answers are computed along and thrown away.
            self.rows = self.single_slots - self.window.start
            places = torch.zeros(self.window.stop - self.window.start, dtype=torch.long)
            places[self.rows] = self.single_places
        # (singles or window, 1, 1, longest): True where a running answer may look.
        visible = torch.arange(self.longest)[None, :] <= places[:, None]
        self.visible = visible[:, None, None, :]
        ends = torch.tensor([len(piece.tokens) for piece in pieces]).cumsum(0)
        self.last_tokens = ends - 1
        # With what each prompt piece may see; None is plain causal.
        self.prompts = [(piece, _mask(piece)) for piece in pieces[self.single_count :]]


def _window(slots: Sequence[int]) -> slice | None:
    """The run of slots that holds all of them, ascending, if most of it is in use.

    Attention then reads the stores in place.  Copying the rows of scattered slots together was a
    third of a step at twenty running answers.
    """
    if not slots:
        return None
    window = slice(slots[0], slots[-1] + 1)
    return window if window.stop - window.start <= 2 * len(slots) else None


def _mask(piece: Piece) -> torch.Tensor | None:
    if not piece.start:
        return None
    reach = piece.start + len(piece.tokens)
    return torch.arange(reach)[None, :] <= torch.arange(piece.start, reach)[:, None]


def _attend(
    plan: _Plan,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Attention over slots.  (heads, tokens, size) in, (tokens, heads * size) out."""
    keys = plan.owner.keys[layer]  # (slots, kv heads, positions, size)
    values = plan.owner.values[layer]
    heads, tokens, size = query.shape
    out = torch.empty((tokens, heads, size), dtype=query.dtype)
    count = plan.single_count
    if count:
        slots, places = plan.single_slots, plan.single_places
        keys[slots, :, places] = key[:, :count].transpose(0, 1)
        values[slots, :, places] = value[:, :count].transpose(0, 1)
        asked = query[:, :count].transpose(0, 1)
        if plan.rows is not None:
            asked = asked.new_zeros((len(plan.visible), heads, size)).index_copy_(
                0, plan.rows, asked
            )
        where = slots if plan.window is None else plan.window
        answer = scaled_dot_product_attention(
            # Query heads of one kv head attend as rows of one batch: no copy of keys.
            asked.reshape(len(plan.visible), keys.shape[1], -1, size),
            keys[where, :, : plan.longest],
            values[where, :, : plan.longest],
            attn_mask=plan.visible,
            scale=scaling,
        ).view(-1, heads, size)
        out[:count] = answer if plan.rows is None else answer[plan.rows]
    start = count
    for piece, mask in plan.prompts:
        end = start + len(piece.tokens)
        reach = piece.start + len(piece.tokens)
        keys[piece.slot, :, piece.start : reach] = key[:, start:end]
        values[piece.slot, :, piece.start : reach] = value[:, start:end]
        answer = scaled_dot_product_attention(
            query[None, :, start:end],
            keys[None, piece.slot, :, :reach],
            values[None, piece.slot, :, :reach],
            attn_mask=mask,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=True,
        )
        out[start:end] = answer[0].transpose(0, 1)
        start = end
    return out.view(tokens, heads * size)


def _attend_in_transformers(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    packed: _Plan,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """The same for models that run through transformers' own modules; a batch of one."""
    out = _attend(packed, module.layer_idx, query[0], key[0], value[0], scaling)
    return out.view(1, query.shape[2], query.shape[1], query.shape[3]), None


def untouched_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Zeros whose pages the kernel gives when they are first written.

    `torch.zeros` writes each of them: three gigabytes for a model of half a gigabyte.
    """
    content = np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(content).view(dtype).view(shape)


AttentionInterface.register(ATTENTION, _attend_in_transformers)
