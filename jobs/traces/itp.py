"""Microsoft's ITP clusters, as published with ElasticFlow: `job_id,submission_time,duration,num_gpu`.

Gu et al., "ElasticFlow: An Elastic Serverless Training Platform for Distributed Deep Learning", ASPLOS 2023.
Times are whole seconds since one common zero, so `epoch` is not known.
"""

from __future__ import annotations

from .builder import Builder
from .options import Options
from .source import Source
from .table import Table
from .trace import Trace
from .values import CellError, instant, seconds, whole

NAME = "itp"


def recognises(columns: list[str]) -> bool:
    """Whether these are the columns of an ITP file."""
    return {"job_id", "submission_time", "duration", "num_gpu"} <= set(columns)


def read(source: Source, options: Options) -> Trace:
    """Read an ITP CSV.

    Raises:
        TraceError: a column is missing or a cell cannot be read.
    """
    table = Table(source)
    builder = Builder(source.name, options)
    job_id, submit = table.need("job_id"), table.need("submission_time")
    run, num_gpu = table.need("duration"), table.need("num_gpu")
    for row in table.rows():
        try:
            gpus = whole(row[num_gpu], "num_gpu")
            if builder.keeps(gpus):
                builder.add(
                    table.line,
                    row[job_id],
                    instant(row[submit], "submission_time"),
                    seconds(row[run], "duration"),
                    builder.ask(gpus),
                )
        except CellError as error:
            raise table.fault(error) from error
    return builder.finish(NAME)
