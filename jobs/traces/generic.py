"""Any CSV with a header: columns are found by their usual names, or named with `--columns`.

`--columns submitted=submit_time,duration=run,gpus=num_gpus` maps our field names to the file's columns. Tables such as
`job_id,submit_time,num_gpus,duration` need no map. GPUs, CPUs and memory are totals of the job (but `gpus_per_node`);
a bare number of memory is bytes; times are seconds or ISO 8601.
"""

from __future__ import annotations

import difflib

from ..errors import TraceError
from ..job import Shape
from ..units import MAX_BYTES, UnitError, parse_size
from .builder import Builder
from .options import Options
from .source import Source
from .table import Table
from .trace import DEFAULT_PRIORITY, Trace
from .values import MAX_CPU_MILLI, MAX_GPUS, CellError, gpus, instant, number, seconds, whole

NAME = "csv"
FIELDS: dict[str, tuple[str, ...]] = {
    "id": ("job_id", "id", "jobid", "job", "name", "job_name"),
    "submitted": ("submit_time", "submitted", "submission_time", "submit", "arrival_time", "arrival", "submitted_time"),
    "duration": ("duration", "run_time", "runtime", "run"),
    "started": ("start_time", "started", "start"),
    "ended": ("end_time", "ended", "end"),
    "gpus": ("num_gpus", "gpus", "num_gpu", "gpu_num"),
    "gpus_per_node": ("gpus_per_node",),
    "num_nodes": ("num_nodes", "nodes", "node_num"),
    "gpu_type": ("gpu_type", "gpu_model"),
    "cpus": ("cpus", "num_cpus", "cpu_num"),
    "memory": ("memory",),
    "user": ("user",),
    "queue": ("queue", "partition", "vc"),
    "priority": ("priority",),
    "estimate": ("estimate", "time_limit", "requested_time"),
    "state": ("state", "status"),
    "model": ("model", "model_name", "application"),
}
"""Our field names, and the column names that each is looked for under without a map."""

_HINT = "name it with --columns {0}=COLUMN"
_BIG_EPOCH = 10**8
_MAX_PRIORITY = 100


