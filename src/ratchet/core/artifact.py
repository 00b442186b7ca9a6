"""Versions: what is released, and the digest that names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from ratchet.kit.digest import digest_json

VersionId = NewType("VersionId", str)
RunId = NewType("RunId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One model that can serve: a base, and for a fine-tuned one its adapter and lineage."""

    id: VersionId
    project: str
    base: str
    """`kind:location`, as in the spec."""
    adapter_uri: str | None
    """Key in the object store; None for the base model itself."""
    adapter_digest: str | None
    dataset_id: str | None
    recipe: dict[str, object]
    report: dict[str, object]
    run_id: RunId | None


def version_id(
    *,
    base: str,
    adapter_digest: str | None,
    dataset_id: str | None,
    recipe: dict[str, object],
    report: dict[str, object],
) -> VersionId:
    """`v_` and 12 hexadecimal digits of the digest of everything the version was made from."""
    content = {
        "base": base,
        "adapter": adapter_digest,
        "dataset": dataset_id,
        "recipe": recipe,
        "report": digest_json(report),
    }
    return VersionId("v_" + digest_json(content)[:12])


def same_weights(one: Version, other: Version) -> bool:
    """Whether two versions answer alike because they are the same tensors."""
    return one.base == other.base and one.adapter_digest == other.adapter_digest
