"""What every method of ours shares: a LoRA adapter over a frozen base, and how it is trained.

The loops are TRL's.  Checkpoints carry weights, optimizer, schedule, random state and the position
in the data, so that a stopped run goes on and ends where an uninterrupted one ends.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback
from transformers.utils import is_bitsandbytes_available

from ratchet.core.checkpoints import SAVE_SECONDS_GUESSED, interval_seconds
from ratchet.core.errors import Rejected
from ratchet.engine.weights import compute_dtype
from ratchet.train.job import Job, Preempted, Trained, checkpoint_folder, last_whole_checkpoint

# Prompt and answer lengths vary; a few steps of rising learning rate keep the first from derailing.
WARMUP_SHARE = 0.06


def model_of(job: Job) -> dict[str, Any]:
    """What TRL's trainers are to train: a model, and the adapter to put over it if it is new."""
    torch.manual_seed(job.recipe["seed"])
    model = AutoModelForCausalLM.from_pretrained(
        job.base, dtype=compute_dtype(), quantization_config=_quantization(job)
    )
    if job.start is not None:
        return {"model": PeftModel.from_pretrained(model, job.start, is_trainable=True)}
    lora = job.recipe["lora"]
    adapter = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return {"model": model, "peft_config": adapter}


def _quantization(job: Job) -> BitsAndBytesConfig | None:
    """Four bits as QLoRA has them: normal floats, their scales quantized again."""
    if not job.recipe.get("load_in_4bit"):
        return None
    if not is_bitsandbytes_available():
        raise Rejected(
            "train.load_in_4bit: the worker has no bitsandbytes: install it there "
            "(pip install 'ratchet[qlora]'), or leave the base as it is"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(),
    )


def steps_of(job: Job) -> int:
    """Optimizer steps from the first to the last."""
    steps_per_epoch = math.ceil(len(job.rows) / job.recipe["batch_size"])
    return max(1, round(steps_per_epoch * job.recipe["epochs"]))


def arguments(job: Job) -> dict[str, Any]:
    """Settings that all of TRL's trainers understand."""
    recipe, steps, cpu = job.recipe, steps_of(job), not torch.cuda.is_available()
    return {
        "output_dir": str(job.work / "checkpoints"),
        "per_device_train_batch_size": recipe["batch_size"] // job.processes,
        "max_steps": steps,
        "learning_rate": recipe["learning_rate"],
        "warmup_steps": math.ceil(steps * WARMUP_SHARE),
        "max_length": recipe["max_length_tokens"],
        "seed": recipe["seed"],
        "data_seed": recipe["seed"],
        "save_strategy": "steps",
        # Without a number, `_Course` says when.
        "save_steps": recipe["checkpoint_every_steps"] or steps + 1,
        "save_total_limit": 2,
        "logging_steps": 1,
        # The filter would show the last good loss in the place of one that is no number.
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "all",
        "use_cpu": cpu,
        "bf16": not cpu,
        "gradient_checkpointing": not cpu,
        "report_to": "none",
        "disable_tqdm": True,
    }


def run(trainer: Any, job: Job) -> Trained:
    """Train in `job.work`, going on from its newest checkpoint if there is one.

    Raises `Preempted` when a stop was asked for, `Rejected` when the loss is no number any more,
    and whatever `job.report` raises.
    """
    course = _Course(job)
    trainer.add_callback(course)
    began = time.monotonic()
    checkpoint = last_whole_checkpoint(job.work)
    trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    state = trainer.state
    if state.global_step < state.max_steps:
        raise Preempted(f"stopped on request after step {state.global_step} of {state.max_steps}")
    adapter = job.work / "adapter"
    if trainer.is_world_process_zero():
        # Not "ref": what preferences are measured against is no part of the result.
        trainer.model.save_pretrained(adapter, selected_adapters=["default"])
    losses = tuple(
        (int(entry["step"]), float(entry["loss"])) for entry in state.log_history if "loss" in entry
    )
    return Trained(
        adapter=adapter,
        steps=state.global_step,
        loss=losses[-1][1],
        losses=losses,
        seconds=time.monotonic() - began,
        tokens=int(state.num_input_tokens_seen),
    )


def _as_the_first_says(*flags: bool) -> list[bool]:
    """The same answer in all processes: they have to save and to stop after the same step."""
    said = list(flags)
    torch.distributed.broadcast_object_list(said, src=0)
    return said


class _Course(TrainerCallback):
    """Tells how far the work is, and says when to save and when to stop."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._by_time = not job.recipe["checkpoint_every_steps"]
        self._began = self._saved_at = self._save_began = 0.0
        self._save_seconds = SAVE_SECONDS_GUESSED
        self._first_step = 0
        self._first_tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = self._saved_at = time.monotonic()
        self._first_step = resumed = state.global_step
        self._first_tokens = state.num_input_tokens_seen
        self._job.report({"step": resumed, "steps": state.max_steps, "resumed_from": resumed}, [])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        now = time.monotonic()
        due = self._by_time and now - self._saved_at >= interval_seconds(self._save_seconds)
        stop = self._job.stop.given
        if self._job.processes > 1:
            due, stop = _as_the_first_says(due, stop)
        if stop:
            control.should_training_stop = True
        if due or stop:
            control.should_save = True
        self._save_began = now
        return control

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - self._save_began
        self._job.saved(Path(args.output_dir) / checkpoint_folder(state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs.get("logs") or {}
        if "loss" not in logs:
            return
        seconds = max(time.monotonic() - self._began, 1e-9)
        if not math.isfinite(logs["loss"]):
            raise Rejected(
                f"training diverged: the loss of step {state.global_step} is {logs['loss']}; try a "
                f"lower train.learning_rate than {args.learning_rate:g}"
            )
        done = state.global_step - self._first_step
        progress = {
            "step": state.global_step,
            "steps": state.max_steps,
            "loss": logs["loss"],
            "tokens_per_second": (state.num_input_tokens_seen - self._first_tokens) / seconds,
            "seconds_left": seconds / max(done, 1) * (state.max_steps - state.global_step),
        }
        self._job.report(progress, [(state.global_step, logs["loss"])])
