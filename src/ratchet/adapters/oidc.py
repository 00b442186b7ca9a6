"""Access tokens of an identity provider, checked as Envoy checks them, for the control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx2 as httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.serving import Oidc
from ratchet.kit.clock import monotonic_seconds

# Public keys only: with a shared secret whoever checks could also sign.
ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
KEYS_SECONDS = 300.0
# A token with an unknown key makes us look again, but not more often than this.
KEYS_SECONDS_MIN = 5.0
CLOCK_SKEW_SECONDS = 10
FETCH_SECONDS = 5.0


class OidcTokens:
    """Checks tokens; keeps the provider's keys for a while."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[float, KeySet]] = {}
        self._lock = asyncio.Lock()

    async def verify(self, token: str, oidc: Oidc, now: datetime) -> Mapping[str, Any]:
        """The claims of a good token.

        Raises `Rejected` for any other, `Unavailable` when the provider's keys cannot be had.
        """
        try:
            decoded = jwt.decode(
                token, await self._keys_of(oidc, KEYS_SECONDS), algorithms=ALGORITHMS
            )
        except (JoseError, ValueError):
            # Perhaps the provider has new keys.
            decoded = await self._again(token, oidc)
        claims: dict[str, Any] = decoded.claims
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        expires = claims.get("exp")
        alive = isinstance(expires, int | float) and expires > now.timestamp() - CLOCK_SKEW_SECONDS
        if claims.get("iss") != oidc.issuer or oidc.audience not in audiences or not alive:
            raise Rejected("this access token is of another issuer or audience, or has expired")
        return claims

    async def _again(self, token: str, oidc: Oidc) -> jwt.Token:
        try:
            return jwt.decode(
                token, await self._keys_of(oidc, KEYS_SECONDS_MIN), algorithms=ALGORITHMS
            )
        except (JoseError, ValueError) as error:
            raise Rejected("this access token is not valid") from error

    async def _keys_of(self, oidc: Oidc, seconds: float) -> KeySet:
        async with self._lock:
            fetched_at, keys = self._keys.get(oidc.jwks_url, (0.0, None))
            if keys is not None and monotonic_seconds() - fetched_at < seconds:
                return keys
            try:
                async with httpx.AsyncClient(timeout=FETCH_SECONDS) as client:
                    answer = await client.get(oidc.jwks_url)
                    answer.raise_for_status()
                    keys = KeySet.import_key_set(answer.json())
            except (httpx.HTTPError, ValueError, JoseError) as error:
                raise Unavailable(f"keys of {oidc.issuer}: {error!r}") from error
            self._keys[oidc.jwks_url] = monotonic_seconds(), keys
            return keys
