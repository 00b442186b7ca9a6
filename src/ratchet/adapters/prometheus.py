"""Counters of a Prometheus, or of anything that speaks its HTTP API."""

from __future__ import annotations

import math

import httpx2 as httpx

from ratchet.core.errors import Rejected, Unavailable

CALL_SECONDS = 5.0


class Prometheus:
    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        # One for all calls: making one reads all authorities for TLS.
        self._client = httpx.AsyncClient(timeout=CALL_SECONDS)

    async def value(self, query: str) -> float | None:
        """The sum of an instant query's series; None where there is none, or no finite number.

        Raises `Unavailable`, and `Rejected` for a query that it does not understand.
        """
        if not self._url:
            raise Unavailable("RATCHET_PROMETHEUS_URL is not set")
        try:
            answer = await self._client.get(f"{self._url}/api/v1/query", params={"query": query})
            said = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise Unavailable(f"Prometheus at {self._url}: {error!r}") from error
        if answer.status_code == 400:
            raise Rejected(f"Prometheus does not understand {query!r}: {said.get('error', '')}")
        if answer.status_code != 200:
            raise Unavailable(f"Prometheus at {self._url}: {answer.status_code}")
        return _sum(said["data"])


def _sum(data: dict[str, object]) -> float | None:
    result = data["result"]
    assert isinstance(result, list)
    if data["resultType"] == "scalar":
        values = [float(result[1])]
    else:
        values = [float(series["value"][1]) for series in result]
    total = math.fsum(values)
    return total if values and math.isfinite(total) else None
