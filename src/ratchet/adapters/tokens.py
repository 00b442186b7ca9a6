"""Signed tokens (JWT with Ed25519, RFC 8037) and the sealing of the keys that sign them.

A private key leaves this module only sealed: AES-256-GCM under a secret that is a file of the
operator's and never in the database.
"""

from __future__ import annotations

import base64
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc import jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import KeySet, OKPKey

from ratchet.core.access import ISSUER, KEY_PREFIX, SigningKeyId
from ratchet.core.errors import Rejected, Unavailable
from ratchet.kit.secret import Secret

ALGORITHM = "EdDSA"
NONCE_BYTES = 12
SECRET_BYTES = 32


class Tokens:
    """Makes, signs and checks; `secret` seals private keys, 32 bytes in base64."""

    def __init__(self, secret: Secret) -> None:
        try:
            key = base64.b64decode(secret.reveal(), validate=True)
        except ValueError:
            key = b""
        if len(key) != SECRET_BYTES:
            raise Rejected(
                f"RATCHET_SECRET_FILE: expected {SECRET_BYTES} random bytes in base64: "
                "`openssl rand -base64 32` makes some"
            )
        self._sealer = AESGCM(key)

    def new_signing_key(self, id_: SigningKeyId) -> tuple[dict[str, str], bytes]:
        """A key pair: the public half as a JSON Web Key, the private one sealed."""
        pair = OKPKey.generate_key("Ed25519", {"kid": id_, "use": "sig", "alg": ALGORITHM})
        private = json.dumps(pair.as_dict(private=True)).encode()
        nonce = os.urandom(NONCE_BYTES)
        return (
            {name: str(value) for name, value in pair.as_dict(private=False).items()},
            nonce + self._sealer.encrypt(nonce, private, id_.encode()),
        )

    def sign(self, id_: SigningKeyId, sealed: bytes, claims: Mapping[str, object]) -> str:
        """The token, with its prefix.  Raises `Unavailable` when the secret does not fit."""
        try:
            private = self._sealer.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], id_.encode())
        except InvalidTag as error:
            raise Unavailable(
                f"signing key {id_} was sealed under another secret: give the server the "
                "RATCHET_SECRET_FILE it had, or rotate: ratchet key rotate-signing"
            ) from error
        header = {"alg": ALGORITHM, "kid": id_, "typ": "JWT"}
        pair = OKPKey.import_key(json.loads(private))
        with _old_name():
            return KEY_PREFIX + jwt.encode(header, dict(claims), pair, algorithms=[ALGORITHM])

    def verify(
        self, token: str, jwks: Sequence[Mapping[str, str]], now: datetime
    ) -> dict[str, Any]:
        """The claims of a token of ours.  Raises `Rejected`, with the same words whatever is wrong
        with it but its age."""
        try:
            keys = KeySet.import_key_set({"keys": [dict(key) for key in jwks]})
            with _old_name():
                found = jwt.decode(token.removeprefix(KEY_PREFIX), keys, algorithms=[ALGORITHM])
        except (JoseError, ValueError) as error:
            raise Rejected("this key is not valid or was revoked") from error
        claims: dict[str, Any] = dict(found.claims)
        if claims.get("iss") != ISSUER or "jti" not in claims:
            raise Rejected("this key is not valid or was revoked")
        if "exp" in claims and claims["exp"] <= now.timestamp():
            raise Rejected("this key has expired")
        return claims


@contextmanager
def _old_name() -> Iterator[None]:
    """RFC 9864 renames the algorithm to Ed25519; Envoy 1.40 knows it as EdDSA only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        yield
