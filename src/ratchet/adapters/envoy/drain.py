"""Empty a gateway: no new connections, every stream to its end, or to a limit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2 as httpx

from ratchet.core.errors import Unavailable

# Keep-alive connections learn by their next answer that they are closing; load balancers look
# about this often.
GRACE_SECONDS = 1.0
LOOK_SECONDS = 0.05
_ACTIVE = "http.gateway.downstream_rq_active"


async def drain(admin_socket: Path, cap_seconds: float) -> int:
    """Answers how many requests were still running when the time was up; 0 is a clean end.

    Repeatable.  Envoy goes on running, without a listener.  Raises `Unavailable` when it is not
    there.
    """
    transport = httpx.AsyncHTTPTransport(uds=str(admin_socket))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + cap_seconds
    async with httpx.AsyncClient(transport=transport, base_url="http://envoy") as admin:
        try:
            # First "connection: close" on what there is, then no more of it.
            await admin.post("/drain_listeners?graceful")
            await asyncio.sleep(min(GRACE_SECONDS, cap_seconds))
            await admin.post("/drain_listeners")
            while True:
                active = await _active(admin)
                if not active or loop.time() >= deadline:
                    return active
                await asyncio.sleep(LOOK_SECONDS)
        except httpx.TransportError as error:
            raise Unavailable(f"no Envoy answers at {admin_socket}") from error


async def _active(admin: httpx.AsyncClient) -> int:
    answer = await admin.get(f"/stats?filter=^{_ACTIVE}&format=json")
    stats = answer.json()["stats"]
    return sum(int(stat["value"]) for stat in stats if stat.get("name") == _ACTIVE)
