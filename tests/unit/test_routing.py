"""Weights: they sum up, and raising one never moves a conversation back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.core.access import Admission
from ratchet.core.artifact import Version, VersionId, same_weights, version_id
from ratchet.core.errors import Rejected
from ratchet.core.routing import (
    UNDECIDED,
    WEIGHT_TOTAL,
    Arm,
    GatewaySnapshot,
    arms_for,
    without_canary,
)

OLD, NEW = VersionId("old"), VersionId("new")


@given(st.integers(0, 100))
def test_weights_sum_to_the_whole(percent: int) -> None:
    assert sum(arm.weight for arm in arms_for(NEW, OLD, percent * 100)) == WEIGHT_TOTAL


@given(st.integers(1, 99), st.integers(1, 99), st.integers(0, WEIGHT_TOTAL - 1))
def test_raising_the_weight_never_moves_a_conversation_back(one: int, two: int, hash_: int) -> None:
    low, high = sorted((one, two))

    if _arm_of(arms_for(NEW, OLD, low * 100), hash_) == NEW:
        assert _arm_of(arms_for(NEW, OLD, high * 100), hash_) == NEW


def _arm_of(arms: tuple[Arm, ...], hash_: int) -> VersionId:
    """What Envoy does: intervals in the order of the clusters."""
    start = 0
    for arm in arms:
        start += arm.weight
        if hash_ < start:
            return arm.version
    raise AssertionError("weights do not cover the hash")


def test_a_snapshot_checks_itself() -> None:
    with pytest.raises(Rejected, match="sum"):
        _snapshot((Arm(NEW, 1),))
    with pytest.raises(Rejected, match="outside"):
        Arm(NEW, -1)


def test_without_a_canary_the_fallback_has_everything() -> None:
    snapshot = _snapshot(arms_for(NEW, OLD, 2500))

    alone = without_canary(snapshot)

    assert alone.arms == (Arm(OLD, WEIGHT_TOTAL),)
    # What is answered then belongs to no weight that was asked for.
    assert alone.route_revision == UNDECIDED != snapshot.route_revision


def test_without_a_fallback_nothing_changes() -> None:
    snapshot = _snapshot((Arm(OLD, WEIGHT_TOTAL),), fallback=None)

    assert without_canary(snapshot) == snapshot


def test_the_same_version_is_one_arm() -> None:
    assert arms_for(OLD, OLD, 4000) == (Arm(OLD, WEIGHT_TOTAL),)


OPEN = Admission(is_open=True, project="p", served_name="m", jwks=(), revoked=())


def _snapshot(arms: tuple[Arm, ...], fallback: VersionId | None = OLD) -> GatewaySnapshot:
    return GatewaySnapshot(
        revision=1,
        route_revision=1,
        arms=arms,
        endpoints={},
        fallback=fallback,
        admission=OPEN,
        blind_hold_seconds=60.0,
    )


def test_versions_are_named_by_content_and_compared_by_weights() -> None:
    def made(adapter: str | None, report: dict[str, object]) -> Version:
        parts: dict[str, object] = {"rank": 16}
        return Version(
            id=version_id(
                base="b", adapter_digest=adapter, dataset_id="d", recipe=parts, report=report
            ),
            project="p",
            base="b",
            adapter_uri=None,
            adapter_digest=adapter,
            dataset_id="d",
            recipe=parts,
            report=report,
            run_id=None,
        )

    one, again = made("a", {"x": 1}), made("a", {"x": 1})
    remeasured, other = made("a", {"x": 2}), made("c", {"x": 1})

    assert one.id == again.id
    assert one.id != remeasured.id
    assert same_weights(one, remeasured)
    assert not same_weights(one, other)
