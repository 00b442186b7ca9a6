"""Artifacts over the real HTTP API, with a real PostgreSQL and a folder as the store."""

from __future__ import annotations

from pathlib import Path

from ratchet.adapters.objects import ObstoreObjects
from ratchet.operations import artifacts
from tests.integration.test_access import Api, with_api

OLD = "adapters/run_gone/abc"


def test_what_nothing_keeps_is_shown_first_and_then_taken_away(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        store = api.parts.artifacts.files
        assert isinstance(store, ObstoreObjects)
        await _write(store)
        before = artifacts.BORN_SECONDS
        artifacts.BORN_SECONDS = -1.0
        try:
            shown = (await api("GET", "/artifacts")).json()
            assert [each["uri"] for each in shown["unneeded"]] == [OLD]
            assert shown["bytes"] == {"adapter": 11}
            assert sorted([f.path for f in await store.files()]) == FILES, "looking changes nothing"

            first = (await api("POST", "/artifacts/prune", grace_seconds=0)).json()
            second = (await api("POST", "/artifacts/prune", grace_seconds=0)).json()
        finally:
            artifacts.BORN_SECONDS = before

        assert (first["unneeded_count"], first["removed_count"]) == (1, 0)
        assert (second["removed"], second["bytes_removed"]) == ([OLD], 11)
        assert [f.path for f in await store.files()] == ["notes.txt"], "what is not ours stays"
        audit = (await api("GET", "/audit")).json()
        assert audit[0]["what"] == "prune artifacts"

    with_api(database_url, tmp_path, scenario)


FILES = [
    f"{OLD}/adapter_config.json",
    f"{OLD}/adapter_model.safetensors",
    "notes.txt",
]


async def _write(store: ObstoreObjects) -> None:
    await store.put(FILES[0], b"{}")
    await store.put(FILES[1], b"tensors..")
    await store.put(FILES[2], b"mine")


def test_a_pin_has_a_reason_and_a_legal_hold_is_an_admins(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(api: Api) -> None:
        store = api.parts.artifacts.files
        assert isinstance(store, ObstoreObjects)
        await _write(store)
        await api("GET", "/artifacts")
        releaser = (await api.key(role="releaser"))["key"]
        viewer = (await api.key(role="viewer"))["key"]
        held = {"project": "p", "subject": OLD, "why": "audit of 2026", "legal": True}

        assert (await api("POST", "/artifacts/pins", viewer, **held)).status_code == 403
        assert (await api("POST", "/artifacts/pins", releaser, **held)).status_code == 403
        assert (await api("POST", "/artifacts/pins", **held)).json() == {"kept": [OLD]}
        why = (await api("GET", f"/artifacts/why?project=p&subject={OLD}")).json()
        assert why == {OLD: ["legal hold by local: audit of 2026"]}

        path = f"/artifacts/pins?project=p&subject={OLD}"
        refused = await api("DELETE", path, releaser)
        assert (refused.status_code, "only an admin ends it" in refused.text) == (422, True)
        assert (await api("DELETE", path)).status_code == 204
        assert (await api("DELETE", path)).status_code == 404
        unknown = await api("GET", "/artifacts/why?project=p&subject=v_none")
        assert (unknown.status_code, "v_none" in unknown.text) == (404, True)

    with_api(database_url, tmp_path, scenario)
