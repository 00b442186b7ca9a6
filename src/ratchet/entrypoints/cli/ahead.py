"""`ratchet release plan` and `rehearse`: what a release would do, before there is one."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ratchet.adapters.specfile.reader import duration_seconds, load_spec
from ratchet.core.errors import NotFound, Rejected
from ratchet.core.guards import ERRORS
from ratchet.core.planning import Forecast, Traffic, forecast
from ratchet.core.rehearsal import Suppose, only_measured
from ratchet.core.rehearsal import rehearse as played
from ratchet.core.spec import ReleasePlan
from ratchet.entrypoints.cli.client import Client, connect
from ratchet.kit.clock import SystemClock

StateOption = Annotated[Path | None, typer.Option("--state-dir", help="Folder of the stack.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Machine-readable answer.")]
FileOption = Annotated[Path, typer.Option("--file", help="Spec.")]
RateOption = Annotated[
    float | None, typer.Option(min=0.0, help="Requests a second. Default: of the last day.")
]
ErrorsOption = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Share that fails. Default: likewise.")
]

DAY_SECONDS = 86_400


def plan(
    file: FileOption = Path("ratchet.yaml"),
    rate: RateOption = None,
    errors: ErrorsOption = None,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Can this spec's release decide at this traffic, and how long does it take?

    Exit code 2 when it cannot ever.
    """
    spec = load_spec(file)
    seen = _traffic(spec.project, rate, errors, state_dir)
    known = forecast(spec.release, seen)
    if as_json:
        print(json.dumps({**asdict(seen), **asdict(known)}, indent=2))
    else:
        _print_plan(spec.release, seen, known)
    if spec.release.harm_budget is not None and spec.release.harm_budget < known.budget_least:
        raise Rejected(known.problems[0])


def rehearse(
    file: FileOption = Path("ratchet.yaml"),
    rate: RateOption = None,
    errors: ErrorsOption = None,
    canary_errors: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Share of the canary's that fails. Default: as the baseline's."
        ),
    ] = None,
    slower: Annotated[float, typer.Option(min=0.0, help="The canary is slower by this share.")] = 0,
    length: Annotated[str, typer.Option("--for", help="Play so long at most.")] = "6h",
    seed: Annotated[int, typer.Option(help="Other answers of the same kind.")] = 0,
    state_dir: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play a whole release: users made up, the judge the real one."""
    spec = load_spec(file)
    seen = _traffic(spec.project, rate, errors, state_dir)
    wanted = seen.error_rate if canary_errors is None else canary_errors
    release = only_measured(spec.release)
    steps = list(
        played(
            release, seen, Suppose(error_rate=wanted, slower=slower),
            np.random.default_rng(seed), duration_seconds(length),
        )
    )  # fmt: skip
    if as_json:
        told = [
            {"seconds": step.seconds, "stage": step.release.stage.value,
             "weight_percent": step.release.weight_percent, "because": step.verdict.because}
            for step in steps
        ]  # fmt: skip
        print(json.dumps(told, indent=2))
        return
    left_out = [g.name for g in spec.release.guards if g not in release.guards]
    if left_out:
        print(f"without {', '.join(left_out)}: nothing is known of their values")
    for step in steps:
        now, verdict = step.release, step.verdict
        print(
            f"{_clock(step.seconds)}  {now.stage.value:<11} {now.weight_percent:>5g} %  "
            f"{verdict.because}"
        )
    harmed = steps[-1].evidence.fast.units.canary_units * max(0.0, wanted - seen.error_rate)
    print(f"bad answers more than the baseline would have given: about {harmed:.0f}")


def _clock(seconds: float) -> str:
    return f"{seconds // 3600:.0f}:{seconds // 60 % 60:02.0f}:{seconds % 60:02.0f}"


def _traffic(
    project: str, rate: float | None, errors: float | None, state_dir: Path | None
) -> Traffic:
    """As it is said, or as it was in the last day."""
    if rate is not None and errors is not None:
        return Traffic(per_second=rate, error_rate=errors)
    measured = _measured(project, connect(state_dir))
    return Traffic(
        per_second=measured.per_second if rate is None else rate,
        error_rate=measured.error_rate if errors is None else errors,
    )


def _measured(project: str, client: Client) -> Traffic:
    """Of the last day.  Raises `NotFound` when there was none."""
    since = SystemClock().now() - timedelta(seconds=DAY_SECONDS)
    rows = client.get("/traffic", project=project, since=since.isoformat())
    requests = sum(row["requests"] for row in rows)
    if not requests:
        raise NotFound(
            f"project {project} had no traffic in the last day: give --rate and --errors"
        )
    failed = sum(row["failed"] for row in rows)
    return Traffic(per_second=requests / DAY_SECONDS, error_rate=failed / requests)


def _print_plan(release: ReleasePlan, seen: Traffic, known: Forecast) -> None:
    margin = release.guard(ERRORS.name).margin
    print(f"at {seen.per_second:.3g} requests a second, of which {seen.error_rate:.2%} fail:")
    print(
        f"  proof    that at most {margin:.2%} more fail takes about "
        f"{known.proof_units:.0f} canary answers, {known.proof_all_units:.0f} in all, "
        f"{_long(known.proof_seconds)} (no test can do with fewer than "
        f"{known.proof_units_limit:.0f})"
    )
    print(
        f"  harm     of {2 * margin:.2%} more failures is seen after about "
        f"{known.found_units:.0f} canary answers, {_long(known.found_seconds)} at 5 %"
    )
    print(
        f"  budget   at least {known.budget_least:.0f} bad answers; {known.budget_advised:.0f} "
        f"decide most good releases, {2 * known.budget_advised:.0f} nearly all"
    )
    for problem in known.problems:
        print(f"  ! {problem}")


def _long(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
