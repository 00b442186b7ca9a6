"""From a base and an adapter to a model ready to serve."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers import logging as transformers_logging


def quiet() -> None:
    """Keep progress bars of libraries out of logs that are read by machines."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def compute_dtype() -> torch.dtype:
    """bfloat16 where the CPU multiplies it fast, float32 elsewhere.  Measured, not looked up."""
    if torch.cuda.is_available():
        return torch.bfloat16
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(64, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        left @ right
        start = time.perf_counter()
        for _ in range(8):
            left @ right
        seconds[dtype] = time.perf_counter() - start
    # float32 also doubles the memory, so it must win clearly.
    return (
        torch.float32 if seconds[torch.float32] * 1.5 < seconds[torch.bfloat16] else torch.bfloat16
    )


def load_merged(base: Path, adapter: Path | None, attention: str) -> tuple[Any, Any]:
    """Model and tokenizer, with the adapter merged into the weights.

    Serving base and adapter apart is several times slower on a CPU, so what is stored small is
    served whole.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=compute_dtype(), attn_implementation=attention
    )
    if adapter is not None:
        from peft import PeftModel  # a hundred megabytes that a base alone does not need

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model.eval(), tokenizer


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the model's own, and the tokenizer's."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)