def parse_columns(text: str) -> dict[str, str]:
    """The map written in `--columns`: `submitted=submit_time,gpus=num_gpus`.

    Raises:
        TraceError: it is no such map, or names a field that does not exist.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not equals or not ours or not theirs:
            raise TraceError(
                f"--columns: {part.strip()!r} is not FIELD=COLUMN", hint="e.g. --columns submitted=submit,gpus=num_gpus"
            )
        if ours not in FIELDS:
            near = difflib.get_close_matches(ours, FIELDS, n=1)
            raise TraceError(
                f"--columns: there is no field {ours!r}; the fields are {', '.join(FIELDS)}",
                hint=f"did you mean {near[0]!r}?" if near else "the field's name goes before the =",
            )
        if ours in columns:
            raise TraceError(f"--columns: {ours!r} is given twice", hint="give each field once")
        columns[ours] = theirs
    return columns


def recognises(columns: list[str]) -> bool:
    """Whether the columns that every trace needs are there under their usual names."""
    names = set(columns)
    return all(not names.isdisjoint(FIELDS[field]) for field in ("submitted", "duration", "gpus"))


def read(source: Source, options: Options) -> Trace:
    """Read a CSV by the map in `options.columns` and the usual names for what the map leaves out.

    Raises:
        TraceError: a needed column is missing, a cell cannot be read, or two different rows share an id.
    """
    return _Reader(source, options).read()


class _Reader:
    """The columns of one file, found once, and the loop over its rows."""

    def __init__(self, source: Source, options: Options) -> None:
        self.table = Table(source)
        self.builder = Builder(source.name, options)
        self.given = options.columns
        for ours, theirs in options.columns.items():
            if self.table.find(theirs) < 0:
                raise self.table.missing([theirs], f"it is named in --columns as {ours!r}")
        self.submitted = self._need("submitted")
        self.started, self.ended = self._find("started"), self._find("ended")
        self.duration = self._find("duration")
        if self.duration < 0 and (self.started < 0 or self.ended < 0):
            self._need("duration")
        self.per_node = self._find("gpus_per_node")
        self.gpus = -1 if self.per_node >= 0 else self._need("gpus")
        self.nodes = self._find("num_nodes")
        self.kind, self.cpus, self.memory = self._find("gpu_type"), self._find("cpus"), self._find("memory")

    def _find(self, field: str) -> int:
        return self.table.find(self.given[field]) if field in self.given else self.table.find(*FIELDS[field])

    def _need(self, field: str) -> int:
        index = self._find(field)
        if index < 0:
            raise self.table.missing(FIELDS[field], _HINT.format(field))
        return index

    def read(self) -> Trace:
        """Read all rows."""
        table, builder = self.table, self.builder
        ident, user, queue, state = (self._find(field) for field in ("id", "user", "queue", "state"))
        priority, estimate, model = self._find("priority"), self._find("estimate"), self._find("model")
        latest: float = 0
        for row in table.rows():
            try:
                shape = self._ask(row)
                if shape is None:
                    continue
                line = table.line
                submitted = instant(row[self.submitted], table.names[self.submitted])
                latest = max(latest, submitted)
                builder.add(
                    line,
                    row[ident] if ident >= 0 else f"row-{line}",
                    submitted,
                    self._run_time(row),
                    shape,
                    user=row[user] if user >= 0 else "",
                    queue=row[queue] if queue >= 0 else "",
                    priority=DEFAULT_PRIORITY
                    if priority < 0 or not row[priority]
                    else self._count(row, priority, _MAX_PRIORITY),
                    estimate=None
                    if estimate < 0 or not row[estimate]
                    else seconds(row[estimate], table.names[estimate]),
                    state=row[state] if state >= 0 else "",
                    model=row[model] if model >= 0 else "",
                )
            except CellError as error:
                raise table.fault(error) from error
        return builder.finish(
            NAME,
            names="unique ids" if ident >= 0 else "row numbers",
            epoch=0 if latest > _BIG_EPOCH else None,
        )

    def _count(self, row: list[str], index: int, most: int) -> int:
        return whole(row[index], self.table.names[index], most)

    def _run_time(self, row: list[str]) -> int | float:
        names = self.table.names
        if self.duration >= 0:
            return seconds(row[self.duration], names[self.duration])
        ended = instant(row[self.ended], names[self.ended])
        run = ended - instant(row[self.started], names[self.started])
        if run < 0:
            raise CellError(names[self.ended], f"{row[self.ended]!r} is before the start", "mend or delete the row")
        return run

    def _ask(self, row: list[str]) -> Shape | None:
        """What the row asks for; None if it is left out, and counted, as CPU-only."""
        names, builder = self.table.names, self.builder
        nodes = self._count(row, self.nodes, MAX_GPUS) if self.nodes >= 0 and row[self.nodes] else 0
        if self.per_node >= 0:
            count, milli = gpus(row[self.per_node], names[self.per_node])
            if milli and nodes > 1:
                raise CellError(names[self.per_node], "a fraction of a GPU on several nodes", "ask for whole GPUs")
            count *= max(nodes, 1)
        else:
            count, milli = gpus(row[self.gpus], names[self.gpus])
        if not builder.keeps(count + milli):
            return None
        kinds = tuple(row[self.kind].split("|")) if self.kind >= 0 and row[self.kind] else ()
        cpus = memory = 0
        if self.cpus >= 0 and row[self.cpus]:
            cpus = round(number(row[self.cpus], names[self.cpus]) * 1000)
            if not 0 <= cpus <= MAX_CPU_MILLI:
                raise CellError(names[self.cpus], f"{row[self.cpus]!r} CPUs cannot be asked for", "give 0 or more")
        if self.memory >= 0 and row[self.memory]:
            memory = _bytes(row[self.memory], names[self.memory])
        return builder.ask(count, nodes, gpu_milli=milli, types=kinds, cpu_milli=cpus, memory=memory)


def _bytes(text: str, column: str) -> int:
    if text.isdecimal():
        return whole(text, column, MAX_BYTES)
    try:
        return parse_size(text)
    except UnitError as error:
        raise CellError(column, error.message, error.hint) from error
