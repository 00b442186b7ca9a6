"""Learn from what people preferred: pairs of answers (DPO), or thumbs (KTO).

Both move the model away from what it was only as far as preferences ask, so both usually start
from the adapter that serves (`train.start`), of which TRL keeps a frozen copy to measure by.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from ratchet.train.job import Job, Trained
from ratchet.train.lora import arguments, model_of, run
from ratchet.train.sft import pair


def train_dpo(job: Job) -> Trained:
    """Direct preference optimization (Rafailov et al. 2023).  Raises `Preempted`."""
    trainer = DPOTrainer(
        **model_of(job),
        args=DPOConfig(**arguments(job), beta=job.recipe["beta"]),
        train_dataset=Dataset.from_list([choice(row) for row in job.rows]),
        processing_class=AutoTokenizer.from_pretrained(job.base),
    )
    return run(trainer, job)


def train_kto(job: Job) -> Trained:
    """Kahneman-Tversky optimization (Ethayarajh et al. 2024).  Raises `Preempted`.

    The rarer kind of thumbs is weighed up until both kinds count the same, as the paper advises.
    """
    liked = sum(row["label"] for row in job.rows)
    disliked = len(job.rows) - liked
    trainer = KTOTrainer(
        **model_of(job),
        args=KTOConfig(
            **arguments(job),
            beta=job.recipe["beta"],
            desirable_weight=max(1.0, disliked / max(liked, 1)),
            undesirable_weight=max(1.0, liked / max(disliked, 1)),
        ),
        train_dataset=Dataset.from_list([{**pair(row), "label": row["label"]} for row in job.rows]),
        processing_class=AutoTokenizer.from_pretrained(job.base),
    )
    return run(trainer, job)


def choice(row: dict[str, Any]) -> dict[str, Any]:
    """A conversation with a worse answer, as TRL reads it."""
    return {
        "prompt": row["messages"][:-1],
        "chosen": row["messages"][-1:],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }
