"""The output of jobs: read from where it lies, followed while they run, with a word on what is waited for."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from ..jobs.errors import GpuschedError, NotFoundError
from ..jobs.job import FINAL, WAITING, State
from .service import Service
from .store import queries
from .store.queries import AttemptInfo, JobInfo
from .streams import changes, pause
from .views import JSON, error_view, waiting_reason

CHUNK = 256 << 10
"""Bytes of output in one line of an answer, at most."""
LOOK_EVERY = 0.15
"""Seconds between two looks for new output of a running job."""
SAY_EVERY = 4.0
"""Seconds of silence after which a follower is told what is waited for."""


class LogSource(Protocol):
    """Where output comes from: `RayBackend`."""

    def read_log(
        self, job_id: int, attempt: int, rank: int, offset: int, limit: int = 1 << 20, *, node: str = ""
    ) -> Future[tuple[bytes, int]]:
        """(bytes from an offset, negative counts from the end; size of the whole log)."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which output.

    Attributes:
        rank: None = of all ranks. attempt: None = the latest.
        offset: first byte. tail: only so many last lines; None = all.
        follow: go on until the job is final, into later attempts if none was named.
    """

    rank: int | None = 0
    attempt: int | None = None
    offset: int = 0
    tail: int | None = None
    follow: bool = False


class Reader:
    """The output of one rank of one attempt, as whole characters."""

    def __init__(self, source: LogSource, job: int, attempt: int, rank: int, node: str) -> None:
        self._source = source
        self._job, self._attempt, self.rank, self._node = job, attempt, rank, node
        self._offset: int | None = None  # None: not looked at yet
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def read(self, wanted: Wanted) -> AsyncGenerator[JSON]:
        """What came since the last read; the first one begins where it is wanted.

        Raises:
            GpuschedError: the log cannot be read, or is not there (yet).
        """
        if self._offset is None:
            self._offset = wanted.offset if wanted.tail is None else await self._tail(wanted.tail)
        while True:
            at = self._offset
            data, size = await self._bytes(at, CHUNK)
            self._offset = at + len(data)
            text = self._decoder.decode(data)
            if text:
                yield {"rank": self.rank, "offset": at, "text": text}
            if not data or self._offset >= size:
                return

    async def _tail(self, lines: int) -> int:
        """Where the last so many lines begin."""
        reach = 64 << 10
        while True:
            data, size = await self._bytes(-reach, reach)
            kept = data.splitlines(keepends=True)
            if len(kept) > lines or len(data) == size:
                return size - sum(map(len, kept[-lines:])) if lines else size
            reach *= 4

    async def _bytes(self, offset: int, limit: int) -> tuple[bytes, int]:
        asked = self._source.read_log(self._job, self._attempt, self.rank, offset, limit, node=self._node)
        return await asyncio.wrap_future(asked)


async def logs(
    service: Service, source: LogSource, reference: str, wanted: Wanted, *, user: str | None = None
) -> AsyncGenerator[JSON]:
    """A job's output as the lines that docs/api.md describes.

    Raises:
        NotFoundError: no such job, attempt or rank, or (without `follow`) it has not run yet.
    """
    job = await service.find(reference, user)
    with changes(service, job.id) as changed:
        number = wanted.attempt
        while True:
            attempt: AttemptInfo | None = None
            async for line in _until_placed(service, job.id, number, changed, follow=wanted.follow):
                if isinstance(line, AttemptInfo):
                    attempt = line
                else:
                    yield line
            if attempt is None:
                break
            if attempt.attempt > 1:
                yield {"attempt": attempt.attempt}
            async for piece in _attempt(service, source, attempt, wanted, changed):
                yield piece
            job = await service.find(str(job.id))
            if wanted.attempt is not None or not wanted.follow or job.state in FINAL:
                break
            number = attempt.attempt + 1
    job = await service.find(str(job.id))
    yield {"end": job.state.value, "exit_code": job.exit_code, "message": job.reason}


async def _until_placed(
    service: Service, job_id: int, number: int | None, changed: asyncio.Event, *, follow: bool
) -> AsyncGenerator[JSON | AttemptInfo]:
    """What is waited for, then the attempt (`number` None: the latest); no attempt if there will be none."""
    while True:
        attempts = await service.read(lambda connection: queries.job_attempts(connection, job_id))
        found = [one for one in attempts if number is None or one.attempt == number]
        if found:
            yield found[-1]
            return
        job = await service.find(str(job_id))
        if job.state in FINAL and number is not None and not follow:
            raise NotFoundError(
                f"job {job_id} has had {len(attempts)} attempt{'s' * (len(attempts) != 1)}, not {number}"
            )
        if job.state in FINAL:
            return
        if not follow:
            raise NotFoundError(f"job {job_id} has no output yet: it is {job.state}", hint="-f waits for it")
        yield await _word(service, job, 0.0)
        await pause(changed, SAY_EVERY)


async def _attempt(
    service: Service, source: LogSource, attempt: AttemptInfo, wanted: Wanted, changed: asyncio.Event
) -> AsyncGenerator[JSON]:
    """The output of one attempt; when followed, until it ended."""
    job_id, number, pieces = attempt.job, attempt.attempt, attempt.pieces
    if wanted.rank is not None and wanted.rank >= len(pieces):
        raise NotFoundError(f"job {job_id} has ranks 0 to {len(pieces) - 1}, not {wanted.rank}")
    ranks = range(len(pieces)) if wanted.rank is None else (wanted.rank,)
    readers = [Reader(source, job_id, number, rank, pieces[rank].node) for rank in ranks]
    loop = asyncio.get_running_loop()
    heard = spoken = asked = loop.time()
    job = await service.find(str(job_id))
    while True:
        # Asked before the output is read: what an attempt that is over wrote is all there.
        over = job.attempt != number or job.state in FINAL | WAITING
        trouble: GpuschedError | None = None
        for reader in readers:
            try:
                async for piece in reader.read(wanted):
                    heard = spoken = loop.time()
                    yield piece
            except GpuschedError as error:
                trouble = error
        if over or not wanted.follow:
            if trouble is not None:
                yield {"error": error_view(trouble)}
            return
        if loop.time() - spoken >= SAY_EVERY:
            spoken = loop.time()
            yield await _word(service, job, spoken - heard)
        if await pause(changed, LOOK_EVERY) or loop.time() - asked > SAY_EVERY:
            asked = loop.time()
            job = await service.find(str(job_id))


async def _word(service: Service, job: JobInfo, silent: float) -> JSON:
    """What a job that says nothing is waiting for, for people who watch. `silent`: seconds without output."""
    if job.state is State.STARTING:
        words = f"starting on {', '.join(dict.fromkeys(piece.node for piece in job.pieces))}"
    elif job.state not in WAITING:
        words = f"no output for {silent:.0f} s"
    else:
        picture = await service.picture()
        position = picture.positions.get(job.id)
        _, words = waiting_reason(job, picture.why(job), service.now())
        if not picture.free:
            progress = service.facts().get("progress") or ["the cluster is not connected yet"]
            words = progress[-1]
        if position is not None:
            words = f"position {position}: {words}"
    return {"state": job.state.value, "message": words, "silent": round(silent, 1)}
