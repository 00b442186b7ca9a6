"""Events in MongoDB: a collection for each kind, `_id` being the event's id.

An erasure removes there what it removed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import AsyncMongoClient, ReplaceOne
from pymongo.errors import PyMongoError

from ratchet.core.errors import Unavailable
from ratchet.kit.secret import Secret
from ratchet.ports import Event

DATABASE = "ratchet"
ANSWER_MILLISECONDS = 5_000


class MongoEvents:
    name = "mongodb"

    def __init__(self, url: Secret) -> None:
        """`mongodb://host/database`; without a database it is `ratchet`."""
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            url.reveal(),
            serverSelectionTimeoutMS=ANSWER_MILLISECONDS,
            timeoutMS=ANSWER_MILLISECONDS,
            appname="ratchet",
        )
        self._database = self._client.get_default_database(DATABASE)

    async def send(self, events: Sequence[Event]) -> None:
        try:
            for kind, batch in _runs(events):
                if kind == "erasure":
                    for event in batch:
                        await self._erase(event)
                    continue
                writes = [
                    ReplaceOne({"_id": event.id}, {"_id": event.id, **event.content}, upsert=True)
                    for event in batch
                ]
                await self._database[_collection(kind)].bulk_write(writes, ordered=True)
        except PyMongoError as error:
            raise Unavailable(f"MongoDB does not take events: {error}") from error

    async def _erase(self, event: Event) -> None:
        theirs = {
            "project": event.content["project"],
            "subjects": event.id,
            "at": {"$lte": event.content["erased_at"]},
        }
        turns, feedback = self._database["turns"], self._database["feedback"]
        asked = [turn["_id"] async for turn in turns.find(theirs, {"_id": 1})]
        await feedback.delete_many({"request_id": {"$in": asked}})
        await feedback.delete_many(theirs)
        await turns.delete_many(theirs)

    async def close(self) -> None:
        await self._client.close()


def _collection(kind: str) -> str:
    return "turns" if kind == "turn" else kind


def _runs(events: Sequence[Event]) -> list[tuple[str, list[Event]]]:
    """Neighbours of one kind together, order kept."""
    runs: list[tuple[str, list[Event]]] = []
    for event in events:
        if not runs or runs[-1][0] != event.kind:
            runs.append((event.kind, []))
        runs[-1][1].append(event)
    return runs
