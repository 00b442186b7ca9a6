"""Who is calling: a bearer token for everything that changes something.

Reading is open to whoever reaches the port, which is on loopback; roles and single sign-on are
not built yet.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated

from fastapi import Header, HTTPException

from ratchet.kit.secret import Secret


def guard(token: Secret) -> Callable[..., None]:
    """A dependency that refuses calls without the operator's token."""

    def check(authorization: Annotated[str, Header()] = "") -> None:
        wanted = f"Bearer {token.reveal()}"
        if not hmac.compare_digest(authorization.encode(), wanted.encode()):
            raise HTTPException(
                401, "this call changes something and needs the token of the state directory"
            )

    return check
