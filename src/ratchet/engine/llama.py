"""The Llama family's forward pass with fewer, larger operations.

transformers' own modules cost about fifty small calls a layer, which on a CPU and for one token
is half of the time.  Here queries, keys and values are one multiplication, gate and up another, and
rotation and normalisation are a few calls.  The mathematics is the same, so answers agree within
rounding (a test compares them).

A bfloat16 weight is laid out once as oneDNN wants it.  Left in rows, it is laid out again in every
call, which was a third of a step (docs/log.md).  The model's own projections are emptied then, so
that nothing is held twice: a fused model is served from here and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch.nn.functional import linear, rms_norm, silu


class Attends(Protocol):
    """Attention over slots: (heads, tokens, size) in, (tokens, heads * size) out."""

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor: ...


Projection = Callable[[torch.Tensor], torch.Tensor]
"""(tokens, in) to (tokens, out)."""

# Any width lays weights out alike; oneDNN only asks what rows to expect.
TYPICAL_ROWS = 8


@dataclass(frozen=True, slots=True)
class _Layer:
    norm_in: torch.Tensor
    qkv: Projection
    out: Projection
    norm_mid: torch.Tensor
    gate_up: Projection
    down: Projection


def is_llama(model: Any) -> bool:
    """Whether the model has exactly the layout that `FusedLlama` knows."""
    config = model.config
    return (
        config.model_type == "llama"
        and config.hidden_act == "silu"
        and not getattr(config, "mlp_bias", False)
        and not getattr(config, "attention_bias", False)
    )


class FusedLlama:
    """Computes hidden states of packed tokens; attention is handed in."""

    def __init__(self, model: Any, positions: int) -> None:
        config = model.config
        self._embed = model.model.embed_tokens.weight
        self._norm = model.model.norm.weight
        self._eps = config.rms_norm_eps
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._layers = [_fuse(layer) for layer in model.model.layers]
        # What is left, embeddings and norms, would keep the whole weights file in memory.
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        places = torch.arange(positions)[None]
        cos, sin = model.model.rotary_emb(self._embed[:1, None], places)
        size = cos.shape[-1]
        # (positions, 1, size): one row serves all heads.  The sign of the rotated half is in sin.
        sign = torch.cat([-torch.ones(size // 2), torch.ones(size // 2)]).to(sin.dtype)
        self._cos, self._sin = cos[0][:, None], (sin[0] * sign)[:, None]
        self._size = size

    def hidden(self, ids: torch.Tensor, places: torch.Tensor, attend: Attends) -> torch.Tensor:
        """Last hidden states of tokens at their places; `ids` and `places` are (tokens,)."""
        x = self._embed[ids]  # (tokens, hidden)
        width = (x.shape[-1],)
        cos, sin = self._cos[places], self._sin[places]
        rotated, heads, half = self._heads + self._kv_heads, self._heads, self._size // 2
        for index, layer in enumerate(self._layers):
            normed = rms_norm(x, width, layer.norm_in, self._eps)
            qkv = layer.qkv(normed).view(x.shape[0], -1, self._size)
            qk = qkv[:, :rotated]
            qk = qk * cos + qk.roll(half, dims=-1) * sin
            query, key = qk[:, :heads].transpose(0, 1), qk[:, heads:].transpose(0, 1)
            answer = attend(index, query, key, qkv[:, rotated:].transpose(0, 1))
            x = x + layer.out(answer)
            normed = rms_norm(x, width, layer.norm_mid, self._eps)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            x = x + layer.down(silu(gate) * up)
        return rms_norm(x, width, self._norm, self._eps)


def _fuse(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        norm_in=layer.input_layernorm.weight,
        qkv=_project(attention.q_proj, attention.k_proj, attention.v_proj),
        out=_project(attention.o_proj),
        norm_mid=layer.post_attention_layernorm.weight,
        gate_up=_project(mlp.gate_proj, mlp.up_proj),
        down=_project(mlp.down_proj),
    )


def _project(*linears: Any) -> Projection:
    """One multiplication for several projections, whose own weights are emptied."""
    joined = torch.cat([projection.weight.data for projection in linears])
    for projection in linears:
        projection.weight.data = projection.weight.data.new_empty(0)
    return laid_out(joined)


def laid_out(weight: torch.Tensor) -> Projection:
    """Multiply by a weight, (out, in), that is in oneDNN's own layout where that is faster."""
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu" or not _can_lay_out():
        return partial(linear, weight=weight)
    # The operators that torch's own compiler uses for frozen weights; no public name exists.
    ops = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(weight, TYPICAL_ROWS)

    def project(x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = ops._linear_pointwise(x, packed, None, "none", [], "")
        return answer

    return project


def _can_lay_out() -> bool:
    """Whether this torch has oneDNN with bfloat16 and the operators."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return (
        torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and all(hasattr(torch.ops.mkldnn, name) for name in names)
    )
