"""What each route does: take the request apart, call the verb, put the answer together."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from aiohttp import web

from ... import __version__
from ...jobs.errors import GpuschedError
from ...jobs.events import Kind
from ...jobs.traces.export import write_export
from ..access.asking import current
from ..access.model import Role
from ..desk import RequestError
from ..job_output import LogSource, Wanted, logs
from ..once import HEADER
from ..service import Service
from ..snapshots import ANNOTATION
from ..store.usage import export_jobs
from ..streams import events, wait
from ..views import JSON, error_view
from . import asked
from .access_handlers import AccessApi
from .answers import as_json
from .archive_handlers import ArchiveApi
from .connection import piece
from .gate import still_allowed
from .node_handlers import NodeApi
from .queue_handlers import QueueApi
from .routes import Parameter, Route, openapi
from .secret_handlers import SecretApi
from .traffic import send

MOST_WAIT = 60.0
"""Seconds that one `wait` is held open; who wants more asks again."""
LARGE = 64 << 10
"""Bytes of a submission from which on it is read in a thread, so that the others need not wait."""
MOST_SNAPSHOT = 1 << 30
"""Bytes of a packed workdir."""

_USER = Parameter("user", "string", "whose last job @ means")


class Api:
    """The handlers.

    Args:
        service: the verbs.
        source: where output is read.
        shutdown: called when somebody asks the control plane to stop.
    """

    def __init__(self, service: Service, source: LogSource, shutdown: Callable[[], None]) -> None:
        self.service = service
        self.source = source
        self._shutdown = shutdown
        self._nodes = NodeApi(service)
        self._archive = ArchiveApi(service)
        self._queues = QueueApi(service)
        self._secrets = SecretApi(service.store)
        self._people = AccessApi(service.access)

    def routes(self) -> list[Route]:
        """The whole API on one screen."""
        text, number, truth = "string", "integer", "boolean"
        listed = [
            Parameter("state", text, "states, with commas"),
            Parameter("user", text, "whose"),
            Parameter("queue", text, "in which queue"),
            Parameter("name", text, "so called"),
            Parameter("array", number, "tasks of this array"),
            Parameter("tasks", truth, "tasks of arrays too, not only the arrays"),
            Parameter("label", text, "key=value; may repeat"),
            Parameter("since", text, "submitted then or later"),
            Parameter("until", text, "submitted then or before"),
            Parameter("all", truth, "finished ones too"),
            Parameter("sort", text, "by what; the id if not said"),
            Parameter("newest", truth, "from the newest down"),
            Parameter("limit", number, "at most so many"),
            Parameter("after", number, "go on after this id, the last answer's `next`"),
        ]
        output = [
            Parameter("rank", text, "a rank, or `all`; 0 if not said"),
            Parameter("attempt", number, "the latest if not said"),
            Parameter("offset", number, "first byte"),
            Parameter("tail", number, "only so many last lines"),
            Parameter("follow", truth, "go on until the job is final"),
            _USER,
        ]
        journal = [Parameter("after", number, "events after this one"), Parameter("limit", number, "at most so many")]
        by = {"user": "who asks"}
        changes = [
            ("cancel", self.service.cancel, "End a job, or take it out of the queue."),
            ("hold", self.service.hold, "Keep a waiting job from starting."),
            ("release", self.service.release, "Let a held job wait in line again."),
            ("requeue", self.service.requeue, "Stop a running job and put it back in the queue."),
        ]
        submission = {
            "jobs": "list of {spec, source, secrets, snapshot}",
            "documents": "list of {text, file}: YAML",
            "hold": "keep them from starting",
            "queue_anyway": "also what can never run on this cluster",
            "dry_run": "queue nothing, say what would become of them",
        }
        lines = "application/x-ndjson"
        return [
            Route("POST", "/v1/jobs", self.submit, "Queue jobs, all or none.", takes=submission,
                  gives={201: "they are on disk", 200: "verdicts of a dry run"}),
            Route("GET", "/v1/jobs", self.jobs, "List jobs; the unfinished ones if nothing else is said.", listed),
            Route("GET", "/v1/jobs/{ref}", self.describe, "Everything that is known of a job.", [_USER]),
            Route("GET", "/v1/jobs/{ref}/events", self.events, "A job's journal.", [*journal, _USER]),
            Route("GET", "/v1/jobs/{ref}/explain", self.explain, "Why a job is where it is.", [_USER]),
            Route("GET", "/v1/jobs/{ref}/logs", self.logs, "A job's output.", output, media=lines),
            Route("GET", "/v1/jobs/{ref}/wait", self.wait, "Hold until a job is done, or runs.",
                  [Parameter("for", text, "done or running"), Parameter("timeout", "number", "seconds, to 60"), _USER]),
            *[
                Route("POST", f"/v1/jobs/{{ref}}/{verb}", self._changing(change), words, [_USER], takes=by)
                for verb, change, words in changes
            ],
            Route("PUT", "/v1/snapshots/{sha256}", self.put_snapshot, "Bring a packed workdir.",
                  gives={201: "taken in", 200: "known already"}),
            Route("HEAD", "/v1/snapshots/{sha256}", self.head_snapshot, "Whether a workdir is here."),
            Route("GET", "/v1/events", self.all_events, "Every event; followed, as server-sent events.",
                  [*journal, Parameter("follow", truth, "go on for ever"),
                   Parameter("cluster", truth, "also what is about nodes and control planes (job 0)")],
                  media="text/event-stream"),
            *self._nodes.routes(),
            Route("POST", "/v1/policy", self.use_policy, "Have another policy decide.",
                  takes={"name": "as on the command line"}, gives={200: "name, version, wanted, error"}),
            *self._queues.routes(),
            *self._archive.routes(),
            *self._secrets.routes(),
            *self._people.routes(),
            Route("GET", "/v1/usage", self.usage, "GPU-hours held and used.",
                  [Parameter("by", text, "user, queue, job or gpu-type"), Parameter("since", text, "from when on"),
                   Parameter("until", text, "until when")]),
            Route("GET", "/v1/top", self.top, "Nodes, GPUs and jobs as they are now."),
            Route("GET", "/v1/export", self.export, "Finished jobs as a trace.",
                  [Parameter("since", text, "from when on"), Parameter("until", text, "until when")], media=lines),
            Route("GET", "/v1/status", self.status, "How the control plane is."),
            Route("POST", "/v1/shutdown", self.shutdown, "Stop the control plane; jobs go on.", takes={}),
            Route("GET", "/v1/openapi.json", self.openapi, "This, for programs."),
        ]  # fmt: skip

    # Jobs ---------------------------------------------------------------------------------------------------------

    async def submit(self, request: web.Request) -> web.Response:
        """Queue jobs."""
        text = await request.read()
        wanted = await asyncio.to_thread(asked.Submission, text) if len(text) > LARGE else asked.Submission(text)
        if wanted.dry_run:
            current().settled = True
            return as_json({"verdicts": await self.service.dry_run(wanted.requests)})
        key = request.headers.get(HEADER, "")
        jobs = await self.service.submit(wanted.requests, hold=wanted.hold, queue_anyway=wanted.queue_anyway, key=key)
        return as_json({"jobs": jobs}, status=201)

    async def jobs(self, request: web.Request) -> web.Response:
        """List."""
        rows, after = await self.service.jobs(asked.job_filter(request))
        return as_json({"jobs": rows, "next": after})

    async def describe(self, request: web.Request) -> web.Response:
        """One job."""
        view = await self.service.describe(*_job(request))
        caller = current().caller
        if caller.user != view["user"] and not caller.role.covers(Role.OPERATOR):
            view = without_private(view)
        return as_json(view)

    async def events(self, request: web.Request) -> web.Response:
        """Its journal."""
        reference, user = _job(request)
        after, limit = asked.whole(request.query, "after", 0), asked.whole(request.query, "limit", 1000, least=1)
        return as_json({"events": await self.service.events(reference, after=after or 0, limit=limit or 1, user=user)})

    async def explain(self, request: web.Request) -> web.Response:
        """Why it is where it is."""
        return as_json(await self.service.explain(*_job(request)))

    async def wait(self, request: web.Request) -> web.Response:
        """Hold until it is done or runs."""
        reference, user = _job(request)
        until = request.query.get("for", "done")
        if until not in {"done", "running"}:
            raise RequestError(f"for={until} is not known", hint="done or running")
        timeout = asked.duration(request.query, "timeout", 30.0, MOST_WAIT)
        return as_json(await wait(self.service, reference, running=until == "running", within=timeout, user=user))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Its output, line by line as it comes."""
        reference, user = _job(request)
        rank = request.query.get("rank", "0")
        wanted = Wanted(
            rank=None if rank == "all" else asked.whole(request.query, "rank", 0),
            attempt=asked.whole(request.query, "attempt", least=1),
            offset=asked.whole(request.query, "offset", 0) or 0,
            tail=asked.whole(request.query, "tail"),
            follow=asked.flag(request.query, "follow"),
        )
        return await _stream(request, logs(self.service, self.source, reference, wanted, user=user), self.service)

    def _changing(self, change: Callable[..., Any]) -> Callable[[web.Request], Any]:
        async def handler(request: web.Request) -> web.Response:
            reference, user = _job(request)
            by = asked.body(await request.read()).get("user", "")
            if not isinstance(by, str):
                raise RequestError("user must be a text")
            return as_json({"job": await change(reference, user, by=current().name(by))})

        return handler

    # Snapshots ----------------------------------------------------------------------------------------------------

    async def put_snapshot(self, request: web.Request) -> web.Response:
        """Take in a workdir, as it streams in."""
        name = request.match_info["sha256"]
        if await asyncio.to_thread(self.service.snapshots.has, name):
            return as_json({"known": True})
        size = 0
        with self.service.snapshots.receive(name) as incoming:
            while block := await piece(request.content):
                size += len(block)
                if size > MOST_SNAPSHOT:
                    raise web.HTTPRequestEntityTooLarge(MOST_SNAPSHOT, size, text="1 GiB")
                await asyncio.to_thread(incoming.write, block)
            await asyncio.to_thread(incoming.commit)
        return as_json({"known": False}, status=201)

    async def head_snapshot(self, request: web.Request) -> web.Response:
        """Whether it is here."""
        known = await asyncio.to_thread(self.service.snapshots.has, request.match_info["sha256"])
        return web.Response(status=200 if known else 404)

    # Cluster, figures, control ------------------------------------------------------------------------------------

    async def all_events(self, request: web.Request) -> web.StreamResponse:
        """The journal."""
        after, cluster = asked.whole(request.query, "after"), asked.flag(request.query, "cluster")
        if not asked.flag(request.query, "follow"):
            limit = asked.whole(request.query, "limit", 1000, least=1)
            found = await self.service.all_events(after=after or 0, limit=limit or 1)
            return as_json({"events": [event for event in found if _shown(event, cluster=cluster)]})
        resumed = request.headers.get("Last-Event-ID", "")
        if resumed.isascii() and resumed.isdigit() and len(resumed) < 16:  # noqa: PLR2004 - digits of what a database takes
            after = int(resumed)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        async with aclosing(events(self.service, after=after)) as coming:
            async for event in coming:
                try:
                    await still_allowed(self.service)
                except GpuschedError:
                    break
                if event is None:
                    await send(response, b": alive\n\n", self.service.limits.stall)
                    continue
                if not _shown(event, cluster=cluster):
                    continue
                text = f"id: {event['seq']}\nevent: {event['kind']}\ndata: {json.dumps(event)}\n\n"
                await send(response, text.encode(), self.service.limits.stall)
        return response

    async def use_policy(self, request: web.Request) -> web.Response:
        """Another policy."""
        name = asked.body(await request.read()).get("name")
        if not isinstance(name, str) or not name:
            raise RequestError("name must be a policy's name")
        return as_json({"policy": await self.service.use_policy(name)})

    async def usage(self, request: web.Request) -> web.Response:
        """GPU-hours."""
        since = asked.time(request.query, "since")
        until = asked.time(request.query, "until")
        return as_json(await self.service.usage(request.query.get("by", "user"), since or 0.0, until))

    async def top(self, _request: web.Request) -> web.Response:
        """The live picture."""
        return as_json(await self.service.top())

    async def export(self, request: web.Request) -> web.StreamResponse:
        """The history as a trace."""
        since, until = asked.time(request.query, "since") or 0.0, asked.time(request.query, "until")
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            await self.service.read_all(
                since,
                until,
                lambda all_: write_export(file, export_jobs(*all_, since=since, until=until), style="jsonl"),
            )
            file.seek(0)
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            while block := await asyncio.to_thread(file.read, 1 << 18):
                await send(response, block.encode(), self.service.limits.stall)
        return response

    async def status(self, _request: web.Request) -> web.Response:
        """How it is."""
        return as_json(await self.service.status())

    async def shutdown(self, _request: web.Request) -> web.Response:
        """Stop after this answer."""
        await self.service.access.note()
        asyncio.get_running_loop().call_later(0.05, self._shutdown)
        return as_json({"stopping": True})

    async def openapi(self, _request: web.Request) -> web.Response:
        """The API for programs."""
        return as_json(openapi(self.routes(), __version__))


