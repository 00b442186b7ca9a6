"""Keys and roles of the control plane, on a real PostgreSQL and the whole HTTP application."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from ratchet.core.access import Permission
from ratchet.core.errors import Rejected
from ratchet.entrypoints.http.app import build_app
from ratchet.entrypoints.metrics import Metrics
from ratchet.kit.secret import Secret
from ratchet.operations.access import prepare
from ratchet.settings import Settings
from ratchet.wiring import Parts, build
from tests.contract.test_specfile import SMALL

LOCAL = "token-of-this-machine"
SECRET = base64.b64encode(b"s" * 32).decode()


def settings(url: str, tmp_path: Path, secret: str = SECRET) -> Settings:
    return Settings(
        database_url=Secret(url),
        token=Secret(LOCAL),
        secret=Secret(secret),
        objects_url=f"file://{tmp_path}/objects",
        sources_dir=tmp_path / "sources",
    )


class Api:
    """Calls the application as different callers would."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        transport = httpx.ASGITransport(app=build_app(parts, Metrics()))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def __call__(
        self, method: str, path: str, token: str | None = LOCAL, /, **body: Any
    ) -> httpx.Response:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        content = None if method == "GET" else body
        return await self.http.request(method, f"/api/v1{path}", headers=headers, json=content)

    async def page(self, path: str) -> httpx.Response:
        """Of the console."""
        return await self.http.get(path)

    async def key(self, **wish: Any) -> dict[str, Any]:
        answer = await self("POST", "/keys", project="p", name="k", **wish)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


def with_api(url: str, tmp_path: Path, scenario: Callable[[Api], Awaitable[None]]) -> None:
    async def run() -> None:
        parts = build(settings(url, tmp_path))
        await parts.database.open()
        await prepare(parts.access)
        try:
            api = Api(parts)
            spec = {"spec": SMALL, "path": "/x/ratchet.yaml"}
            assert (await api("POST", "/projects", **spec)).status_code == 200
            await scenario(api)
        finally:
            await parts.database.close()

    asyncio.run(run())


