"""The routes of the archive: what lies in files, moving more there now, looking whether all is well, putting back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from ...jobs.errors import StandbyError
from ...jobs.units import UnitError, parse_duration
from ..desk import Desk, RequestError
from ..store.archive import Part
from ..views import JSON, iso
from . import asked
from .answers import as_json
from .routes import Route


class ArchiveApi:
    """The handlers.

    Args:
        desk: whose archive.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[Route]:
        """Theirs."""
        return [
            Route("GET", "/v1/archive", self.parts, "The parts of the history that lie in Parquet files."),
            Route("POST", "/v1/archive", self.compact, "Move old history into files now.",
                  takes={"after": "what ended so long ago, such as 30d; as set if not said"}),
            Route("POST", "/v1/archive/verify", self.verify, "Whether every file is as it was written.", takes={}),
            Route("POST", "/v1/archive/{part}/restore", self.restore, "Put a part back into the database.", takes={}),
        ]  # fmt: skip

    async def parts(self, _request: web.Request) -> web.Response:
        """All of them."""
        found = await asyncio.to_thread(self._desk.archive.parts)
        return as_json({"parts": [part_view(part) for part in found], "folder": str(self._desk.archive.folder)})

    async def compact(self, request: web.Request) -> web.Response:
        """Move some."""
        self._lead()
        after, policy = asked.body(await request.read()).get("after"), self._desk.archiving
        if after is not None:
            try:
                policy = replace(policy, after=parse_duration(str(after)))
            except UnitError as error:
                raise RequestError(f"after: {error.message}", hint=error.hint) from None
        moved = await asyncio.to_thread(self._desk.archive.compact, policy, self._desk.now())
        return as_json({"rows": moved})

    async def verify(self, _request: web.Request) -> web.Response:
        """Look at all."""
        return as_json({"faults": await asyncio.to_thread(self._desk.archive.verify)})

    async def restore(self, request: web.Request) -> web.Response:
        """Put one back."""
        self._lead()
        number = request.match_info["part"]
        if not (number.isascii() and number.isdigit() and len(number) < 16):  # noqa: PLR2004 - digits of what a database takes
            raise RequestError(f"{number} is no number of a part")
        return as_json({"rows": await asyncio.to_thread(self._desk.archive.restore, int(number))})

    def _lead(self) -> None:
        figures = self._desk.controller.figures
        if not figures.leader:
            raise StandbyError("this control plane stands by", hint="ask the leader", leader=figures.leader_url)


def part_view(part: Part) -> JSON:
    """A part as listings show it."""
    return {
        "part": part.number,
        "state": part.state,
        "made": iso(part.made),
        "first": iso(part.first),
        "last": iso(part.last),
        "first_job": part.first_job or None,
        "last_job": part.last_job or None,
        "jobs": part.rows.get("jobs", 0),
        "events": part.rows.get("events", 0),
        "decisions": part.rows.get("decisions", 0),
        "bytes": sum(size for _, size, _ in part.files.values()),
        "files": [str(path) for path, _, _ in part.files.values()],
    }
