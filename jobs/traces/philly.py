"""Microsoft's Philly clusters: the job table that simulators pass around, and the original log.

Jeon et al., "Analysis of Large-Scale Multi-Tenant GPU Clusters for DNN Training Workloads", ATC 2019.

The table (`timestamp,duration,num_gpus,gpu_time,cluster`, from the Pollux and Sia simulators) has no ids, is not
sorted, writes durations as floats and holds exact duplicates, which are kept. The log (`cluster_job_log`, 1 GB of JSON)
writes missing times as "None", null or ""; attempts may be empty. A job's run time is the sum over its attempts, and
its GPUs are those of the first attempt that had any.
"""

from __future__ import annotations

from typing import Any

from ..errors import TraceError
from .builder import Builder
from .json_stream import Entry, entries
from .options import Options
from .source import Source
from .table import Table
from .trace import Trace
from .values import CellError, instant, seconds, whole

NAME = "philly"
LOG_NAME = "philly-log"
_MISSING = (None, "", "None")


def recognises(columns: list[str]) -> bool:
    """Whether these are the columns of the table."""
    return {"timestamp", "duration", "num_gpus"} <= set(columns)


def read(source: Source, options: Options) -> Trace:
    """Read the job table.

    Raises:
        TraceError: a column is missing or a cell cannot be read.
    """
    table = Table(source)
    builder = Builder(source.name, options)
    submit, run, num_gpus = table.need("timestamp"), table.need("duration"), table.need("num_gpus")
    cluster = table.find("cluster")
    for row in table.rows():
        try:
            gpus = whole(row[num_gpus], "num_gpus")
            if builder.keeps(gpus):
                line = table.line
                builder.add(
                    line,
                    f"row-{line}",
                    instant(row[submit], "timestamp"),
                    seconds(row[run], "duration"),
                    builder.ask(gpus),
                    queue=row[cluster] if cluster >= 0 else "",
                )
        except CellError as error:
            raise table.fault(error) from error
    return builder.finish(NAME, names="row numbers", epoch=0)


def recognises_log(head: str) -> bool:
    """Whether this is the start of the original log."""
    return head.lstrip().startswith(("[", "{")) and '"attempts"' in head


def read_log(source: Source, options: Options) -> Trace:
    """Read the original log, a JSON list of jobs, one job at a time.

    Raises:
        TraceError: it is no JSON, or a job lacks a key or has a time that cannot be read.
    """
    builder = Builder(source.name, options)
    for entry in entries(source):
        try:
            _add(builder, entry)
        except CellError as error:
            raise TraceError(
                f"{source.name}, row {entry.row} (entry {entry.number}), key {error.column!r}: {error.message}",
                hint=error.hint,
            ) from error
    return builder.finish(LOG_NAME, epoch=0)


def _add(builder: Builder, entry: Entry) -> None:
    job = entry.value
    if not isinstance(job, dict):
        raise CellError("", f"is a {type(job).__name__}, not an object", "each entry is one job")
    attempts = _of(list, job.get("attempts") or [], "attempts")
    duration: float = 0
    gpus = nodes = 0
    for attempt in attempts:
        start, end = (_of(dict, attempt, "attempts").get(key) for key in ("start_time", "end_time"))
        detail = _of(list, attempt.get("detail") or [], "detail")
        if not gpus:
            held = [len(_of(list, _of(dict, host, "detail").get("gpus") or [], "gpus")) for host in detail]
            gpus = sum(held)
            nodes = len(held) if len(set(held)) == 1 else 0
        if start in _MISSING or end in _MISSING:
            builder.count("attempts without a start or an end counted as no run time")
            continue
        length = instant(str(end), "end_time") - instant(str(start), "start_time")
        if length < 0:
            raise CellError("end_time", f"{end!r} is before start_time {start!r}", "mend or delete the entry")
        duration += length
    if not attempts:
        builder.skip("jobs that never ran (no attempt)")
    elif duration == 0:
        builder.skip("jobs without a run time")
    elif builder.keeps(gpus):
        builder.add(
            entry.row,
            str(job.get("jobid") or f"row-{entry.row}"),
            instant(str(job.get("submitted_time")), "submitted_time"),
            duration,
            builder.ask(gpus, nodes),
            user=str(job.get("user") or ""),
            queue=str(job.get("vc") or ""),
            state=str(job.get("status") or ""),
            attempts=len(attempts),
        )


def _of(kind: type, value: Any, key: str) -> Any:  # noqa: ANN401 - JSON holds anything
    if not isinstance(value, kind):
        raise CellError(key, f"holds {value!r:.60}", f"give a {kind.__name__}")
    return value
