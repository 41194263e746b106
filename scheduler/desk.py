"""What every verb leans on: the database read in threads, the engine asked between its turns, listings of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from ..jobs.errors import GpuschedError, NotFoundError
from ..jobs.job import Job
from ..policies.plan import Lane, Line, Why
from ..policies.reasons import numbers
from .controller import Controller
from .engine import Engine
from .explain import DEEP
from .settings import ArchivePolicy
from .store import queries
from .store.archive import Archive
from .store.queries import JobFilter, JobInfo
from .store.sql import SqlStore
from .tail import Tail
from .views import JSON, job_view

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that an answer from the database waits for what only the engine knows; then it goes without."""
MOST_LISTED = 10_000


class RequestError(GpuschedError):
    """What was asked is malformed: a wrong key, value or form."""

    code = "bad_request"
    exit_code = 2


@dataclass(slots=True)
class Picture:
    """What the engine knows and the database does not, at one moment.

    Attributes:
        whys: the reason for which the jobs of a line wait. lane: whose turn a job waits for.
        positions: by job id, unless the queue is very long.
        free: by node: (GPUs, thousandths of CPUs, bytes).
        commits: how many there had been.
        closed_to: reasons of jobs that may not use all nodes just now, since those close soon, by job id.
    """

    commits: int
    whys: dict[Line, Why]
    positions: dict[int, int]
    free: dict[str, tuple[float, int, int]]
    lane: Callable[[Any], Lane] | None = None
    closed_to: dict[int, Why] = field(default_factory=dict)

    def why(self, job: JobInfo | Job) -> Why | None:
        """Why a job waits; None = it does not, or nobody knows yet."""
        if job.id in self.closed_to:
            return self.closed_to[job.id]
        return self.whys.get(Line(() if self.lane is None else self.lane(job), job.shape))


def take_picture(engine: Engine, commits: int) -> Picture:
    """A copy, for other threads to look at."""
    queue, pool = engine.queue, engine.pool
    # The journaled reason, with the numbers of this moment.
    whys = {
        group.line: numbers(group.why.token, group.shape, group.needs, pool, group.why.behind)
        for group in queue.active
        if group.why is not None
    }
    closed_to = {
        job.id: whys[group.line]
        for group in queue.active
        if group.shape.closing and group.line in whys
        for _, job in group.waiting()
    }
    positions = {}
    if len(queue) <= DEEP:
        positions = {job.id: place for place, job in enumerate(queue.in_order(), 1)}
    free = {}
    for number, node in enumerate(pool.nodes):
        if pool.present >> number & 1:
            shared = sum(pool.open[number].values()) / 1000
            free[node.name] = (pool.free[number] + shared, pool.cpu[number], pool.memory[number])
    return Picture(commits, whys, positions, free, queue.lane, closed_to)


class Desk:
    """Where questions are asked.

    Args:
        controller: the loop.
        store: the database that it writes to.

    Attributes:
        facts: what the process says of itself, for `status` and for who waits.
        limits: how much is taken in.
        tail: the end of the journal, for all who follow it.
        archive, archiving: history in files, and when it goes there.
    """

    def __init__(self, controller: Controller, store: SqlStore) -> None:
        self.controller = controller
        self.store = store
        self.facts: Callable[[], JSON] = dict
        self._inbox = controller.inbox
        self._picture: Picture | None = None
        self.limits = controller.changes.census.limits
        self.archive = Archive(store, Path("archive"))
        self.archiving = ArchivePolicy()
        self.tail = Tail()

    def now(self) -> float:
        """UTC seconds."""
        return self.controller.clock.now()

    async def read(self, ask: Callable[[Connection], T]) -> T:
        """Ask the database, in a thread."""

        def asking() -> T:
            with self.store.reader() as connection:
                return ask(connection)

        return await asyncio.to_thread(asking)

    async def find(self, reference: str, user: str | None = None) -> JobInfo:
        """One job by its id, ULID, name or `@`.

        Raises:
            NotFoundError: there is none, or more than one is meant.
        """
        return await self.read_job(reference, lambda connection: queries.find_job(connection, reference, user=user))

    async def read_job(self, reference: str, ask: Callable[[Connection], T]) -> T:
        """As `read`, about one job: where the tables do not have it, its archived rows are asked.

        Raises:
            NotFoundError: it is in neither.
            StoreError: it is archived, and its files are not here.
        """
        try:
            return await self.read(ask)
        except NotFoundError as error:
            missing = error

        def asking() -> T:
            number = self.archive.find(reference)
            if number is None:
                raise missing
            with self.archive.reading(number) as connection:
                return ask(connection)

        return await asyncio.to_thread(asking)

    async def read_all(self, since: float, until: float | None, ask: Callable[[list[Connection]], T]) -> T:
        """Ask the database, and beside it what is archived of jobs that ended since then, in a thread."""

        def asking() -> T:
            with self.archive.reading_since(since, until) as connections:
                return ask(connections)

        return await asyncio.to_thread(asking)

    async def ask(self, ask: Callable[[Engine], T]) -> T:
        """Ask the engine, between two of its turns."""
        return await asyncio.wrap_future(self._inbox.question(ask))

    async def picture(self) -> Picture:
        """What the engine knows now; empty when it does not answer in time (a locked database, say)."""
        commits = self.controller.changes.commits
        if self._picture is not None and self._picture.commits == commits:
            return self._picture
        try:
            asked = self._inbox.question(lambda engine: take_picture(engine, commits))
            self._picture = await asyncio.wait_for(asyncio.wrap_future(asked), PATIENCE)
        except (TimeoutError, GpuschedError):
            return Picture(commits, {}, {}, {})
        return self._picture

    async def jobs(self, wanted: JobFilter) -> tuple[list[JSON], int | None]:
        """Jobs, and the id to go on after (None = that was all)."""
        most = min(wanted.limit or MOST_LISTED, MOST_LISTED)
        found = await self.read(lambda connection: queries.list_jobs(connection, replace(wanted, limit=most + 1)))
        picture = await self.picture()
        now = self.now()
        rows = [
            job_view(job, now, why=picture.why(job), position=picture.positions.get(job.id)) for job in found[:most]
        ]
        return rows, found[most - 1].id if len(found) > most else None
