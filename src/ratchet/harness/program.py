"""What a task of lm-evaluation-harness asks, and what it says of answers.

    python program.py items '{"task": "gsm8k", "limit": 100}'
    python program.py score '{"task": "gsm8k", "metric": "exact_match,strict-match"}'

Run by its path in whichever environment has `lm_eval`, so it imports nothing of ours.  Prompts are
made as the harness makes them for a chat model with few-shot examples as turns, and answers are
judged by the task's own filters and metrics.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

# As the harness's own command line has them.
RANDOM_SEED, OTHER_SEED = 0, 1234
SHOWN_MAX = 12


class Fault(Exception):
    """Why a task cannot be asked, in a sentence."""


def main(mode: str, how: dict[str, Any]) -> int:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # What libraries print must not come between our lines.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        told: Iterator[dict[str, Any]] = iter([_items(how)]) if mode == "items" else _scores(how)
        for each in told:
            out.write(json.dumps(each) + "\n")
            out.flush()
    return 0


def _end_with(parent: int) -> None:
    """Fetching data takes minutes, which nobody waits for when who asked is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _items(how: dict[str, Any]) -> dict[str, Any]:
    try:
        tasks = load(how["task"], how)
        random.seed(RANDOM_SEED)
        rows = [row for name, task in tasks.items() for row in rows_of(name, task, how["limit"])]
        metric = chosen(next(iter(tasks.values())), how.get("metric"))
        versions = {name: str(task.VERSION) for name, task in tasks.items()}
    except Fault as fault:
        return {"fault": str(fault)}
    except Exception as error:  # noqa: BLE001 - a task's own code, whatever it raises
        return {"fault": f"task {how['task']} cannot be asked: {_said(error)}"}
    return {"rows": rows, "metric": metric, "harness": version("lm_eval"), "versions": versions}


def load(name: str, how: dict[str, Any]) -> dict[str, Any]:
    """Tasks by their names: one, or those of a group.  Raises `Fault`."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise Fault(
            f"{sys.executable} has no lm_eval ({error}): install it there (pip install "
            "lm-eval), or name an interpreter that has it in RATCHET_LM_EVAL_PYTHON"
        ) from error
    manager = TaskManager(include_path=how["include"] or None)
    if name not in manager.all_tasks:
        near = [each for each in manager.all_tasks if each.startswith(name[:4])][:SHOWN_MAX]
        raise Fault(f"lm_eval has no task {name}; it has {', '.join(near) or 'others'}")
    try:
        tasks: dict[str, Any] = manager.load([name])["tasks"]
    except Exception as error:  # a task's own code and data, whatever they raise
        raise Fault(f"task {name} cannot be loaded: {_said(error)}") from error
    for each, task in tasks.items():
        _check(each, task)
        task.set_fewshot_seed(seed=OTHER_SEED)
        if how.get("few_shot") is not None:
            task.set_config(key="num_fewshot", value=how["few_shot"])
    return tasks


def _check(name: str, task: Any) -> None:
    if task.OUTPUT_TYPE != "generate_until":
        raise Fault(
            f"task {name} asks how likely texts are ({task.OUTPUT_TYPE}), which no chat API says; "
            "take a task that lets the model write (generate_until)"
        )
    if getattr(task, "UNSAFE_CODE", False):
        raise Fault(f"task {name} runs code that a model wrote, which is not done here")


def rows_of(name: str, task: Any, limit: int | None) -> Iterator[dict[str, Any]]:
    """Rows as ours are: a conversation whose last message is what is expected."""
    task.build_all_requests(
        limit=limit,
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        chat_template=lambda messages, **_: json.dumps(messages),
    )
    for instance in task.instances:
        messages = json.loads(instance.arguments[0])
        if messages[-1]["role"] != "user" or len(instance.arguments) > 2:
            raise Fault(f"task {name} asks by more than text, or begins the answer itself")
        target = task.doc_to_target(instance.doc)
        expected = target if isinstance(target, str) else json.dumps(target)
        messages.append({"role": "assistant", "content": expected.strip() or "-"})
        place = {"task": name, "doc": str(instance.doc_id), "digest": digest(instance.doc)}
        yield {"messages": messages, "metadata": place}


def digest(doc: Any) -> str:
    content = json.dumps(doc, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def chosen(task: Any, metric: str | None) -> str:
    """The metric that is asked for, or the task's first.  Raises `Fault`."""
    found = metrics(task, task.eval_docs[0], "")
    name = metric or next(iter(found))
    matching = [each for each in found if name in (each, each.partition(",")[0])]
    if not matching:
        raise Fault(f"metric: found {name!r}, expected one of {', '.join(found)}")
    value = found[matching[0]]
    if not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise Fault(f"metric {name} gives {value!r:.60} for an item, no number from 0 to 1")
    if not task.higher_is_better().get(name.partition(",")[0], True):
        raise Fault(f"metric {name} is better when it is lower; a score is better when higher")
    return matching[0]


def metrics(task: Any, doc: Any, answer: str) -> dict[str, Any]:
    """What a task says of one answer, by `metric,filter` as the harness prints it."""
    instance = task.construct_requests(doc=doc, ctx="", metadata=(task.task_name, 0, 1))
    ends = instance.arguments[1].get("until") or []
    for end in [ends] if isinstance(ends, str) else ends:
        answer = answer.partition(end)[0] if end else answer
    instance.resps = [answer]
    task._instances = [instance]
    task.apply_filters()
    found = {}
    for name, filtered in instance.filtered_resps.items():
        for metric, value in task.process_results(doc, [filtered]).items():
            found[f"{metric},{name}"] = value
    return found


def _scores(how: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """For each line of standard input."""
    score = _Scores(how)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            yield {"score": score.of(asked["answer"], asked["row"]["metadata"])}
        except Fault as fault:
            yield {"fault": f"says: {fault}"}
        except Exception as error:  # noqa: BLE001 - as above
            yield {"fault": f"raised {_said(error)}"}


class _Scores:
    """Tasks that were needed so far."""

    def __init__(self, how: dict[str, Any]) -> None:
        self._how = how
        self._tasks: dict[str, tuple[Any, Any]] = {}

    def of(self, answer: str, place: dict[str, str]) -> float:
        name = place["task"]
        if name not in self._tasks:
            task = load(name, self._how)[name]
            self._tasks[name] = task, task.eval_docs
        task, docs = self._tasks[name]
        number = int(place["doc"])
        if number >= len(docs) or digest(docs[number]) != place["digest"]:
            raise Fault(
                f"item {number} of {name} is another one here than where the run began; have the "
                "same lm_eval and the same data in both places"
            )
        return float(metrics(task, docs[number], answer)[self._how["metric"]])


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
