"""The Llama family's forward pass with fewer, larger operations.

transformers' own modules cost about fifty small calls a layer, which on a CPU and for one token
is half of the time.  Here queries, keys and values are one multiplication, gate and up another, and
rotation and normalisation are a few calls.  The weights are the model's own tensors, laid side by
side; the mathematics is the same, so answers agree within rounding (a test compares them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn.functional import linear, rms_norm, silu


class Attends(Protocol):
    """Attention over slots: (heads, tokens, size) in, (tokens, heads * size) out."""

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class _Layer:
    norm_in: torch.Tensor
    qkv: torch.Tensor
    out: torch.Tensor
    norm_mid: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


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
            qkv = linear(normed, layer.qkv).view(x.shape[0], -1, self._size)
            qk = qkv[:, :rotated]
            qk = qk * cos + qk.roll(half, dims=-1) * sin
            query, key = qk[:, :heads].transpose(0, 1), qk[:, heads:].transpose(0, 1)
            answer = attend(index, query, key, qkv[:, rotated:].transpose(0, 1))
            x = x + linear(answer, layer.out)
            normed = rms_norm(x, width, layer.norm_mid, self._eps)
            gate, up = linear(normed, layer.gate_up).chunk(2, dim=-1)
            x = x + linear(silu(gate) * up, layer.down)
        return rms_norm(x, width, self._norm, self._eps)


def _fuse(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return _Layer(
        norm_in=layer.input_layernorm.weight,
        qkv=_side_by_side(attention.q_proj, attention.k_proj, attention.v_proj),
        out=attention.o_proj.weight,
        norm_mid=layer.post_attention_layernorm.weight,
        gate_up=_side_by_side(mlp.gate_proj, mlp.up_proj),
        down=mlp.down_proj.weight,
    )


def _side_by_side(*linears: Any) -> torch.Tensor:
    """One tensor for several projections; theirs become views of it, so nothing is held twice."""
    joined = torch.cat([projection.weight.data for projection in linears])
    start = 0
    for projection in linears:
        rows = projection.weight.shape[0]
        projection.weight.data = joined[start : start + rows]
        start += rows
    return joined
