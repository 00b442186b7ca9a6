"""A trainer of one's own: LoRA in plain PyTorch, keeping the contract of docs/howto/trainers.md.

train:
  command: [python, plain.py]
  files: [plain.py]
"""

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA, BASE, START, RECIPE, CHECKPOINTS, OUTPUT = (
    os.environ[f"RATCHET_TRAIN_{name}"]
    for name in ("DATA", "BASE", "START", "RECIPE", "CHECKPOINTS", "OUTPUT")
)
STATE = Path(CHECKPOINTS) / "state.pt"
STEPS_BETWEEN_SAVES = 5
stopping = threading.Event()


def batches(tokenizer: Any, rows: list[Any], recipe: Any) -> Iterator[tuple[Any, torch.Tensor]]:
    """All batches of all epochs, the same in every attempt: (token ids, labels)."""
    chance = random.Random(recipe["seed"])
    for _ in range(max(1, round(recipe["epochs"]))):
        order = chance.sample(rows, len(rows))
        for begin in range(0, len(order), recipe["batch_size"]):
            texts = [row["messages"] for row in order[begin : begin + recipe["batch_size"]]]
            chats = [tokenizer.apply_chat_template(text, tokenize=False) for text in texts]
            prompts = [
                tokenizer.apply_chat_template(t[:-1], tokenize=False, add_generation_prompt=True)
                for t in texts
            ]
            whole = tokenizer(
                chats,
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=recipe["max_length_tokens"],
            )
            labels = whole.input_ids.masked_fill(whole.attention_mask == 0, -100)
            for row, prompt in enumerate(prompts):
                labels[row, : len(tokenizer(prompt).input_ids)] = -100
            yield whole, labels


def main() -> None:
    # The machine is wanted back: save after this step and leave.
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    recipe = json.loads(Path(RECIPE).read_text())
    rows = [json.loads(line) for line in Path(DATA).read_text().splitlines()]
    torch.manual_seed(recipe["seed"])
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    if START:
        model = PeftModel.from_pretrained(model, START, is_trainable=True)
    else:
        lora = LoraConfig(
            r=recipe["lora"]["rank"],
            lora_alpha=recipe["lora"]["alpha"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, lora)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe["learning_rate"])
    done = 0
    if STATE.exists():
        state = torch.load(STATE)
        done = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        for weight, saved in zip(weights, state["weights"], strict=True):
            weight.data.copy_(saved)
    plan = list(batches(tokenizer, rows, recipe))
    print(json.dumps({"step": done, "steps": len(plan), "resumed_from": done}))
    for step, (tokens, labels) in enumerate(plan[done:], start=done + 1):
        loss = model(**tokens, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"step": step, "loss": loss.item()}))
        if stopping.is_set() or step % STEPS_BETWEEN_SAVES == 0:
            save(step, optimizer, weights)
        if stopping.is_set():
            raise SystemExit(75)  # EX_TEMPFAIL: go on from here another time
    model.save_pretrained(OUTPUT)


def save(step: int, optimizer: Any, weights: list[Any]) -> None:
    """Beside and then renamed: a kill leaves the old checkpoint or the new one."""
    state = {"step": step, "optimizer": optimizer.state_dict(), "weights": weights}
    torch.save(state, STATE.with_suffix(".part"))
    STATE.with_suffix(".part").replace(STATE)


main()
