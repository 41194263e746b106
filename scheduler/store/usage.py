"""Who held GPUs, for how long, and how much work they did with them; and the history as a trace.

What was allocated comes from the attempts, what was used from the samples. Where there are none the answer is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Select, Text, case, cast, func, literal, select, union_all

from ...jobs.job import FINAL
from ...jobs.traces.trace import TraceJob
from .bulk import table_of
from .rollup import HOUR, MINUTE
from .rows import decode_shape
from .tables import AttemptRow, GpuRollupRow, GpuSampleRow, JobRollupRow, JobRow, JobSampleRow, MetaRow

By = Literal["user", "queue", "job", "gpu-type"]


@dataclass(frozen=True, slots=True)
class Usage:
    """GPU time of one user, queue, job or GPU type, in GPU-seconds.

    Attributes:
        key: the name; of a job its number.
        jobs: how many jobs held GPUs.
        allocated: time that GPUs were held, a shared one in part.
        measured: the part of it that samples with a utilization stand for; None = there are none. A sample stands for
            the seconds before it, some of which may be before the attempt: what is more than allocated is cut off.
        used: measured time times utilization. idle: measured but not used.
        lost: work that was thrown away by attempts that ended, since their last checkpoint, as far as jobs told.
    """

    key: str
    jobs: int
    allocated: float
    measured: float | None
    used: float | None
    idle: float | None
    lost: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a job's processes took, over all its samples: CPUs kept busy and bytes, a node; None = never sampled."""

    cpu_mean: float | None
    cpu_max: float | None
    memory_mean: float | None
    memory_max: int | None
    processes_max: int | None


def usage(connection: Connection, by: By, since: float, until: float, *, job: int | None = None) -> list[Usage]:
    """GPU time from `since` to `until` (now, for what still runs), the largest first.

    Samples count by whole minutes, and by whole hours where the minutes are gone: what lies before the first whole one
    is left out of `measured`, never guessed.
    """
    if since >= until:
        return []
    key = _key(by)
    attempts, jobs = table_of(AttemptRow), table_of(JobRow)
    # An attempt that runs has held its GPUs until now.
    end = case((attempts.c.ended < until, attempts.c.ended), else_=until)
    begin = case((attempts.c.placed > since, attempts.c.placed), else_=since)
    only = [] if job is None else [attempts.c.job == job]
    held = (
        select(
            key,
            func.count(attempts.c.job.distinct()),
            func.sum((end - begin) * attempts.c.gpus),
            func.sum(case((attempts.c.ended < until, attempts.c.lost_work), else_=0.0)),
        )
        .select_from(attempts.join(jobs))
        .where(attempts.c.placed < until, (attempts.c.ended > since) | attempts.c.ended.is_(None), *only)
        .group_by(key)
    )
    samples = _samples(connection, since, until, job).subquery()
    worked = (
        select(key, func.sum(samples.c.measured), func.sum(samples.c.used))
        .select_from(
            samples.join(jobs, jobs.c.id == samples.c.job).join(
                attempts, (attempts.c.job == samples.c.job) & (attempts.c.attempt == samples.c.attempt)
            )
        )
        .group_by(key)
    )
    figures = {name: (measured, used) for name, measured, used in connection.execute(worked) if measured}
    found = []
    for name, count, allocated, lost in connection.execute(held):
        measured, used = figures.get(name, (None, None))
        if measured is not None and measured > allocated:
            measured, used = allocated, used * allocated / measured
        idle = None if measured is None else measured - used
        found.append(Usage(str(name), count, allocated, measured, used, idle, lost or 0.0))
    return sorted(found, key=lambda row: (-row.allocated, row.key))


def job_load(connection: Connection, job_id: int) -> Load:
    """CPU and memory of a job's processes: from the minutes, else the hours, and what is not rolled up yet."""
    minute = _rolled(connection, MINUTE)
    low, raw = table_of(JobRollupRow).c, table_of(JobSampleRow).c
    first = connection.scalar(select(func.min(low.start)).where(low.job == job_id, low.period == MINUTE))
    rows = list(
        connection.execute(
            select(low.samples, low.cpu_mean, low.cpu_max, low.memory_mean, low.memory_max, low.processes_max).where(
                low.job == job_id,
                (low.period == MINUTE) | ((low.period == HOUR) & (low.start + HOUR <= (first or minute))),
            )
        )
    )
    rows += connection.execute(
        select(literal(1), raw.cpu, raw.cpu, raw.memory, raw.memory, raw.processes).where(
            raw.time >= minute, raw.job == job_id
        )
    )
    return Load(
        _mean([(row[0], row[1]) for row in rows]),
        max((row[2] for row in rows if row[2] is not None), default=None),
        _mean([(row[0], row[3]) for row in rows]),
        max((row[4] for row in rows if row[4] is not None), default=None),
        max((row[5] for row in rows if row[5] is not None), default=None),
    )


