"""Hand a snapshot to a running Envoy and read back what became of it.

Files are replaced by a rename.  Order matters: endpoints, then clusters, then routes when
something is added; clusters that nobody routes to any more leave last.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2 as httpx

from ratchet.adapters.envoy import discovered
from ratchet.adapters.envoy.clusters import clusters, endpoints, target
from ratchet.adapters.envoy.listener import GatewayPlaces, bootstrap, records_file, secrets
from ratchet.adapters.envoy.routes import routes, way_out
from ratchet.adapters.envoy.words import (
    FALLBACK,
    Resource,
    beside_socket,
    cluster_name,
    door_socket,
    version_of_cluster,
)
from ratchet.core.artifact import VersionId
from ratchet.core.errors import Rejected, Unavailable
from ratchet.core.routing import GatewaySnapshot
from ratchet.kit.ids import new_id

# Envoy takes a file in a few milliseconds; this long means that it is not there.
APPLY_SECONDS_MAX = 5.0
# A healthy engine answers its first check in milliseconds.
HEALTHY_SECONDS_MAX = 1.0
UNCHECKED = {"failed_active_hc", "pending_active_hc"}


def prepare(places: GatewayPlaces, boot: Path) -> None:
    """Everything that an Envoy is started with: its bootstrap, and files that let it start before
    there is anything to serve.  Repeatable; what it was told before stays."""
    files = EnvoyFiles(places.folder, places.admin_socket)
    files.prepare()
    for name, secret in secrets(places.tls).items():
        files.write(name, [secret])
    boot.write_text(json.dumps(bootstrap(places), indent=1))


class EnvoyFiles:
    """One Envoy: its folder of resources and its admin socket."""

    def __init__(
        self,
        folder: Path,
        admin_socket: Path,
        *,
        region: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`region` is where this gateway stands; `env` has the keys that a spec names."""
        self._folder, self._region, self._env = folder, region, env or {}
        self._door, self.beside = door_socket(admin_socket), beside_socket(admin_socket)
        folder.mkdir(parents=True, exist_ok=True)
        self._admin = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(admin_socket)),
            base_url="http://envoy",
            timeout=2.0,
        )
        self._known: set[VersionId] = set()
        # In a container every agent has the same pid, so a label must say which agent's it is.
        self._token = new_id("agent")
        self._count = 0

    def prepare(self) -> None:
        """Files that let Envoy start before there is anything to serve.  Never overwrites."""
        known = self._read("cds")
        if known is None:
            self.write("cds", [])
        else:
            # What an earlier agent told Envoy stays there until the routes have left it.
            names = [resource["name"] for resource in json.loads(known)["resources"]]
            self._known = {
                version
                for name in names
                if (version := version_of_cluster(name)) is not None
                and name == cluster_name(version)
            }
        if not (self._folder / "rds.json").exists():
            self.write("rds", [routes(None)])
        if not (self._folder / f"{FALLBACK}.json").exists():
            self.write(FALLBACK, [way_out(None, "")])
        for name in discovered.NAMES:
            if not (self._folder / f"{name}.json").exists():
                self.write(name, [discovered.extension(name, None)])

    async def apply(self, snapshot: GatewaySnapshot) -> None:
        """Bring the snapshot into force.

        Raises `Rejected` with Envoy's own words, in which case the last good routes stay in force
        and the files say them again; `Unavailable` when Envoy is not there.
        """
        # Whom to trust comes first: a route must never ask for what the filters do not know yet.
        for name in discovered.NAMES:
            await self._apply_extension(name, snapshot)
        wanted = set(snapshot.endpoints)
        for version in wanted:
            places = snapshot.endpoints[version]
            self.write(f"eds-{cluster_name(version)}", [endpoints(version, places, self._region)])
        await self._apply_clusters(snapshot, wanted | self._known)
        await self._until_endpoints(snapshot)
        self._write_way_out(snapshot)
        await self._apply_routes(snapshot)
        await self._apply_clusters(snapshot, wanted)
        for gone in self._known - wanted:
            (self._folder / f"eds-{cluster_name(gone)}.json").unlink(missing_ok=True)
        self._known = wanted

    async def _apply_clusters(self, snapshot: GatewaySnapshot, versions: set[VersionId]) -> None:
        made = clusters(snapshot, sorted(versions), self._folder, self._door)
        before = self._read("cds")
        if before is not None and json.loads(before)["resources"] == made:
            return
        await self._put("cds", made, "cluster_manager.cds.")
        names = {cluster_name(version) for version in snapshot.endpoints}
        names |= {target(arm.version, snapshot) for arm in snapshot.arms}
        async for _ in self._looks("clusters"):
            dump = await self._get("/config_dump?resource=dynamic_active_clusters")
            if names <= {entry["cluster"]["name"] for entry in dump.get("configs", [])}:
                return

    def _write_way_out(self, snapshot: GatewaySnapshot) -> None:
        fallback = snapshot.serving.fallback
        variable = "" if fallback is None else fallback.key_variable
        if variable and variable not in self._env:
            raise Rejected(f"gateway.fallback: the gateway's environment has no {variable}")
        self.write(FALLBACK, [way_out(fallback, self._env.get(variable, ""))])

    async def _apply_routes(self, snapshot: GatewaySnapshot) -> None:
        good = self._read("rds")
        resource = routes(snapshot)
        if good is not None and json.loads(good)["resources"] == [resource]:
            # Envoy takes no notice of a route table that is the same; nor do we.
            return
        before = await self._counters()
        label = self._label(f"r{snapshot.revision}")
        self.write("rds", [resource], label)
        try:
            await self._until_routes(label, before)
        except Rejected:
            if good is not None:
                self._replace("rds", good)
            raise

    async def _apply_extension(self, name: str, snapshot: GatewaySnapshot) -> None:
        resource = discovered.extension(name, snapshot)
        good = self._read(name)
        if good is not None and json.loads(good)["resources"] == [resource]:
            return
        await self._put(name, [resource], f"extension_config_discovery.http_filter.{name}.")

    async def _put(self, name: str, resources: list[Resource], prefix: str) -> None:
        """Write a file and wait until Envoy, by its numbers under `prefix`, has taken it.

        Raises `Rejected` when it does not; the file then says what it said before.
        """
        good, rejected = self._read(name), f"{prefix}update_rejected"
        before = await self._stats(prefix)
        label = self._label(name)
        self.write(name, resources, label)
        async for _ in self._looks(name):
            now = await self._stats(prefix)
            if now.get(f"{prefix}version_text") == label:
                return
            if now.get(rejected, 0) > before.get(rejected, 0):
                if good is not None:
                    self._replace(name, good)
                raise Rejected(f"Envoy rejected {name}: see its log")

    def _label(self, name: str) -> str:
        return f"{name}.{self._token}.{self._count}"

    async def _stats(self, prefix: str) -> dict[str, Any]:
        answer = await self._get(f"/stats?filter=^{prefix}&format=json")
        return {s["name"]: s["value"] for s in answer.get("stats", []) if "value" in s}

    async def _until_endpoints(self, snapshot: GatewaySnapshot) -> None:
        """Until Envoy knows every engine, and one of each version has answered its check.

        An engine that never answers holds nothing up for long: routes are the same to it.
        """
        wanted = {
            (cluster_name(version), place.port)
            for version, places in snapshot.endpoints.items()
            for place in places
        }
        patience = asyncio.get_running_loop().time() + HEALTHY_SECONDS_MAX
        async for _ in self._looks("endpoints"):
            answer = await self._get("/clusters?format=json")
            found = {
                (status["name"], host["address"]["socket_address"]["port_value"]): host
                for status in answer.get("cluster_statuses", [])
                for host in status.get("host_statuses", [])
                if "socket_address" in host["address"]
            }
            if not wanted <= set(found):
                continue
            well = {
                (name, port)
                for name, port in wanted
                if not UNCHECKED & set(found[name, port]["health_status"])
            }
            late = asyncio.get_running_loop().time() > patience
            if late or {name for name, _ in wanted} == {name for name, _ in well}:
                return

    async def _until_routes(self, label: str, before: Mapping[str, int]) -> None:
        async for _ in self._looks("routes"):
            dump = await self._get("/config_dump?resource=dynamic_route_configs")
            for entry in dump.get("configs", []):
                if entry.get("version_info") == label:
                    return
                state = entry.get("error_state")
                if state:
                    await self._raise_rejection(before, str(state.get("details", "")))
            await self._raise_rejection(before, "")

    async def _raise_rejection(self, before: Mapping[str, int], details: str) -> None:
        now = await self._counters()
        if now.get("rejected", 0) > before.get("rejected", 0):
            raise Rejected(f"Envoy rejected the snapshot: {details or 'see its log'}")

    async def _looks(self, what: str) -> Any:
        """Look again and again, faster first; raise when Envoy never takes it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + APPLY_SECONDS_MAX
        pause = 0.002
        while loop.time() < deadline:
            yield None
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        raise Unavailable(f"Envoy did not take new {what} within {APPLY_SECONDS_MAX:.0f} s")

    async def _counters(self) -> dict[str, int]:
        stats = await self._get("/stats?filter=rds.main.update_rejected&format=json")
        found = [s["value"] for s in stats.get("stats", []) if "value" in s]
        return {"rejected": sum(found)}

    async def _get(self, path: str) -> dict[str, Any]:
        try:
            answer = await self._admin.get(path)
            value: dict[str, Any] = answer.json()
        except (httpx.TransportError, json.JSONDecodeError) as error:
            raise Unavailable(f"Envoy's admin does not answer: {error!r}") from error
        return value

    def write(self, name: str, resources: list[Resource], label: str | None = None) -> None:
        self._count += 1
        version = label or f"f{self._count}"
        self._replace(name, json.dumps({"version_info": version, "resources": resources}))

    def _read(self, name: str) -> str | None:
        path = self._folder / f"{name}.json"
        return path.read_text() if path.exists() else None

    def _replace(self, name: str, content: str) -> None:
        path = self._folder / f"{name}.json"
        beside = path.with_suffix(f".{os.getpid()}.part")
        beside.touch(mode=0o600)
        beside.write_text(content)
        beside.replace(path)

    def spool(self, name: str) -> Path:
        """A file for what waits beside this Envoy."""
        return self._folder.parent / f"{name}.jsonl"

    def known_snapshot(self) -> Path:
        """A file for the last snapshot that was brought into force."""
        return self._folder.parent / "snapshot.json"

    @property
    def records(self) -> Path:
        """The file that Envoy's access records are in."""
        return records_file(self._folder)

    async def reopen_records(self) -> None:
        """After the file was put aside: go on in a new one.  Raises `Unavailable`."""
        try:
            await self._admin.post("/reopen_logs")
        except httpx.TransportError as error:
            raise Unavailable(f"Envoy's admin does not answer: {error}") from error

    async def close(self) -> None:
        await self._admin.aclose()
