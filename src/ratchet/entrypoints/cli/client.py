"""The control API for programs: address and token from the state directory, errors in our words."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx

from ratchet.core.errors import Conflict, NotFound, RatchetError, Rejected, Unavailable
from ratchet.entrypoints.local.state import StateDir, find_state
from ratchet.kit.clock import monotonic_seconds

_ERRORS: dict[int, type[RatchetError]] = {404: NotFound, 409: Conflict, 422: Rejected}
CALL_SECONDS = 30.0
RETRY_SECONDS = 0.5
# For programs that nobody watches: longer than any restart of the control plane.
PATIENCE_SECONDS = 120.0


class Client:
    """Speaks to one control plane.

    With patience a call waits out a control plane that restarts.  It may then be made twice, so
    such a client makes repeatable calls only: reads, and what goes by a key.
    """

    def __init__(self, url: str, token: str, *, patience_seconds: float = 0.0) -> None:
        self.url = url
        self._patience_seconds = patience_seconds
        self._http = httpx.Client(
            base_url=url,
            timeout=CALL_SECONDS,
            headers={"authorization": f"Bearer {token}"},
            # Reading the authorities takes longer than most calls; plain HTTP asks none.
            verify=url.startswith("https://"),
        )

    def get(self, path: str, **query: object) -> Any:
        """Raises the error that the server named, or `Unavailable`."""
        shown = {key: str(value) for key, value in query.items() if value is not None}
        return self._call("GET", path, params=shown)

    def post(
        self, path: str, body: dict[str, Any], key: str = "", seconds: float = CALL_SECONDS
    ) -> Any:
        """By `key`, where the call takes one; an answer may take so many seconds."""
        headers = {"idempotency-key": key} if key else {}
        return self._call("POST", path, json=body, headers=headers, timeout=seconds)

    def put(self, path: str, body: dict[str, Any]) -> Any:
        """Repeatable."""
        return self._call("PUT", path, json=body)

    def delete(self, path: str, **query: object) -> Any:
        """Raises `NotFound` the second time."""
        return self._call("DELETE", path, params={key: str(value) for key, value in query.items()})

    def text(self, path: str) -> str:
        """What is no JSON."""
        return str(self._call("GET", path))

    def _call(self, method: str, path: str, **more: Any) -> Any:
        deadline = monotonic_seconds() + self._patience_seconds
        while True:
            try:
                return self._call_once(method, path, **more)
            except Unavailable:
                if monotonic_seconds() >= deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _call_once(self, method: str, path: str, **more: Any) -> Any:
        try:
            answer = self._http.request(method, f"/api/v1{path}", **more)
        except httpx.TransportError as error:
            raise Unavailable(f"control plane at {self.url} does not answer: {error}") from error
        if answer.status_code >= 400:
            kind = _ERRORS.get(answer.status_code, Unavailable)
            try:
                detail = answer.json().get("detail", answer.text)
            except ValueError:
                detail = answer.text
            raise kind(str(detail))
        if not answer.headers.get("content-type", "").startswith("application/json"):
            return answer.text or None
        return answer.json() if answer.content else None


def state_of(state_dir: Path | None) -> StateDir:
    """The named state directory, or the nearest.  Raises `NotFound`."""
    return StateDir(state_dir.absolute()) if state_dir else find_state(Path.cwd())


def connect(state_dir: Path | None, *, patience_seconds: float = 0.0) -> Client:
    """The control plane of a state directory, of `RATCHET_URL`, or of the nearest `.ratchet`.

    Raises `NotFound` when there is none to be found.
    """
    if url := os.environ.get("RATCHET_URL"):
        token = os.environ.get("RATCHET_TOKEN", "")
        return Client(url, token, patience_seconds=patience_seconds)
    state = state_of(state_dir)
    url = f"http://127.0.0.1:{state.ports().http}"
    token = state.token_file.read_text().strip()
    return Client(url, token, patience_seconds=patience_seconds)
