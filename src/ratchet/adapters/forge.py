"""Commit statuses of GitHub and GitLab, over their HTTP APIs."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit

import httpx2 as httpx

from ratchet.core.errors import Rejected, Unavailable
from ratchet.ports import Untold

CONTEXT = "ratchet"
CALL_SECONDS = 10.0
DESCRIPTION_CHARACTERS = 140
LATER = (403, 408, 425, 429)  # 403 is also how GitHub says "slower"
# Our states in their words.  What a gate stopped is a judged change that will not be served.
GITHUB = {
    "queued": "pending", "running": "pending", "promoted": "success", "unchanged": "success",
    "superseded": "success", "gated": "failure", "rolled_back": "failure", "failed": "error",
    "cancelled": "error",
}  # fmt: skip
GITLAB = {
    "queued": "pending", "running": "running", "promoted": "success", "unchanged": "success",
    "superseded": "success", "gated": "failed", "rolled_back": "failed", "failed": "failed",
    "cancelled": "canceled",
}  # fmt: skip


class CommitStatuses:
    """`secret` gives the value of an environment variable, or nothing."""

    def __init__(self, secret: Callable[[str], str | None]) -> None:
        self._secret = secret
        self._client = httpx.AsyncClient(timeout=CALL_SECONDS)

    async def tell(self, untold: Untold, url: str) -> None:
        triggers = untold.triggers
        token = self._secret(triggers.token_variable) if triggers.token_variable else None
        if not token:
            raise Unavailable(f"${triggers.token_variable or 'TOKEN'} is not set")
        path = urlsplit(_https(triggers.repository)).path.strip("/").removesuffix(".git")
        said = f"{untold.state.replace('_', ' ')}: {untold.because}" if untold.because else ""
        description = (said or untold.state)[:DESCRIPTION_CHARACTERS]
        if "/api/v4" in triggers.report:
            address = f"{triggers.report}/projects/{quote(path, safe='')}/statuses/{untold.commit}"
            body = {"state": GITLAB[untold.state], "name": CONTEXT}
            headers = {"private-token": token}
        else:
            address = f"{triggers.report}/repos/{path}/statuses/{untold.commit}"
            body = {"state": GITHUB[untold.state], "context": CONTEXT}
            headers = {
                "authorization": f"Bearer {token}",
                "accept": "application/vnd.github+json",
                "x-github-api-version": "2022-11-28",
            }
        await self._post(address, {**body, "target_url": url, "description": description}, headers)

    async def _post(self, address: str, body: dict[str, str], headers: dict[str, str]) -> None:
        try:
            answer = await self._client.post(address, json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"{address} cannot be reached: {type(error).__name__}") from None
        if answer.status_code >= 500 or answer.status_code in LATER:
            raise Unavailable(f"{address} answered {answer.status_code}")
        if answer.status_code >= 400:
            raise Rejected(f"{address} refused it: {answer.status_code} {answer.text[:200]}")


def _https(repository: str) -> str:
    """`git@host:org/name` as a url."""
    if "://" in repository:
        return repository
    host, _, path = repository.partition(":")
    return f"https://{host.rpartition('@')[2]}/{path}"
