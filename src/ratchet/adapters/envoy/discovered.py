"""Filters in files of their own (extension config discovery).

Such a file is replaced without touching a route, a listener or a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ratchet.adapters.envoy import admission, limits
from ratchet.adapters.envoy.words import ENVOY, Resource, file_source
from ratchet.core.routing import GatewaySnapshot

_MAKERS: Mapping[str, Callable[[GatewaySnapshot | None], Resource]] = {
    admission.IDENTITY: lambda s: (
        admission.identity(None, None)
        if s is None
        else admission.identity(s.admission, s.serving.oidc)
    ),
    admission.REVOKED: lambda s: admission.revoked(None if s is None else s.admission),
    limits.LIMITS: lambda s: (
        limits.limits(None, 1) if s is None else limits.limits(s.serving, s.gateways)
    ),
}
NAMES = tuple(_MAKERS)
_TYPES = {
    admission.IDENTITY: admission.JWT,
    admission.REVOKED: admission.RBAC,
    limits.LIMITS: limits.TYPE,
}


def extension(name: str, snapshot: GatewaySnapshot | None) -> Resource:
    """One discovered filter as a resource.  Without a snapshot it knows nobody."""
    return {
        "@type": f"{ENVOY}config.core.v3.TypedExtensionConfig",
        "name": name,
        "typed_config": _MAKERS[name](snapshot),
    }


def filters(folder: Path, names: Sequence[str]) -> list[Resource]:
    """Their places in the listener."""
    return [
        {
            "name": name,
            "config_discovery": {
                "config_source": file_source(folder / f"{name}.json"),
                "type_urls": [_TYPES[name]],
            },
        }
        for name in names
    ]
