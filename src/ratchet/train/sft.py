"""Supervised fine-tuning of a LoRA adapter, as a straight line: data, model, loop, adapter.

The loop is TRL's SFTTrainer.  Checkpoints carry weights, optimizer, schedule, random state and the
position in the data, so that a killed run goes on and ends where an uninterrupted one ends.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from ratchet.engine.weights import ADAPTER_FILES, compute_dtype

IGNORED = -100
# Prompt and answer lengths vary; a few steps of rising learning rate keep the first from derailing.
WARMUP_SHARE = 0.06


@dataclass(frozen=True, slots=True)
class Trained:
    """What a finished training yields."""

    adapter: Path
    steps: int
    loss: float
    losses: tuple[tuple[int, float], ...]
    seconds: float
    tokens: int


class AnswerTrainer(SFTTrainer):
    """SFTTrainer that asks the vocabulary head only about answer tokens.

    The head is 49 thousand rows; on prompt tokens its work is thrown away.  Same loss, 1.8 times
    faster steps on two cores (docs/log.md).
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        body = model.get_base_model()
        hidden = body.model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).last_hidden_state  # (batch, time, hidden)
        labels = inputs["labels"][:, 1:]  # token t is predicted from t - 1
        answers = labels != IGNORED
        logits = body.lm_head(hidden[:, :-1][answers]).float()  # (answer tokens, vocabulary)
        loss = torch.nn.functional.cross_entropy(logits, labels[answers])
        return (loss, {"logits": logits}) if return_outputs else loss


def train(
    base: Path,
    rows: Sequence[dict[str, Any]],
    recipe: dict[str, Any],
    work: Path,
    report: Callable[[dict[str, Any], list[tuple[int, float]]], None],
) -> Trained:
    """Train an adapter in `work`, going on from its newest checkpoint if there is one.

    `report` is called after every step and may raise to stop.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(recipe["seed"])
    model = AutoModelForCausalLM.from_pretrained(base, dtype=compute_dtype())
    steps_per_epoch = math.ceil(len(rows) / recipe["batch_size"])
    steps = max(1, round(steps_per_epoch * recipe["epochs"]))
    progress = _Progress(report, steps)
    trainer = AnswerTrainer(
        model=model,
        args=_arguments(recipe, work, steps),
        train_dataset=Dataset.from_list([_pair(row) for row in rows]),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=recipe["lora"]["rank"],
            lora_alpha=recipe["lora"]["alpha"],
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
        callbacks=[progress],
    )
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=_last_whole_checkpoint(work))
    adapter = work / "adapter"
    trainer.model.save_pretrained(adapter)
    losses = tuple(
        (int(entry["step"]), float(entry["loss"]))
        for entry in trainer.state.log_history
        if "loss" in entry
    )
    return Trained(
        adapter=adapter,
        steps=trainer.state.global_step,
        loss=losses[-1][1],
        losses=losses,
        seconds=time.monotonic() - began,
        tokens=int(trainer.state.num_input_tokens_seen),
    )


def _arguments(recipe: dict[str, Any], work: Path, steps: int) -> SFTConfig:
    cpu = not torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(work / "checkpoints"),
        per_device_train_batch_size=recipe["batch_size"],
        max_steps=steps,
        learning_rate=recipe["learning_rate"],
        warmup_steps=math.ceil(steps * WARMUP_SHARE),
        max_length=recipe["max_length_tokens"],
        completion_only_loss=True,
        seed=recipe["seed"],
        data_seed=recipe["seed"],
        save_strategy="steps",
        save_steps=recipe["checkpoint_every_steps"],
        save_total_limit=2,
        logging_steps=1,
        include_num_input_tokens_seen="all",
        use_cpu=cpu,
        bf16=not cpu,
        gradient_checkpointing=not cpu,
        report_to="none",
        disable_tqdm=True,
    )


def _pair(row: dict[str, Any]) -> dict[str, Any]:
    """A conversation as TRL's prompt and completion: loss on the last answer only."""
    return {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}


def _last_whole_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that was written to its end.

    The trainer's state file is written last; a folder without a readable one was cut short by a
    kill and is not resumed from.
    """
    folder = work / "checkpoints"
    while folder.exists():
        newest = get_last_checkpoint(str(folder))
        if newest is None:
            return None
        try:
            json.loads((Path(newest) / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            Path(newest).rename(folder / f"broken-{Path(newest).name}")
            continue
        return str(newest)
    return None


class _Progress(TrainerCallback):
    """Tells the control plane how far the work is."""

    def __init__(
        self, report: Callable[[dict[str, Any], list[tuple[int, float]]], None], steps: int
    ) -> None:
        self._report, self._steps = report, steps
        self._began = 0.0
        self._first_step = 0
        self._first_tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began, self._first_step = time.monotonic(), state.global_step
        self._first_tokens = state.num_input_tokens_seen
        resumed = state.global_step
        self._report({"step": resumed, "steps": self._steps, "resumed_from": resumed}, [])

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs.get("logs") or {}
        if "loss" not in logs:
            return
        seconds = max(time.monotonic() - self._began, 1e-9)
        done = state.global_step - self._first_step
        progress = {
            "step": state.global_step,
            "steps": self._steps,
            "loss": logs["loss"],
            "tokens_per_second": (state.num_input_tokens_seen - self._first_tokens) / seconds,
            "seconds_left": seconds / max(done, 1) * (self._steps - state.global_step),
        }
        self._report(progress, [(state.global_step, logs["loss"])])


def adapter_digest(folder: Path, base: str) -> str:
    """SHA-256 over the adapter's configuration and tensors.

    The configuration first loses where the base happened to lie on this machine, so that the same
    adapter has the same name everywhere.
    """
    configuration = folder / "adapter_config.json"
    value = json.loads(configuration.read_text())
    value["base_model_name_or_path"] = base
    if isinstance(value.get("target_modules"), list):
        # PEFT writes a set: its order changes with every process.
        value["target_modules"] = sorted(value["target_modules"])
    configuration.write_text(json.dumps(value, sort_keys=True, indent=2))
    state = hashlib.sha256()
    for name in ADAPTER_FILES:
        state.update((folder / name).read_bytes())
    return state.hexdigest()
