"""The routes of queues: what holds, its file, its history, and how it changes."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web

from ...jobs.yaml_faults import MAX_BYTES
from ..access.asking import current
from ..desk import RequestError
from ..queue_verbs import QueueVerbs
from ..views import JSON
from . import asked
from .answers import as_json
from .routes import Parameter, Route

T = TypeVar("T", str, int)


class QueueApi:
    """The handlers."""

    def __init__(self, verbs: QueueVerbs) -> None:
        self.verbs = verbs

    def routes(self) -> list[Route]:
        """What there is."""
        change = {"user": "who asks", "drain": "also if jobs lose their queue", "dry_run": "only say what would change"}
        file = {"text": "the file: YAML", "file": "its name, for messages", "strict": "warnings refuse it"}
        gives = {200: "version, written, changes, warnings, displaced"}
        which = [Parameter("version", "integer", "the one that holds if not said")]
        return [
            Route("GET", "/v1/queues", self.queues, "Queues, what they may have and what they hold."),
            Route("GET", "/v1/queues/{queue}", self.queue, "One queue."),
            Route("POST", "/v1/queues", self.apply, "Have the queues of a file hold.",
                  takes=file | change, gives=gives),
            Route("GET", "/v1/queue-file", self.file, "The file of a version, as written and as exported.", which),
            Route("GET", "/v1/queue-versions", self.history, "Every version, the newest first."),
            Route("POST", "/v1/queue-versions/rollback", self.roll_back, "Have an earlier version hold again.",
                  takes={"version": "its number; 0 = no queues"} | change, gives=gives),
        ]  # fmt: skip

    async def queues(self, _request: web.Request) -> web.Response:
        """All of them."""
        return as_json(await self.verbs.queues())

    async def queue(self, request: web.Request) -> web.Response:
        """One."""
        return as_json({"queue": await self.verbs.queue(request.match_info["queue"])})

    async def file(self, request: web.Request) -> web.Response:
        """A file."""
        return as_json(await self.verbs.queue_file(asked.whole(request.query, "version")))

    async def history(self, _request: web.Request) -> web.Response:
        """Every version."""
        return as_json({"versions": await self.verbs.queue_history()})

    async def apply(self, request: web.Request) -> web.Response:
        """A file."""
        body = asked.body(await request.read())
        text = _of(body, "text", str, None)
        if len(text) > MAX_BYTES:
            raise RequestError("text is larger than 1 MiB")
        dry_run, asking = _flag(body, "dry_run"), current()
        asking.settled = dry_run
        asking.target = "queues"
        return as_json(
            await self.verbs.apply_queues(
                text,
                file=_of(body, "file", str, "queues.yaml"),
                by=asking.name(_of(body, "user", str, "")),
                drain=_flag(body, "drain"),
                strict=_flag(body, "strict"),
                dry_run=dry_run,
            )
        )

    async def roll_back(self, request: web.Request) -> web.Response:
        """An earlier version."""
        body = asked.body(await request.read())
        number = _of(body, "version", int, None)
        if not 0 <= number < 1 << 53:
            raise RequestError(f"version {number} is out of range", hint="0 or more")
        dry_run, asking = _flag(body, "dry_run"), current()
        asking.settled = dry_run
        asking.target = f"queues, version {number}"
        return as_json(
            await self.verbs.roll_back_queues(
                number, by=asking.name(_of(body, "user", str, "")), drain=_flag(body, "drain"), dry_run=dry_run
            )
        )


def _of(body: JSON, key: str, kind: type[T], default: T | None) -> T:
    """A key of the body, of this type."""
    value = body.get(key, default)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise RequestError(f"{key} must be {'a text' if kind is str else 'a whole number'}")


def _flag(body: JSON, key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise RequestError(f"{key} must be true or false")
    return value
