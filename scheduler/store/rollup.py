"""Samples rolled up to minutes, minutes to hours.

A bucket is always made anew from all that lies under it and replaces the one that was there, so rolling it up twice,
or again after a crash or a late sample, gives the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Double, Select, Table, case, cast, func, literal, select
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase

from .bulk import Bulk, Row, insert_bulk, table_of
from .tables import GpuRollupRow, GpuSampleRow, JobRollupRow, JobSampleRow

MINUTE = 60
HOUR = 3600

CHUNK = 2000
"""Rows in one transaction, so that a commit of the engine never waits long for its turn."""

_GPU_KEYS = ("node", "gpu", "job", "attempt")
_JOB_KEYS = ("node", "job", "attempt")


class Rollups:
    """Makes buckets, prepared for one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        self._gpus = _replace(dialect, GpuRollupRow, ("period", "start", *_GPU_KEYS))
        self._jobs = _replace(dialect, JobRollupRow, ("period", "start", *_JOB_KEYS))

    def read(
        self, connection: Connection, period: int, start: int, node: int | None = None
    ) -> Iterator[tuple[Bulk, list[Row]]]:
        """The rows of one bucket as what lies under it says, of all nodes or of one, in chunks ready to be written."""
        for bulk, query in ((self._gpus, _gpu_bucket(period, start)), (self._jobs, _job_bucket(period, start))):
            wanted = query if node is None else query.where(_of_node(query, node))
            rows = [tuple(row) for row in connection.execute(wanted)]
            for first in range(0, len(rows), CHUNK):
                yield bulk, rows[first : first + CHUNK]


def _replace(dialect: Dialect, model: type[DeclarativeBase], keys: Sequence[str]) -> Bulk:
    columns = [column.name for column in table_of(model).columns]
    return insert_bulk(dialect, model, columns, change=[name for name in columns if name not in keys])


def _of_node(query: Select[Any], node: int) -> ColumnElement[bool]:
    (source,) = query.get_final_froms()
    assert isinstance(source, Table)
    same: ColumnElement[bool] = source.c.node == node
    return same


def _total(column: ColumnElement[Any]) -> ColumnElement[int]:
    """A sum of whole numbers (which PostgreSQL would make a decimal)."""
    return cast(func.sum(column), BigInteger)


def _mean(column: ColumnElement[Any], weight: ColumnElement[Any]) -> ColumnElement[Any]:
    """The mean of means, each by how many it stands for; NULL where there are none."""
    known = case((column.is_not(None), weight))
    return cast(func.sum(column * known), Double) / func.nullif(cast(func.sum(known), Double), 0.0)


def _gpu_bucket(period: int, start: int) -> Select[Any]:
    if period == MINUTE:
        raw = table_of(GpuSampleRow).c
        known = case((raw.utilization.is_not(None), raw.seconds), else_=0.0)
        return (
            select(
                literal(period),
                literal(start),
                *[raw[key] for key in _GPU_KEYS],
                func.count(),
                func.count(raw.utilization),
                func.avg(raw.utilization),
                func.max(raw.utilization),
                func.avg(cast(raw.memory_used, Double)),
                func.max(raw.memory_used),
                func.avg(raw.power),
                func.max(raw.temperature),
                func.sum(raw.seconds),
                func.sum(known),
                func.sum(raw.seconds * func.coalesce(raw.utilization, 0.0)),
            )
            .where(raw.time >= start, raw.time < start + period)
            .group_by(*[raw[key] for key in _GPU_KEYS])
        )
    low = table_of(GpuRollupRow).c
    return (
        select(
            literal(period),
            literal(start),
            *[low[key] for key in _GPU_KEYS],
            _total(low.samples),
            _total(low.measured),
            _mean(low.utilization_mean, low.measured),
            func.max(low.utilization_max),
            _mean(low.memory_mean, low.samples),
            func.max(low.memory_max),
            _mean(low.power_mean, low.samples),
            func.max(low.temperature_max),
            func.sum(low.seconds),
            func.sum(low.measured_seconds),
            func.sum(low.used_seconds),
        )
        .where(low.period == MINUTE, low.start >= start, low.start < start + period)
        .group_by(*[low[key] for key in _GPU_KEYS])
    )


def _job_bucket(period: int, start: int) -> Select[Any]:
    if period == MINUTE:
        raw = table_of(JobSampleRow).c
        return (
            select(
                literal(period),
                literal(start),
                *[raw[key] for key in _JOB_KEYS],
                func.count(),
                func.avg(raw.cpu),
                func.max(raw.cpu),
                func.avg(cast(raw.memory, Double)),
                func.max(raw.memory),
                func.max(raw.processes),
                func.sum(raw.seconds),
            )
            .where(raw.time >= start, raw.time < start + period)
            .group_by(*[raw[key] for key in _JOB_KEYS])
        )
    low = table_of(JobRollupRow).c
    return (
        select(
            literal(period),
            literal(start),
            *[low[key] for key in _JOB_KEYS],
            _total(low.samples),
            _mean(low.cpu_mean, low.samples),
            func.max(low.cpu_max),
            _mean(low.memory_mean, low.samples),
            func.max(low.memory_max),
            func.max(low.processes_max),
            func.sum(low.seconds),
        )
        .where(low.period == MINUTE, low.start >= start, low.start < start + period)
        .group_by(*[low[key] for key in _JOB_KEYS])
    )
