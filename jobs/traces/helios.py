"""SenseTime's Helios and Shanghai AI Laboratory's Acme: `cluster_log.csv` and `trace_seren.csv`, `trace_kalos.csv`.

Helios: Hu et al., "Characterization and Prediction of Deep Learning Workloads in Large-Scale GPU Datacenters", SC 2021.
Acme: Hu et al., "Characterization of Large Language Model Development in the Datacenter", NSDI 2024.

Quirks: gpu_num 0 marks CPU-only jobs. Derived copies leave columns empty. Acme's Kalos writes end - submit as the
duration, queue included, so start and end are believed before the duration column. Never started = no start time.
"""

from __future__ import annotations

from .builder import Builder
from .options import Options
from .source import Source
from .table import Table
from .trace import Trace
from .values import CellError, instant, seconds, whole

NAME = "helios"
_CLAMPED = 50
"""So many jobs of exactly the longest run time mean that the publisher cut run times off there."""
_SLACK = 1


def recognises(columns: list[str]) -> bool:
    """Whether these are the columns of a Helios or Acme file."""
    return {"job_id", "gpu_num", "node_num", "submit_time", "duration"} <= set(columns)


def read(source: Source, options: Options) -> Trace:
    """Read a Helios or Acme CSV.

    Raises:
        TraceError: a column is missing or a cell cannot be read.
    """
    table = Table(source)
    builder = Builder(source.name, options)
    job_id, gpu_num, submit = table.need("job_id"), table.need("gpu_num"), table.need("submit_time")
    run, node_num, cpu_num = table.need("duration"), table.need("node_num"), table.find("cpu_num")
    start, end = table.find("start_time"), table.find("end_time")
    user, queue, state = table.find("user"), table.find("vc"), table.find("state")
    for row in table.rows():
        try:
            gpus = whole(row[gpu_num], "gpu_num")
            if not builder.keeps(gpus):
                continue
            if end >= 0 and row[end] and start >= 0:
                if not row[start]:
                    builder.skip("jobs that ended before they started to run")
                    continue
                duration = _between(builder, row[start], row[end], row[run])
            elif row[run]:
                duration = seconds(row[run], "duration")
            else:
                duration = 0
            nodes = whole(row[node_num], "node_num") if row[node_num] else 0
            cpus = whole(row[cpu_num], "cpu_num") if cpu_num >= 0 and row[cpu_num] else 0
            builder.add(
                table.line,
                row[job_id],
                instant(row[submit], "submit_time"),
                duration,
                builder.ask(gpus, nodes, cpu_milli=cpus * 1000),
                user=row[user] if user >= 0 else "",
                queue=row[queue] if queue >= 0 else "",
                state=row[state] if state >= 0 else "",
            )
        except CellError as error:
            raise table.fault(error) from error
    trace = builder.finish(NAME, epoch=0)
    longest = max(job.duration for job in trace.jobs)
    clamped = sum(job.duration == longest for job in trace.jobs)
    if clamped >= _CLAMPED:
        trace.notes.append(f"{clamped:,} jobs run exactly {longest:,} s: clamped by the publisher, they ran longer")
    return trace


def _between(builder: Builder, start: str, end: str, stated: str) -> int | float:
    """Run time from start and end; a stated duration that differs is counted."""
    duration = instant(end, "end_time") - instant(start, "start_time")
    if duration < 0:
        raise CellError("end_time", f"{end!r} is before start_time {start!r}", "mend or delete the row")
    if stated and abs(seconds(stated, "duration") - duration) > _SLACK:
        builder.count("run times taken as end - start: the duration column differs (it holds the queue too)")
    return duration
