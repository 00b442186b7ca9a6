"""Who is calling, and whether they may.

A caller shows the token of the state directory, which is the administrator of this machine, a key
with a role, or an access token of the project's identity provider whose groups have one.  Reading
without any is allowed: the port is on loopback, and there is no login for the console yet.  A token
that is shown must be good, also for reading.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import HTTPException, Request

from ratchet.core.access import KEY_PREFIX, Caller, Permission, Role, refusal
from ratchet.core.errors import Rejected
from ratchet.kit.secret import Secret
from ratchet.operations.access import AccessParts, authenticate, authenticate_person

LOCAL = Caller(name="local", role=Role.ADMIN)
ANYBODY = Caller(name="anybody", role=Role.VIEWER)


class Auth:
    """Makes the dependencies that guard routes; the caller is then in `request.state.caller`."""

    def __init__(self, token: Secret, access: AccessParts) -> None:
        self._token, self._access = token, access

    def needs(self, permission: Permission) -> Callable[[Request], Awaitable[None]]:
        """A dependency that refuses callers without the permission."""

        async def check(request: Request) -> None:
            caller = await self.caller(request.headers.get("authorization", ""))
            if caller is ANYBODY and permission is not Permission.READ:
                raise HTTPException(
                    401,
                    "this call needs the token of the state directory, or a key with a role "
                    "(ratchet key create --role)",
                    {"www-authenticate": "Bearer"},
                )
            if (why := refusal(caller, permission, None)) is not None:
                raise HTTPException(403, why)
            request.state.caller = caller

        return check

    async def caller(self, authorization: str) -> Caller:
        """Raises 401 for a token that is shown and no good."""
        if not authorization:
            return ANYBODY
        token = authorization.removeprefix("Bearer ")
        if hmac.compare_digest(token.encode(), self._token.reveal().encode()):
            return LOCAL
        try:
            if not token.startswith(KEY_PREFIX):
                return await authenticate_person(token, self._access)
            return await authenticate(token, self._access)
        except Rejected as error:
            raise HTTPException(401, str(error), {"www-authenticate": "Bearer"}) from error


def permit(request: Request, permission: Permission, project: str | None, who: str = "") -> Caller:
    """The caller, if it may touch this project.  Raises 403.

    `who` is what a command line says of its user; it counts for the local token only, which many
    people of one machine may hold.
    """
    caller: Caller = request.state.caller
    if (why := refusal(caller, permission, project)) is not None:
        raise HTTPException(403, why)
    if caller is LOCAL and who:
        return Caller(name=who, role=caller.role)
    return caller
