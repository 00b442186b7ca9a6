"""The weight climbs as fast as the harm budget allows, and never faster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.core.errors import Rejected
from ratchet.core.ramp import GROWTH_MAX, LEARNING_UNITS, Exposure, Ramp, first_weight, next_weight

RAMP = Ramp(harm_budget=50)


def known(
    weight: float = 0.05, units: float = 0, worst: float = 1.0, next_units: float = 100,
    suspect: bool = False, judged: float | None = None,
) -> Exposure:  # fmt: skip
    return Exposure(
        weight=weight, canary_units=units, judged_units=0 if judged is None else judged,
        regression_max=worst, next_units=next_units, is_suspect=suspect,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("exposure", "weight", "reason"),
    [
        # Nothing is known: 50 bad answers are 50 answers, of which the next 100 may have 20.
        (known(), 0.2, "four times"),
        (known(units=45), 0.05, "allows 5.0%"),
        (known(units=60), 0.01, "nearly spent"),
        (known(weight=0.2, units=500, worst=0.01), 0.5, "half of the traffic"),
        (known(weight=0.2, units=4980, worst=0.01), 0.2, "allows 20.0%"),
        (known(weight=0.2, suspect=True), 0.2, "no climb"),
        (known(weight=0.2, units=49, suspect=True), 0.01, "no climb"),
        (known(units=5_000, worst=0.01, judged=4_990), 0.01, "nearly spent"),
        (known(units=5_001, worst=0.01, judged=5_001), 0.0, "may be the whole harm budget"),
        # A hundredth of much traffic is many answers.
        (known(units=60, next_units=10_000), 0.0005, "nearly spent"),
    ],
)
def test_the_weight_is_what_the_budget_allows(
    exposure: Exposure, weight: float, reason: str
) -> None:
    step = next_weight(RAMP, exposure)

    assert step.weight == pytest.approx(weight)
    assert reason in step.because


exposures = st.builds(
    known,
    weight=st.floats(0.01, 0.5),
    units=st.floats(0, 1e6),
    worst=st.floats(0, 1),
    next_units=st.floats(0, 1e6),
    suspect=st.booleans(),
)


@given(exposures, st.floats(0.1, 1e4))
def test_what_is_shown_at_most_stays_within_the_budget_or_at_the_least_weight(
    exposure: Exposure, budget: float
) -> None:
    ramp = Ramp(harm_budget=budget)
    weight = next_weight(ramp, exposure).weight

    shown = exposure.canary_units + weight * exposure.next_units
    least = min(ramp.least, LEARNING_UNITS / max(exposure.next_units, 1e-9))
    assert least <= weight <= min(ramp.most, max(least, exposure.weight * GROWTH_MAX))
    assert weight == least or shown * exposure.regression_max <= budget * (1 + 1e-9)


@given(exposures)
def test_suspicion_never_raises_a_weight(exposure: Exposure) -> None:
    step = next_weight(RAMP, exposure)

    assert not exposure.is_suspect or step.weight <= max(RAMP.least, exposure.weight)


@pytest.mark.parametrize(
    "values", [{"harm_budget": 0}, {"harm_budget": 5, "least": 0}, {"harm_budget": 5, "first": 0.9}]
)
def test_a_ramp_that_cannot_be_meant_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(Rejected):
        Ramp(**values)


def test_the_first_weight_puts_a_tenth_of_the_budget_at_stake_at_most() -> None:
    assert first_weight(RAMP, 100.0) == 0.05
    assert first_weight(RAMP, 10_000.0) == pytest.approx(0.0005)
    assert first_weight(RAMP, 0.0) == 0.05
