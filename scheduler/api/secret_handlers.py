"""The routes of the keys that seal secrets: which there are, and a new one in their place. Never a key or a secret."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ...jobs.errors import ConflictError
from ..desk import RequestError
from ..store import sealed
from ..store.sql import SqlStore
from ..views import JSON
from . import asked
from .answers import as_json
from .routes import Route


class SecretApi:
    """The handlers."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._turn = asyncio.Lock()

    def routes(self) -> list[Route]:
        """What there is."""
        gives = {200: "keys: the ids of the keys, with how many secrets each has sealed; the first one seals"}
        return [
            Route("GET", "/v1/secrets", self.keys, "Which keys seal secrets.", gives=gives),
            Route("POST", "/v1/secrets/rotate-key", self.rotate, "Seal all secrets with a new key.",
                  takes={"forget_old": "take the other keys out of the file"},
                  gives={200: "keys as above; sealed, locked: how many were, and how many could not be opened"}),
        ]  # fmt: skip

    async def keys(self, _request: web.Request) -> web.Response:
        """Ids and counts."""
        return as_json({"keys": await asyncio.to_thread(self._view)})

    async def rotate(self, request: web.Request) -> web.Response:
        """A new key, and everything sealed with it."""
        forget = asked.body(await request.read()).get("forget_old", False)
        if not isinstance(forget, bool):
            raise RequestError("forget_old must be true or false")
        async with self._turn:  # two at once would each forget the other's
            done, locked = await asyncio.to_thread(self._rotate, forget=forget)
            return as_json({"keys": await asyncio.to_thread(self._view), "sealed": done, "locked": locked})

    def _rotate(self, *, forget: bool) -> tuple[int, int]:
        keys, store = self._store.keys, self._store
        with store.writer():
            pass  # refused here if another control plane leads: it must be the one that does this
        new = keys.rotate()
        done, locked = sealed.seal_anew(store.writer, keys)
        if forget and locked:
            raise ConflictError(
                f"{locked} secrets could not be opened, so the old keys stay",
                hint="the log names the jobs; cancel them or bring back their key, then ask again",
            )
        if forget:
            keys.forget(set(keys.known()) - {new})
        return done, locked

    def _view(self) -> list[JSON]:
        with self._store.reader() as connection:
            counts = sealed.counts(connection)
        known = self._store.keys.known()
        rows: list[JSON] = [
            {"key": key, "secrets": counts.pop(key, 0), "seals": place == 0, "here": True}
            for place, key in enumerate(known)
        ]
        return rows + [{"key": key, "secrets": count, "seals": False, "here": False} for key, count in counts.items()]
