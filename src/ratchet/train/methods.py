"""Our own ways to train, by the names that recipes have for them."""

from __future__ import annotations

from collections.abc import Callable

from ratchet.train import cards
from ratchet.train.job import Job, Trained


def train(job: Job) -> Trained:
    """On the machine's graphics cards, on its one card, or on its cores.

    Raises `Preempted`, `Rejected`, and whatever `job.report` raises.
    """
    method = method_of(job)
    visible = cards.visible()
    if len(visible) < 2:
        return method(job)
    used = visible[: cards.count(len(visible), job.recipe)]
    print(f"training on {len(used)} of {len(visible)} graphics cards", flush=True)
    return cards.train(job, used)


def method_of(job: Job) -> Callable[[Job], Trained]:
    """The loop of a job, in this process.

    Its libraries take seconds and half a gigabyte, which a program of the user's needs not.
    """
    from ratchet.engine.weights import quiet
    from ratchet.train import preference, sft

    quiet()
    methods = {"sft": sft.train, "dpo": preference.train_dpo, "kto": preference.train_kto}
    return methods[job.recipe["method"]]