def _job(request: web.Request) -> tuple[str, str | None]:
    return request.match_info["ref"], request.query.get("user")


def without_private(view: JSON) -> JSON:
    """A job as others see it who are no operators: not its script, its variables or where its code is."""
    view = {**view, "source": None, "labels": {key: view["labels"][key] for key in view["labels"] if key != ANNOTATION}}
    if view["spec"] is not None:
        spec = {key: value for key, value in view["spec"].items() if key not in {"annotations", "run", "setup"}}
        view["spec"] = spec | {"env": dict.fromkeys(spec.get("env") or {}, "***")}
    return view


def _shown(event: JSON, *, cluster: bool) -> bool:
    """Whether a line of the journal is wanted. Who follows jobs knows no job 0; the trail has a route of its own."""
    return bool(event["job"] or (cluster and event["kind"] != Kind.AUDIT))


async def _stream(request: web.Request, lines: AsyncGenerator[JSON], service: Service) -> web.StreamResponse:
    """JSON lines as they come. An error before the first one is an ordinary answer, a later one is the last line."""
    response: web.StreamResponse | None = None
    try:
        async with aclosing(lines):
            async for line in lines:
                await still_allowed(service)
                if response is None:
                    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
                    await response.prepare(request)
                await send(response, json.dumps(line).encode() + b"\n", service.limits.stall)
    except GpuschedError as error:
        if response is None:
            raise
        await response.write(json.dumps({"error": error_view(error)}).encode() + b"\n")
    assert response is not None, "every stream has a last line"
    await response.write_eof()
    return response
