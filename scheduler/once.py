"""Submissions that are sent again because nobody heard the answer to them: they are queued once.

The client gives each submission a key (a ULID of its own making). It becomes the ULID of the first of its jobs, the
next number that of the second, and so on. So the key is written in the same row and the same transaction as the job,
and the database itself, whichever control plane writes to it, cannot hold a submission twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import Connection, select

from ..jobs.errors import ConflictError
from ..jobs.job import Job
from ..jobs.ulid import following, ulid_of
from .desk import Desk, RequestError
from .store import queries
from .store.queries import JobFilter
from .store.tables import JobRow
from .views import JSON

HEADER = "Idempotency-Key"
LONGEST = 128
"""Characters of a key."""


class Once:
    """Answers a submission's key with what was queued under it. Used by the server's event loop alone."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._going: dict[str, asyncio.Task[list[JSON]]] = {}

    async def submit(
        self, key: str, jobs: Sequence[Job], submit: Callable[[], Awaitable[list[JSON]]], view: Callable[..., JSON]
    ) -> list[JSON]:
        """Queue these jobs unless they are under this key already.

        Args:
            key: as the client gave it.
            jobs: they are given their ULIDs.
            submit: queues them.
            view: makes the answer of a job that was queued before.

        Raises:
            RequestError: the key is none.
            ConflictError: other jobs were submitted under this key.
        """
        if not 0 < len(key) <= LONGEST or not key.isprintable():
            raise RequestError(f"{HEADER} must be 1 to {LONGEST} characters", hint="a ULID of your own making")
        uids = following(ulid_of(key), len(jobs) + 1)
        for job, uid in zip(jobs, uids, strict=False):
            job.uid = uid
        while (going := self._going.get(uids[0])) is not None:
            await asyncio.wait([going])
        # A task of its own: a client that goes away does not undo what may be on disk the next moment.
        task = asyncio.ensure_future(self._submit(uids, jobs, submit, view))
        self._going[uids[0]] = task
        task.add_done_callback(lambda _task: self._going.pop(uids[0], None))
        return await asyncio.shield(task)

    async def _submit(
        self,
        uids: Sequence[str],
        jobs: Sequence[Job],
        submit: Callable[[], Awaitable[list[JSON]]],
        view: Callable[..., JSON],
    ) -> list[JSON]:
        def ask(connection: Connection) -> tuple[list[tuple[int, str, str | None]], list[queries.JobInfo]]:
            query = select(JobRow.id, JobRow.user, JobRow.spec).where(JobRow.uid >= uids[0], JobRow.uid <= uids[-1])
            rows = [(row[0], row[1], row[2]) for row in connection.execute(query.order_by(JobRow.uid))]
            # Tasks of arrays are not looked for: they are numbered later, and have ULIDs of their own.
            ids = {number for number, _, _ in rows}
            return rows, queries.list_jobs(connection, JobFilter(ids=frozenset(ids), descending=False)) if ids else []

        rows, found = await self._desk.read(ask)
        if not rows:
            return await submit()
        wanted = [(job.user, None if job.spec is None else job.spec.to_store()) for job in jobs]
        if [row[1:] for row in rows] != wanted:
            raise ConflictError(
                f"other jobs were submitted under this {HEADER}: {', '.join(str(row[0]) for row in rows[:5])}",
                hint="each submission has a key of its own",
            )
        ids = {row[0] for row in rows}
        return [view(job) for job in found if job.id in ids]
