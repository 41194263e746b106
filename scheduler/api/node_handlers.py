"""The routes of nodes: what they hold, cordon, drain, resume, their history, and maintenance windows."""

from __future__ import annotations

import math
from typing import Any

from aiohttp import web

from ..access.asking import current
from ..desk import RequestError
from ..node_orders import LEAD
from ..node_verbs import NodeVerbs, WantedWindow
from ..views import JSON, seconds
from . import asked
from .answers import as_json
from .routes import Parameter, Route


class NodeApi:
    """The handlers."""

    def __init__(self, verbs: NodeVerbs) -> None:
        self.verbs = verbs

    def routes(self) -> list[Route]:
        """What there is."""
        who = {"reason": "words", "user": "who asks"}
        when = {"within": "seconds from now by which what runs there is gone; 0 = at once",
                "deadline": "or that time; neither = when it ends by itself"}  # fmt: skip
        window = {"nodes": "names", "labels": "or key and value of labels that they carry", "all": "or all of them",
                  "start": "when it begins", "after": "or in so many seconds", "duration": "seconds",
                  "lead": "seconds before the start from which no job of unknown length starts there"}  # fmt: skip
        gives = {200: "node, with `changed`: whether it was not so already"}
        return [
            Route("GET", "/v1/nodes", self.nodes, "Nodes, what is free of them, and who holds the rest.",
                  [Parameter("gone", "boolean", "those that left too")]),
            Route("GET", "/v1/nodes/{name}", self.node, "One node with its history.",
                  [Parameter("limit", "integer", "so many lines of its history at most")]),
            Route("POST", "/v1/nodes/{name}/cordon", self.cordon, "No new work for a node.", takes=who, gives=gives),
            Route("POST", "/v1/nodes/{name}/drain", self.drain,
                  "No new work for a node; what runs there is moved in time.", takes=who | when, gives=gives),
            Route("POST", "/v1/nodes/{name}/resume", self.resume, "A node takes work again.",
                  takes={"user": "who asks"}, gives=gives),
            Route("GET", "/v1/maintenance", self.windows, "Maintenance windows.",
                  [Parameter("all", "boolean", "those that are over or cancelled too")]),
            Route("POST", "/v1/maintenance", self.add_window, "Plan a time in which nodes are not for jobs.",
                  takes=window | who, gives={201: "window"}),
            Route("POST", "/v1/maintenance/{window}/cancel", self.cancel_window, "Call a maintenance window off.",
                  takes={"user": "who asks"}, gives={200: "window, with `changed`"}),
        ]  # fmt: skip

    async def nodes(self, request: web.Request) -> web.Response:
        """All of them."""
        return as_json({"nodes": await self.verbs.nodes(gone=asked.flag(request.query, "gone"))})

    async def node(self, request: web.Request) -> web.Response:
        """One."""
        limit = asked.whole(request.query, "limit", 100, least=1) or 1
        return as_json({"node": await self.verbs.node(request.match_info["name"], limit=limit)})

    async def cordon(self, request: web.Request) -> web.Response:
        """No new work there."""
        found = asked.body(await request.read())
        name, reason, by = request.match_info["name"], _text(found, "reason"), current().name(_text(found, "user"))
        return as_json({"node": await self.verbs.cordon(name, reason, by=by)})

    async def drain(self, request: web.Request) -> web.Response:
        """No new work there, and what is there leaves."""
        found = asked.body(await request.read())
        answer = await self.verbs.drain(
            request.match_info["name"],
            _text(found, "reason"),
            by=current().name(_text(found, "user")),
            within=_number(found, "within"),
            deadline=_time(found, "deadline"),
        )
        return as_json({"node": answer})

    async def resume(self, request: web.Request) -> web.Response:
        """Work may go there again."""
        by = current().name(_text(asked.body(await request.read()), "user"))
        return as_json({"node": await self.verbs.resume(request.match_info["name"], by=by)})

    async def windows(self, request: web.Request) -> web.Response:
        """Those that are planned or on."""
        return as_json({"windows": await self.verbs.windows(over=asked.flag(request.query, "all"))})

    async def add_window(self, request: web.Request) -> web.Response:
        """One more."""
        found = asked.body(await request.read())
        duration, lead = _number(found, "duration"), _number(found, "lead")
        if duration is None:
            raise RequestError("duration is missing", hint="seconds")
        everywhere = found.get("all", False)
        if not isinstance(everywhere, bool):
            raise RequestError("all must be true or false")
        wanted = WantedWindow(
            _names(found),
            _labels(found),
            everywhere,
            duration,
            _time(found, "start"),
            _number(found, "after"),
            LEAD if lead is None else lead,
            _text(found, "reason"),
            current().name(_text(found, "user")),
        )
        return as_json({"window": await self.verbs.add_window(wanted)}, status=201)

    async def cancel_window(self, request: web.Request) -> web.Response:
        """One less."""
        by = current().name(_text(asked.body(await request.read()), "user"))
        number = asked.whole(request.match_info, "window", least=1) or 0
        return as_json({"window": await self.verbs.cancel_window(number, by=by)})


def _text(found: JSON, name: str) -> str:
    given = found.get(name, "")
    if not isinstance(given, str):
        raise RequestError(f"{name} must be a text")
    return given


def _number(found: JSON, name: str) -> float | None:
    given = found.get(name)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise RequestError(f"{name} must be a number of seconds")
    return float(given)


def _time(found: JSON, name: str) -> float | None:
    given: Any = found.get(name)
    if given is None:
        return None
    try:
        return seconds(str(given))
    except (ValueError, OverflowError):
        raise RequestError(f"{name} is no time", hint="such as 2026-03-01T12:00:00Z, or UTC seconds") from None


def _names(found: JSON) -> tuple[str, ...]:
    given = found.get("nodes", [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise RequestError("nodes must be a list of names")
    return tuple(dict.fromkeys(given))


def _labels(found: JSON) -> tuple[tuple[str, str], ...]:
    given = found.get("labels", {})
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise RequestError("labels must be an object of texts")
    return tuple(sorted(given.items()))
