"""A fake Kubernetes API server, because no real one can be had from a package.

It keeps Jobs and Pods in memory, checks what it is sent strictly against the published schemas of
three versions of Kubernetes, answers with Status objects, lets watches resume, and fails on demand.
It runs no Job: tests play controller and kubelet through `/_control`.  Run by
`build/kube/bin/python tests/kube_api.py PORT`.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

import kubernetes_validate
from aiohttp import web

VERSIONS = ("1.35", "1.36", "1.37")
KINDS = {"jobs": ("batch/v1", "Job"), "pods": ("v1", "Pod")}
# Events before these are forgotten: a watch from before them is answered with 410.
HISTORY_MAX = 200


class Api:
    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []
        self.changed = asyncio.Condition()
        self.faults: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.watches: set[asyncio.Task[Any]] = set()

    async def put(self, kind: str, value: dict[str, Any], event: str) -> dict[str, Any]:
        self.version += 1
        value = copy.deepcopy(value)
        value["metadata"]["resourceVersion"] = str(self.version)
        key = (kind, value["metadata"]["namespace"], value["metadata"]["name"])
        if event == "DELETED":
            self.objects.pop(key, None)
        else:
            self.objects[key] = value
        self.history.append((self.version, kind, event, value))
        del self.history[:-HISTORY_MAX]
        async with self.changed:
            self.changed.notify_all()
        return value


def status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    }  # fmt: skip
    # As the real one: with a charset behind it clients take it for no Status.
    kind = {"content-type": "application/json"}
    return web.Response(body=json.dumps(body).encode(), status=code, headers={**headers, **kind})


@web.middleware  # type: ignore[untyped-decorator]
async def faulty(request: web.Request, handler: Any) -> web.StreamResponse:
    api: Api = request.app["api"]
    if not request.path.startswith("/_control"):
        watch = "watch" if request.query.get("watch") == "true" else request.method
        api.requests.append(f"{watch} {request.path}")
        for fault in api.faults:
            if fault["on"] == watch and fault["count"] > 0:
                fault["count"] -= 1
                return status(
                    fault["code"], fault["reason"], "on demand", **fault.get("headers", {})
                )
    answer: web.StreamResponse = await handler(request)
    return answer


async def create(request: web.Request) -> web.Response:
    api: Api = request.app["api"]
    kind, namespace = request.match_info["kind"], request.match_info["namespace"]
    value = await request.json()
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(value, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return status(422, "Invalid", f"{version}: {error.message}")
    name = value["metadata"]["name"]
    if (kind, namespace, name) in api.objects:
        return status(409, "AlreadyExists", f'{kind} "{name}" already exists')
    value["metadata"] |= {
        "namespace": namespace,
        "uid": str(uuid.uuid4()),
        "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    value["status"] = {}
    return web.json_response(await api.put(kind, value, "ADDED"), status=201)


async def delete(request: web.Request) -> web.Response:
    api: Api = request.app["api"]
    key = (
        request.match_info["kind"], request.match_info["namespace"], request.match_info["name"],
    )  # fmt: skip
    if key not in api.objects:
        return status(404, "NotFound", f'{key[0]} "{key[2]}" not found')
    await api.put(key[0], api.objects[key], "DELETED")
    return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})


def selected(request: web.Request, value: dict[str, Any]) -> bool:
    labels = value["metadata"].get("labels", {})
    wanted = request.query.get("labelSelector", "")
    return all(
        labels.get(part.partition("=")[0]) == part.rpartition("=")[2]
        for part in wanted.split(",") if part
    )  # fmt: skip


async def listing(request: web.Request) -> web.StreamResponse:
    api: Api = request.app["api"]
    kind = request.match_info["kind"]
    if request.query.get("watch") == "true":
        return await watch(request, kind)
    version, name = KINDS[kind]
    items = [v for (k, _, _), v in api.objects.items() if k == kind and selected(request, v)]
    return web.json_response(
        {
            "kind": f"{name}List",
            "apiVersion": version,
            "metadata": {"resourceVersion": str(api.version)},
            "items": items,
        }
    )


async def watch(request: web.Request, kind: str) -> web.StreamResponse:
    api: Api = request.app["api"]
    after = int(request.query.get("resourceVersion") or 0)
    if after and api.history and after < api.history[0][0] - 1:
        return status(410, "Expired", f"too old resource version: {after}")
    answer = web.StreamResponse(headers={"content-type": "application/json"})
    await answer.prepare(request)
    task = asyncio.current_task()
    assert task is not None
    api.watches.add(task)
    try:
        while True:
            for version, its, event, value in list(api.history):
                if version > after and its == kind and selected(request, value):
                    line = json.dumps({"type": event, "object": value})
                    await answer.write(line.encode() + b"\n")
                after = max(after, version)
            async with api.changed:
                await api.changed.wait()
    except asyncio.CancelledError:
        # Cut in the middle, as by a load balancer.
        if request.transport is not None:
            request.transport.close()
        raise
    finally:
        api.watches.discard(task)


async def control(request: web.Request) -> web.Response:
    """What tests do: objects as a controller would set them, faults, and what was asked."""
    api: Api = request.app["api"]
    wish = await request.json()
    if wish["do"] == "put":
        known = (wish["kind"], wish["object"]["metadata"]["namespace"],
                 wish["object"]["metadata"]["name"]) in api.objects  # fmt: skip
        await api.put(wish["kind"], wish["object"], "MODIFIED" if known else "ADDED")
    elif wish["do"] == "objects":
        found = [v for (kind, _, _), v in api.objects.items() if kind == wish["kind"]]
        return web.json_response(found)
    elif wish["do"] == "fault":
        api.faults.append(wish)
    elif wish["do"] == "cut":
        for task in list(api.watches):
            task.cancel()
    elif wish["do"] == "forget":
        api.history.clear()
        api.version += HISTORY_MAX
    return web.json_response({"requests": api.requests})


def main() -> None:
    app = web.Application(middlewares=[faulty])
    app["api"] = Api()
    for prefix in ("/apis/batch/v1", "/api/v1"):
        base = prefix + "/namespaces/{namespace}/{kind}"
        app.router.add_post(base, create)
        app.router.add_get(base, listing)
        app.router.add_delete(base + "/{name}", delete)
    app.router.add_post("/_control", control)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None,
                shutdown_timeout=0.5)  # fmt: skip


if __name__ == "__main__":
    main()
