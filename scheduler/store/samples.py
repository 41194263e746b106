"""What the agents see, kept: raw for hours, rolled up to minutes for days and to hours for good.

Every row says which attempt held the GPU. Where nothing could be measured the figures are NULL; none is made up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, delete, func, select

from .bulk import Bulk, Row, insert_bulk, table_of
from .rollup import CHUNK, HOUR, MINUTE, Rollups
from .rows import encode, text
from .sql import SqlStore
from .tables import (
    GpuRollupRow,
    GpuRow,
    GpuSampleRow,
    HostSampleRow,
    JobRollupRow,
    JobSampleRow,
    MetaRow,
)

Sample = Mapping[str, Any]
"""What an agent sends: {"time", "node": name, "gpus": [{"index", "uuid", "name", "utilization" (0 to 1),
"memory_used", "memory_total", "power", "temperature", "processes"}], "jobs": [{"job", "attempt", "cpu", "memory",
"processes"}], "host": {...}}. An empty `gpus` means that there was nothing to measure GPUs by."""

Holders = Mapping[tuple[str, int], tuple[int, int]]
"""(node's name, GPU index) to (job, attempt) that holds it."""

LATENESS = 15.0
"""Seconds after its end until a minute is rolled up: agents' clocks differ, and news takes its time."""


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long samples are kept, in seconds; None = for ever. Each level outlives the one it is made from."""

    raw: float | None = 6 * 3600.0
    minutes: float | None = 7 * 86400.0
    hours: float | None = None

    def __post_init__(self) -> None:
        lasts = [float("inf") if kept is None else kept for kept in (self.raw, self.minutes, self.hours)]
        assert lasts[0] >= 2 * HOUR, "raw samples are needed until their minute is rolled up, late ones included"
        assert lasts[0] + HOUR <= lasts[1] or lasts[1] == float("inf"), "minutes outlive the samples under them"
        assert lasts[1] + HOUR <= lasts[2] or lasts[2] == float("inf"), "hours outlive the minutes under them"


class Added(NamedTuple):
    """What became of one call's samples.

    Attributes:
        gpus, jobs: rows handed to the database.
        unknown: samples left out because their node was never seen.
        late: samples left out because what they would be rolled up with is deleted already.
    """

    gpus: int
    jobs: int
    unknown: int
    late: int


class SampleStore:
    """Takes samples in and rolls them up. One thread uses it, at its own pace, beside the engine's.

    Args:
        store: where to.
        interval: seconds between two samples of an agent: what the first of a node stands for. Any other stands for the
            time since the one before, at most three intervals.
        keep: for how long.
    """

    def __init__(self, store: SqlStore, *, interval: float = 5.0, keep: Retention | None = None) -> None:
        self._store = store
        self._database = store.database
        self._interval = interval
        self._keep = keep or Retention()
        dialect = self._database.writer.dialect
        self._gpu_rows = insert_bulk(dialect, GpuSampleRow, _columns(GpuSampleRow), change=())
        self._job_rows = insert_bulk(dialect, JobSampleRow, _columns(JobSampleRow), change=())
        self._hosts = insert_bulk(dialect, HostSampleRow, _columns(HostSampleRow), change=("time", "data"))
        self._facts = insert_bulk(dialect, GpuRow, _columns(GpuRow), change=_columns(GpuRow)[2:])
        self._marks = insert_bulk(dialect, MetaRow, ("key", "value"), change=("value",))
        self._rollups = Rollups(dialect)
        self._last: dict[int, float] = {}  # time of the latest sample of each node
        self._known: dict[tuple[int, int], Row] = {}  # what was written of each GPU
        with self._database.read() as connection:
            self._rolled = {period: int(_mark(connection, f"rolled:{period}")) for period in (MINUTE, HOUR)}
            self._cut = _mark(connection, "cut:raw")

    # Take in ------------------------------------------------------------------------------------------------------

    def add(self, samples: Iterable[Sample], holders: Holders) -> Added:
        """Write samples, each GPU under the attempt that holds it; a sample that is there already changes nothing.

        Raises:
            StoreError: the database cannot be written; some of the samples may be there, the same call may be repeated.
        """
        held: dict[str, list[tuple[int, tuple[int, int]]]] = {}
        for (name, gpu), holder in holders.items():
            held.setdefault(name, []).append((gpu, holder))
        gpus: list[Row] = []
        jobs: list[Row] = []
        hosts: dict[int, Row] = {}
        facts: dict[tuple[int, int], Row] = {}
        unknown = late = 0
        for sample in samples:
            node = self._store.node_number(sample["node"])
            time = float(sample["time"])
            if node is None:
                unknown += 1
                continue
            if time < self._cut:
                late += 1
                continue
            seconds = self._seconds(node, time)
            here = dict(held.get(sample["node"], ()))
            figures = sample.get("gpus") or [{"index": gpu} for gpu in sorted(here)]
            gpus += [_gpu_row(time, node, seconds, gpu, here) for gpu in figures]
            jobs += [_job_row(time, node, seconds, job) for job in sample.get("jobs") or ()]
            for gpu in sample.get("gpus") or ():
                fact = (
                    node,
                    gpu["index"],
                    text(gpu.get("uuid") or ""),
                    text(gpu.get("name") or ""),
                    gpu.get("memory_total"),
                )
                if self._known.get(fact[:2]) != fact:
                    facts[fact[:2]] = fact
            if sample.get("host") is not None and time >= self._last[node]:
                hosts[node] = (node, time, encode(sample["host"]))
        self._write(self._gpu_rows, gpus)
        self._write(self._job_rows, jobs)
        with self._store.writer() as connection:
            self._hosts.run(connection, list(hosts.values()))
            self._facts.run(connection, list(facts.values()))
        self._known |= facts
        return Added(len(gpus), len(jobs), unknown, late)

    def _seconds(self, node: int, time: float) -> float:
        """The time that a sample stands for: since the one before, capped."""
        before = self._last.get(node, -math.inf)
        self._last[node] = max(time, before)
        if time <= before or before == -math.inf:
            return self._interval  # the first, or one that comes late
        return min(time - before, 3 * self._interval)

    def _write(self, bulk: Bulk, rows: list[Row]) -> None:
        """In chunks; what comes late for its minute has that minute, and its hour, made anew with it."""
        for first in range(0, len(rows), CHUNK):
            some = rows[first : first + CHUNK]
            late = {(int(row[0] // MINUTE) * MINUTE, row[1]) for row in some if row[0] < self._rolled[MINUTE]}
            with self._store.writer() as connection:
                bulk.run(connection, some)
                for start, node in sorted(late):
                    self._make(connection, MINUTE, start, node)
                for start, node in sorted({(minute // HOUR * HOUR, node) for minute, node in late}):
                    if start < self._rolled[HOUR]:
                        self._make(connection, HOUR, start, node)

    def _make(self, connection: Connection, period: int, start: int, node: int) -> None:
        for bulk, rows in list(self._rollups.read(connection, period, start, node)):
            bulk.run(connection, rows)

    # Roll up ------------------------------------------------------------------------------------------------------

    def roll(self, now: float) -> int:
        """Roll up all minutes and hours that are over, and delete what was kept for long enough. How many buckets.

        It may be stopped anywhere and called again: a bucket counts as done once it is whole.

        Raises:
            StoreError: the database cannot be written.
        """
        done = 0
        sources = (table_of(GpuSampleRow), table_of(JobSampleRow))
        for start in self._due(MINUTE, now - LATENESS, [(table, table.c.time) for table in sources]):
            self._roll(MINUTE, start)
            done += 1
        minutes = (table_of(GpuRollupRow), table_of(JobRollupRow))
        for start in self._due(HOUR, self._rolled[MINUTE], [(table, table.c.start) for table in minutes]):
            self._roll(HOUR, start)
            done += 1
        self._forget(now)
        return done

    def _due(self, period: int, end: float, sources: Sequence[tuple[Table, Any]]) -> Iterator[int]:
        """Buckets that are over and have something in them, oldest first; the mark follows behind."""
        last = int(end // period) * period
        while self._rolled[period] < last:
            mark = self._rolled[period]
            with self._database.read() as connection:
                firsts = [
                    connection.scalar(
                        select(func.min(column)).where(
                            column >= mark, column < last, *([table.c.period == MINUTE] if "period" in table.c else [])
                        )
                    )
                    for table, column in sources
                ]
            found = [first for first in firsts if first is not None]
            if not found:
                self._done(period, last)
                return
            yield int(min(found) // period) * period

    def _roll(self, period: int, start: int) -> None:
        with self._database.read() as connection:
            chunks = list(self._rollups.read(connection, period, start))
        for bulk, rows in chunks:
            with self._store.writer() as connection:
                bulk.run(connection, rows)
        self._done(period, start + period)

    def _done(self, period: int, mark: int) -> None:
        with self._store.writer() as connection:
            self._marks.run(connection, [(f"rolled:{period}", str(mark))])
        self._rolled[period] = mark

    # Forget -------------------------------------------------------------------------------------------------------

    def _forget(self, now: float) -> None:
        if self._keep.raw is not None:
            # Never what is not rolled up yet, and whole hours only, so that no bucket is made anew from a part.
            cut = min(now - self._keep.raw, self._rolled[MINUTE], self._rolled[HOUR]) // HOUR * HOUR
            if cut > self._cut:
                with self._store.writer() as connection:
                    self._marks.run(connection, [("cut:raw", str(cut))])
                self._cut = cut
            for table in (table_of(GpuSampleRow), table_of(JobSampleRow)):
                self._delete(table, None, cut)
        for period, kept in ((MINUTE, self._keep.minutes), (HOUR, self._keep.hours)):
            if kept is not None:
                for table in (table_of(GpuRollupRow), table_of(JobRollupRow)):
                    self._delete(table, period, min(now - kept, self._rolled[HOUR]) // HOUR * HOUR)

    def _delete(self, table: Table, period: int | None, before: float) -> None:
        """Delete from the front in short transactions."""
        column = table.c.time if period is None else table.c.start
        old = [column < before] if period is None else [table.c.period == period, column < before]
        while True:
            with self._store.writer() as connection:
                end = connection.scalar(select(column).where(*old).order_by(column).offset(CHUNK).limit(1))
                connection.execute(delete(table).where(*old, *([] if end is None else [column <= end])))
            if end is None:
                return


def _columns(model: Any) -> list[str]:  # noqa: ANN401 - any of the tables
    return [column.name for column in table_of(model).columns]


def _mark(connection: Connection, key: str) -> float:
    return float(connection.scalar(select(MetaRow.value).where(MetaRow.key == key)) or 0)


def _gpu_row(time: float, node: int, seconds: float, gpu: Sample, here: Mapping[int, tuple[int, int]]) -> Row:
    job, attempt = here.get(gpu["index"], (0, 0))
    processes = gpu.get("processes")
    return (
        time,
        node,
        gpu["index"],
        job,
        attempt,
        seconds,
        gpu.get("utilization"),
        gpu.get("memory_used"),
        gpu.get("power"),
        gpu.get("temperature"),
        encode(processes) if processes else None,
    )


def _job_row(time: float, node: int, seconds: float, job: Sample) -> Row:
    processes = job.get("processes")
    if processes is not None and not isinstance(processes, int):
        processes = len(processes)
    return (time, node, job["job"], job["attempt"], seconds, job.get("cpu"), job.get("memory"), processes)