def test_a_key_is_shown_once_and_reaches_the_gateway(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        now = api.parts.runs.clock.now()
        before = await api.parts.gateway.snapshot(now)
        made = await api.key(models=["m"], lives_seconds=3600.0)
        listed = (await api("GET", "/keys?project=p")).json()

        assert made["key"].startswith("rk_")
        assert made["key"] not in str(listed)
        assert listed[0]["hint"] == made["key"][-6:]
        # A key that exists is nothing that a gateway must be told.
        assert (await api.parts.gateway.snapshot(now)).revision == before.revision
        assert not before.admission.is_open
        assert len(before.admission.jwks) == 1

    with_api(database_url, tmp_path, scenario)


def test_a_revocation_is_told_once_and_forgotten_when_the_key_would_have_ended(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        made = await api.key(lives_seconds=3600.0)
        now = api.parts.runs.clock.now()
        before = (await api.parts.gateway.snapshot(now)).revision

        for _ in range(2):
            gone = await api("POST", f"/keys/{made['id']}/revoke", why="leaked", who="ana")
            assert gone.status_code == 200
        after = await api.parts.gateway.snapshot(now)
        later = await api.parts.gateway.snapshot(now + timedelta(days=2))

        assert after.admission.revoked == (made["id"],)
        assert after.revision == before + 1
        assert later.admission.revoked == ()
        audit = (await api("GET", "/audit")).json()
        revocations = [row for row in audit if row["what"] == "revoke key"]
        assert [(row["who"], row["because"]) for row in revocations] == [("ana", "leaked")]
        assert (await api("POST", f"/keys/{made['id']}/rotate")).status_code == 422

    with_api(database_url, tmp_path, scenario)


def test_a_rotation_gives_a_second_key_of_the_same_kind(database_url: str, tmp_path: Path) -> None:
    async def scenario(api: Api) -> None:
        first = await api.key(tier="gold", models=["m"], lives_seconds=86400.0)
        second = (await api("POST", f"/keys/{first['id']}/rotate")).json()
        keys = {key["id"]: key for key in (await api("GET", "/keys?project=p")).json()}

        assert second["key"] != first["key"]
        for same in ("name", "principal", "scopes", "models", "tier", "role"):
            assert keys[first["id"]][same] == keys[second["id"]][same]
        assert keys[first["id"]]["revoked_at"] is None

    with_api(database_url, tmp_path, scenario)


def test_an_old_signing_key_is_trusted_as_long_as_a_key_hangs_on_it(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        made = await api.key(lives_seconds=3600.0)

        async def trusted() -> int:
            now = api.parts.runs.clock.now()
            return len((await api.parts.gateway.snapshot(now)).admission.jwks)

        rotated = await api("POST", "/signing-keys/rotate", why="monthly")
        assert (rotated.status_code, rotated.json()["revoked"]) == (201, 0)
        assert await trusted() == 2

        await api("POST", f"/keys/{made['id']}/revoke", why="done")
        assert await trusted() == 1

        await api.key()
        leaked = await api("POST", "/signing-keys/rotate", why="leaked", revoke=True)
        assert leaked.json()["revoked"] == 1
        assert await trusted() == 1

    with_api(database_url, tmp_path, scenario)


# One call for each permission that a person may need.
CALLS = {
    Permission.READ: ("GET", "/projects", {}),
    Permission.RUN: ("POST", "/runs/run_none/cancel", {"why": "x"}),
    Permission.RELEASE: ("POST", "/releases/rel_none/pause", {"why": "x"}),
    Permission.AUDIT: ("GET", "/audit", {}),
    Permission.SERVE: ("POST", "/projects", {"spec": SMALL, "path": "/x/ratchet.yaml"}),
    Permission.KEYS: ("GET", "/keys?project=p", {}),
    Permission.TURNS: ("GET", "/turns?project=p", {}),
    Permission.ERASE: ("POST", "/erasures", {"project": "p", "subject": "nobody", "why": "x"}),
    Permission.PRUNE: ("DELETE", "/artifacts/pins?project=p&subject=nothing", {}),
    Permission.NODE: ("GET", "/node/work", {}),
}


def test_each_role_reaches_what_it_may_and_is_told_why_not(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        operator = {Permission.READ, Permission.RUN, Permission.TURNS}
        allowed = {
            "viewer": {Permission.READ},
            "operator": operator,
            "releaser": operator | {Permission.RELEASE, Permission.AUDIT, Permission.PRUNE},
            "admin": set(Permission),
        }
        assert set(CALLS) == set(Permission)
        for role, may in allowed.items():
            token = (await api.key(role=role))["key"]
            for permission, (method, path, body) in CALLS.items():
                answer = await api(method, path, token, **body)
                refused = answer.status_code in (401, 403)
                assert refused == (permission not in may), (role, permission, answer.text)
                if refused:
                    assert f"has the role {role}" in answer.json()["detail"]

    with_api(database_url, tmp_path, scenario)


def test_who_shows_no_good_token_is_told_the_same_whatever_is_wrong(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        revoked = await api.key(role="admin")
        await api("POST", f"/keys/{revoked['id']}/revoke", why="x")
        plain = await api.key()

        assert (await api("GET", "/projects", None)).status_code == 200
        missing = await api("GET", "/keys?project=p", None)
        assert missing.status_code == 401
        assert "ratchet key create --role" in missing.json()["detail"]
        said = [
            (await api("GET", "/projects", token)).json()["detail"]
            for token in (revoked["key"], "rk_a.b.c", revoked["key"][:-3] + "abc")
        ]
        assert set(said) == {"this key is not valid or was revoked"}
        steers = await api("GET", "/projects", plain["key"])
        assert "wants one with a role" in steers.json()["detail"]
        assert missing.headers["content-type"] == "application/problem+json"

    with_api(database_url, tmp_path, scenario)


def test_nobody_gives_away_more_than_they_have_or_reaches_another_project(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        admin = (await api.key(role="admin", principal="ana"))["key"]

        own = await api("POST", "/keys", admin, project="p", name="n", role="admin")
        other = await api("POST", "/keys", admin, project="bank", name="n")
        everything = await api("POST", "/signing-keys/rotate", admin, why="x")
        unknown = await api("POST", "/keys", project="bank", name="n")

        assert own.status_code == 201
        assert (other.status_code, everything.status_code) == (403, 403)
        assert "ana belongs to project p" in other.json()["detail"]
        assert unknown.status_code == 404

    with_api(database_url, tmp_path, scenario)


def test_closing_and_opening_the_gateway_is_in_the_audit_log(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        opened = SMALL + "gateway: {access: open}\n"
        await api("POST", "/projects", spec=opened, path="/x/ratchet.yaml")
        snapshot = await api.parts.gateway.snapshot(api.parts.runs.clock.now())

        assert snapshot.admission.is_open
        row = (await api("GET", "/audit")).json()[0]
        assert row["what"] == "serve otherwise"
        assert (row["old"], row["new"]) == ('access: "keys"', 'access: "open"')

    with_api(database_url, tmp_path, scenario)


def test_another_secret_cannot_sign_and_says_what_to_do(database_url: str, tmp_path: Path) -> None:
    async def scenario(_: Api) -> None:
        parts = build(settings(database_url, tmp_path, base64.b64encode(b"o" * 32).decode()))
        await parts.database.open()
        try:
            answer = await Api(parts)("POST", "/keys", project="p", name="k")
            assert answer.status_code == 503
            assert "RATCHET_SECRET_FILE" in answer.json()["detail"]
            rotated = await Api(parts)("POST", "/signing-keys/rotate", why="secret lost")
            assert rotated.status_code == 201
            assert (await Api(parts)("POST", "/keys", project="p", name="k")).status_code == 201
        finally:
            await parts.database.close()

    with_api(database_url, tmp_path, scenario)


@pytest.mark.parametrize("secret", ["", "short", "c2hvcnQ="])
def test_a_secret_of_the_wrong_size_is_refused_at_the_start(secret: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="32 random bytes in base64"):
        build(settings("postgresql://x", tmp_path, secret))


def test_text_that_no_column_holds_is_refused_and_not_a_server_error(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        nul = await api("GET", "/versions?project=%00")
        half = await api("POST", "/projects", spec="project: \x07", path="/x/ratchet.yaml")

        assert (nul.status_code, half.status_code) == (422, 422)
        assert "YAML" in half.json()["detail"]

    with_api(database_url, tmp_path, scenario)
