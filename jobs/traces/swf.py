"""The Standard Workload Format of the Parallel Workloads Archive: 18 numbers a line, comments start with `;`.

Chapin, Cirne, Feitelson et al., "Benchmarks and Standards for the Evaluation of Parallel Job Schedulers", JSSPP 1999.

SWF knows processors and no GPUs: a processor is taken as a GPU, so that CPU logs test a GPU queue. -1 is "not known":
a job without a run time is skipped. Lines with status 2, 3 or 4 are parts of a job whose whole has a line of its own.
"""

from __future__ import annotations

import re

from ..errors import TraceError
from .builder import Builder
from .options import Options
from .source import Source
from .table import fault
from .trace import Trace
from .values import CellError, number, seconds, whole

NAME = "swf"
_FIELDS = 18
_PARTS = ("2", "3", "4")
_STATES = {"0": "FAILED", "1": "COMPLETED", "5": "CANCELLED"}
_ZERO = re.compile(r";\s*UnixStartTime:\s*(\d{1,11})\b")


def recognises(head: str) -> bool:
    """Whether the first lines are SWF comments or 18 numbers."""
    first = head.lstrip().split("\n", 1)[0]
    if first.startswith(";"):
        return True
    fields = first.split()
    return len(fields) == _FIELDS and all(re.fullmatch(r"-?\d+(\.\d+)?", field) for field in fields)


def read(source: Source, options: Options) -> Trace:
    """Read an SWF log.

    Raises:
        TraceError: a line has fewer than 18 fields, or one of them is no number.
    """
    builder = Builder(source.name, options)
    zero: float | None = None
    for row, line in enumerate(source.lines(), 1):
        if line.startswith(";"):
            found = _ZERO.match(line)
            zero = int(found[1]) if found else zero
            continue
        fields = line.split()
        if not fields:
            continue
        if len(fields) < _FIELDS:
            raise TraceError(
                f"{source.name}, row {row}: has {len(fields)} fields, SWF has {_FIELDS}", hint="the row may be cut off"
            )
        try:
            _add(builder, row, fields)
        except CellError as error:
            raise fault(source.name, row, error) from error
    builder.notes.append("processors counted as GPUs: SWF knows no GPUs")
    return builder.finish(NAME, epoch=zero)


def _add(builder: Builder, row: int, fields: list[str]) -> None:
    job, submit, _, run, used, _, _, asked, limit, _, status, user, _, _, queue = fields[:15]
    if status in _PARTS:
        builder.skip("lines for parts of a job")
        return
    gpus = whole(asked, "requested processors") if asked != "-1" else 0
    if not gpus and used != "-1":
        gpus = whole(used, "allocated processors")
    if not gpus:
        builder.skip("jobs without a number of processors")
        return
    if number(run, "run time") == -1:
        builder.skip("jobs without a run time")
        return
    estimate = number(limit, "requested time")
    submitted = number(submit, "submit time")
    if submitted < 0:
        raise CellError("submit time", f"{submit!r} is negative", "mend or delete the row")
    builder.add(
        row,
        job,
        submitted,
        seconds(run, "run time"),
        builder.ask(gpus),
        user="" if user == "-1" else user,
        queue="" if queue == "-1" else queue,
        estimate=estimate if estimate > 0 else None,
        state=_STATES.get(status, ""),
    )