def total(rows: Iterable[Usage]) -> list[Usage]:
    """Figures of several databases as those of one, the largest first."""
    found: dict[str, Usage] = {}
    for row in rows:
        before = found.get(row.key)
        if before is not None:
            row = Usage(  # noqa: PLW2901 - the sum of both
                row.key,
                before.jobs + row.jobs,
                before.allocated + row.allocated,
                _sum(before.measured, row.measured),
                _sum(before.used, row.used),
                _sum(before.idle, row.idle),
                before.lost + row.lost,
            )
        found[row.key] = row
    return sorted(found.values(), key=lambda row: (-row.allocated, row.key))


def _sum(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


def export_jobs(
    connection: Connection, *others: Connection, since: float = 0.0, until: float | None = None
) -> Iterator[TraceJob]:
    """Finished jobs that ran, as a trace of `jobs/traces/export.py` takes them, in order of submission.

    Those of other databases (of what is archived) are sorted in.

    Run times are those of all attempts together; submissions count in seconds from the first one exported.
    """
    attempts, jobs = table_of(AttemptRow), table_of(JobRow)
    ran = func.sum(attempts.c.ended - func.coalesce(attempts.c.started, attempts.c.placed))
    query = (
        select(
            jobs.c.id,
            jobs.c.name,
            jobs.c.submitted,
            cast(jobs.c.shape, Text).label("shape"),
            jobs.c.user,
            jobs.c.queue,
            jobs.c.priority,
            jobs.c.estimate,
            jobs.c.limit,
            jobs.c.state,
            ran.label("ran"),
            func.count().label("attempts"),
        )
        .select_from(jobs.join(attempts))
        .where(
            jobs.c.state.in_([state.value for state in FINAL]),
            jobs.c.submitted >= since,
            attempts.c.ended.is_not(None),
        )
        .group_by(jobs.c.id)
        .having(ran > 0)
        .order_by(jobs.c.submitted, jobs.c.id)
    )
    if until is not None:
        query = query.where(jobs.c.submitted < until)
    first: float | None = None
    streams = [one.execute(query) for one in (connection, *others)]
    for number, row in enumerate(merge(*streams, key=lambda row: (row.submitted, row.id))):
        first = row.submitted if first is None else first
        yield TraceJob(
            number,
            row.name or str(row.id),
            row.submitted - first,
            row.ran,
            decode_shape(row.shape),
            row.user,
            row.queue,
            row.priority,
            row.estimate,
            row.state,
            row.limit,
            row.attempts,
        )


def _key(by: By) -> ColumnElement[Any]:
    jobs = table_of(JobRow).c
    columns = {"user": jobs.user, "queue": jobs.queue, "job": jobs.id, "gpu-type": table_of(AttemptRow).c.gpu_type}
    return columns[by]


def _rolled(connection: Connection, period: int) -> int:
    """Until when samples are rolled up to this period."""
    return int(connection.scalar(select(MetaRow.value).where(MetaRow.key == f"rolled:{period}")) or 0)


def _mean(weighted: list[tuple[int, float | None]]) -> float | None:
    known = [(weight, value) for weight, value in weighted if value is not None]
    total = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / total if total else None


def _samples(connection: Connection, since: float, until: float, job: int | None) -> Any:  # noqa: ANN401 - a compound select
    """Held GPU time with a utilization, as (job, attempt, measured, used): hours, then minutes, then raw."""
    low, raw = table_of(GpuRollupRow).c, table_of(GpuSampleRow).c
    minute, hour = _rolled(connection, MINUTE), _rolled(connection, HOUR)
    first = -int(-since // MINUTE) * MINUTE
    full = -int(-since // HOUR) * HOUR  # the first whole hour
    hours = max(full, min(hour, int(until // HOUR) * HOUR))
    minutes = max(first, min(minute, int(until // MINUTE) * MINUTE))

    def rolled(period: int, begin: int, end: int) -> Select[Any]:
        return select(
            low.job, low.attempt, low.measured_seconds.label("measured"), low.used_seconds.label("used")
        ).where(low.period == period, low.start >= begin, low.start < end, *_whose(low.job, job))

    parts = [
        rolled(HOUR, full, hours),
        rolled(MINUTE, first, min(full, minutes)),
        rolled(MINUTE, hours, minutes),
        select(raw.job, raw.attempt, raw.seconds, raw.seconds * raw.utilization).where(
            raw.time >= max(float(minutes), since),
            raw.time <= until,
            raw.utilization.is_not(None),
            *_whose(raw.job, job),
        ),
    ]
    return union_all(*parts)


def _whose(column: Any, job: int | None) -> list[ColumnElement[bool]]:  # noqa: ANN401 - a column of either table
    return [column != 0 if job is None else column == job]
