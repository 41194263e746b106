"""What goes on until something happens: waiting for a job, following the journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from functools import partial

from sqlalchemy import func, select

from ..jobs.job import FINAL, State
from .service import Service
from .store.tables import EventRow
from .views import JSON, job_view

KEEP_ALIVE = 15.0
"""Seconds between two signs of life on a silent stream of events."""


@contextmanager
def changes(service: Service, job: int | None = None) -> Iterator[asyncio.Event]:
    """An event that is set whenever something of the job (None: of any) was committed."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def listener(jobs: frozenset[int]) -> None:
        if jobs and (job is None or job in jobs):
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:
                return  # the server is stopping

    with service.controller.changes.listening(listener):
        yield changed


async def pause(changed: asyncio.Event, within: float) -> bool:
    """Until something changes, or some seconds. Whether something did."""
    try:
        await asyncio.wait_for(changed.wait(), within)
    except TimeoutError:
        return False
    changed.clear()
    return True


async def wait(service: Service, reference: str, *, running: bool, within: float, user: str | None = None) -> JSON:
    """Until a job is final (or runs), for `within` seconds at most: {"met", "job"}."""
    job = await service.find(reference, user)
    end = asyncio.get_running_loop().time() + within
    with changes(service, job.id) as changed:
        while True:
            job = await service.find(str(job.id))
            met = job.state is State.RUNNING if running else job.state in FINAL
            left = end - asyncio.get_running_loop().time()
            if met or job.state in FINAL or left <= 0:
                return {"met": met, "job": job_view(job, service.now())}
            await pause(changed, left)


async def events(service: Service, *, after: int | None) -> AsyncGenerator[JSON | None]:
    """The journal from a sequence number on (None: from now), without end. None now and then: a sign of life."""
    with changes(service) as changed:
        if after is None:
            after = await service.read(lambda connection: connection.scalar(select(func.max(EventRow.seq)))) or 0
        while True:
            read = partial(service.all_events, after=after, limit=500)
            found = await service.tail.after(after, service.controller.changes.commits, read)
            for event in found:
                yield event
                after = event["seq"]
            if not found and not await pause(changed, KEEP_ALIVE):
                yield None
