"""A small random Llama with a tokenizer trained on the spot: real code paths in seconds.

About 0.4 million parameters.  It learns a toy task (the answer is the colour that the question
names) within a few dozen steps.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT = (
    "{% for m in messages %}{{'<|im_start|>'+m['role']+'\\n'+m['content']+'<|im_end|>\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\\n'}}{% endif %}"
)
RECIPE: dict[str, Any] = {
    "lora": {"rank": 8, "alpha": 16},
    "epochs": 1.0,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "max_length_tokens": 64,
    "seed": 3,
    "beta": 0.1,
    "checkpoint_every_steps": 4,
}
"""Of a training that learns the colours."""
COLOURS = ("red", "blue")
WORDS = ("the", "ball", "is", "here", "there", "my", "car", "one", "a", "big", "small", "door")


def question(chance: random.Random, colour: str) -> str:
    words = chance.choices(WORDS, k=4)
    words.insert(chance.randrange(4), colour)
    return " ".join(words)


def row(text: str, answer: str) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": text},
            {"role": "assistant", "content": answer},
        ]
    }


def write_rows(path: Path, count: int, seed: int, *, wrong: bool = False) -> None:
    """Questions with their colours; `wrong` gives each the other one."""
    chance = random.Random(seed)
    lines: list[str] = []
    seen: set[str] = set()
    while len(lines) < count:
        colour = COLOURS[len(lines) % 2]
        text = question(chance, colour)
        if text in seen:
            continue
        seen.add(text)
        answer = COLOURS[1 - COLOURS.index(colour)] if wrong else colour
        lines.append(json.dumps(row(text, answer)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def build(folder: Path) -> Path:
    """A model folder as transformers saves it."""
    chance = random.Random(0)
    texts = [question(chance, c) for c in COLOURS for _ in range(50)]
    texts += ["<|im_start|>user assistant system\n"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0, bos_token_id=1)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
