"""Slurm accounting: the text of `sacct`, parted by `|` (-P or -p) or in columns, and tables made from it as CSV.

    sacct -a -P --format=JobID,User,Account,Partition,Submit,Eligible,Start,End,Elapsed,Timelimit,ReqTRES,NNodes,State

Quirks: steps (`12.batch`) belong to their job and are left out; a pending array is one row `12_[1-5]`; states come as
`CANCELLED by 1000`; GPUs are a total in the TRES columns (`gres/gpu=8`, with or without a type) and per node in the
older GRES columns (`gpu:v100:2`); types are lower case in Slurm and upper case here; times of what never happened are
`Unknown` or `None`. A job that has not ended yet has no true run time: it is left out and counted. The time limit
becomes the estimate.
CSV column names are those of Popa and Alain, "SLURM queue time prediction using neural networks", v1.0.0, 2023.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from sys import intern

from ..errors import TraceError
from .builder import Builder
from .options import Options
from .source import Source
from .table import Table
from .trace import Trace
from .values import CellError, clock, instant, size, whole

NAME = "slurm"
_COLUMNS = {
    "id": ("jobid", "jobidraw", "job_unique_id"),
    "user": ("user", "account_id"),
    "queue": ("partition", "partition_id_x"),
    "submit": ("submit", "submit_time"),
    "eligible": ("eligible", "eligible_time"),
    "start": ("start", "start_time"),
    "end": ("end", "end_time"),
    "elapsed": ("elapsedraw", "elapsed", "elapsed_time"),
    "limit": ("timelimit", "time_limit_sec"),
    "limit_minutes": ("timelimitraw",),
    "tres": ("reqtres", "req_tres"),
    "alloc_tres": ("alloctres",),
    "gres": ("reqgres", "allocgres"),
    "nodes": ("nnodes", "alloc_nodes"),
    "state": ("state",),
}
_NEVER = frozenset({"", "Unknown", "None", "N/A"})
_UNENDED = frozenset({"PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED", "CONFIGURING", "COMPLETING"})
_NO_LIMIT = frozenset({"", "UNLIMITED", "Partition_Limit", "INVALID"})
_TRES_GPU = re.compile(r"gres/gpu(?::([^=,]+))?=(\d{1,9})(?=,|$)")
_GRES_GPU = re.compile(r"(?:^|,)(?:gres[:/])?gpu(?::([A-Za-z][^:,(]*))?(?::(\d{1,9}))?(?=[,(]|$)")


def recognises(columns: list[str]) -> bool:
    """Whether these are columns of sacct or of a table made from it."""
    names = {name.lower() for name in columns}
    if len(names) == 1:  # text in columns: one line, parted by blanks
        names = set(columns[0].lower().split())
    return any(not names.isdisjoint(_COLUMNS[field]) for field in ("tres", "alloc_tres", "gres")) and not (
        names.isdisjoint(_COLUMNS["id"]) or names.isdisjoint(_COLUMNS["submit"])
    )


def read(source: Source, options: Options) -> Trace:
    """Read sacct's output, or a CSV with its columns.

    Raises:
        TraceError: a needed column is missing, a cell is cut off or cannot be read.
    """
    return _Reader(source, options).read()


class FixedWidth:
    """The rows of sacct's default output: columns as wide as the dashes under their names.

    Attributes:
        line_num: the line that was read last, as csv's readers have it.
    """

    def __init__(self, source: Source) -> None:
        """Read the header.

        Raises:
            TraceError: there is no line of dashes under it.
        """
        self.line_num = 0
        self._lines = source.lines()
        dashes = source.head.partition("\n")[2].partition("\n")[0]
        if "-" not in dashes or not set(dashes.strip()) <= {"-", " "}:
            raise TraceError(
                f"{source.name}, row 2: no line of dashes under the column names",
                hint="run sacct with -P, or with its header",
            )
        self._spans = [found.span() for found in re.finditer("-+", dashes)]

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        line = next(self._lines)
        self.line_num += 1
        if self.line_num == 2:  # noqa: PLR2004 - the dashes
            line = next(self._lines)
            self.line_num += 1
        return [line[start:end].strip() for start, end in self._spans] if line.strip() else []


class _Reader:
    """The columns of one file, found once, and the loop over its rows."""

    def __init__(self, source: Source, options: Options) -> None:
        self.builder = Builder(source.name, options)
        first = source.head.split("\n", 1)[0]
        text = "," not in first and "|" not in first and "\t" not in first
        self.table = Table(source, FixedWidth(source) if text else None)
        lower = [name.lower() for name in self.table.names]
        self.at = {
            field: next((lower.index(name) for name in names if name in lower), -1) for field, names in _COLUMNS.items()
        }
        needed = {"id": "JobID", "submit": "Submit"}
        if self.at["elapsed"] < 0:
            needed |= {"start": "Start", "end": "End"}
        if self.at["alloc_tres"] < 0 and self.at["gres"] < 0:
            needed["tres"] = "ReqTRES"
        for field, name in needed.items():
            if self.at[field] < 0:
                raise self.table.missing([name], "add it to sacct's --format")

    def read(self) -> Trace:
        """Read all rows."""
        table = self.table
        for row in table.rows():
            try:
                self._add(row)
            except CellError as error:
                raise table.fault(error) from error
        return self.builder.finish(NAME, epoch=0)

    def _add(self, row: list[str]) -> None:
        builder = self.builder
        job = self._cell(row, "id")
        if "." in job:
            builder.skip("job steps")
            return
        state = self._cell(row, "state").split(" ", 1)[0].rstrip("+")
        start, end = self._cell(row, "start"), self._cell(row, "end")
        if "[" in job or state == "PENDING" or (self.at["start"] >= 0 and start in _NEVER):
            builder.skip("jobs that never started to run")
            return
        if state in _UNENDED or (self.at["end"] >= 0 and end in _NEVER):
            builder.skip("jobs that had not ended")
            return
        gpus, kinds, cpus, memory, nodes = self._resources(row)
        if not builder.keeps(gpus):
            return
        submit = self._whole_cell(row, "submit")
        if self._cell(row, "eligible") not in ("Unknown", "", submit):
            builder.count("jobs that became eligible after they were submitted (dependency, hold or array limit)")
        builder.add(
            self.table.line,
            job,
            instant(submit, self._name("submit")),
            self._run_time(row, start, end),
            builder.ask(gpus, nodes, types=kinds, cpu_milli=cpus, memory=memory),
            user=self._cell(row, "user"),
            queue=self._cell(row, "queue"),
            estimate=self._limit(row),
            state=state,
        )

    def _run_time(self, row: list[str], start: str, end: str) -> int | float:
        if self.at["elapsed"] >= 0:
            return clock(self._whole_cell(row, "elapsed"), self._name("elapsed"))
        run = instant(end, self._name("end")) - instant(start, self._name("start"))
        if run < 0:
            raise CellError(self._name("end"), f"{end!r} is before the start {start!r}", "mend or delete the row")
        return run

    def _limit(self, row: list[str]) -> float | None:
        if self.at["limit_minutes"] >= 0 and self._cell(row, "limit_minutes").isdecimal():
            return 60 * whole(self._cell(row, "limit_minutes"), self._name("limit_minutes"), 10**8)
        text = self._cell(row, "limit")
        return None if text in _NO_LIMIT else clock(text, self._name("limit"))

    def _resources(self, row: list[str]) -> tuple[int, tuple[str, ...], int, int, int]:
        """GPUs in total, their type, thousandths of CPUs, bytes, and nodes."""
        nodes = whole(self._cell(row, "nodes"), self._name("nodes")) if self._cell(row, "nodes") else 0
        field = "tres" if self._cell(row, "tres") else "alloc_tres"
        text = self._whole_cell(row, field)
        if not text:
            gres = [(kind, int(count or 1)) for kind, count in _GRES_GPU.findall(self._whole_cell(row, "gres"))]
            return whole(str(sum(n for _, n in gres) * max(nodes, 1)), self._name("gres")), _kinds(gres), 0, 0, nodes
        found = [(kind, int(count)) for kind, count in _TRES_GPU.findall(text)]
        if not found and "gres/gpu" in text:
            raise CellError(self._name(field), f"{text!r} has no number of GPUs", "it reads like gres/gpu=4")
        total = next((count for kind, count in found if not kind), sum(count for _, count in found))
        parts = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
        cpus = whole(parts["cpu"], self._name(field)) * 1000 if "cpu" in parts else 0
        memory = size(parts["mem"], self._name(field), 1 << 20) if "mem" in parts else 0
        if not nodes and "node" in parts:
            nodes = whole(parts["node"], self._name(field))
        kinds = _kinds(found) if field == "tres" else ()  # where it happened to run is not what it asked for
        return whole(str(total), self._name(field)), kinds, cpus, memory, nodes

    def _name(self, field: str) -> str:
        return self.table.names[self.at[field]]

    def _cell(self, row: list[str], field: str) -> str:
        index = self.at[field]
        return row[index].strip() if index >= 0 else ""

    def _whole_cell(self, row: list[str], field: str) -> str:
        """A cell that must not have been cut off, which sacct marks with a plus at the end."""
        text = self._cell(row, field)
        if text.endswith("+"):
            raise CellError(
                self._name(field), f"{text!r} was cut off by sacct", "run sacct with -P, which cuts nothing"
            )
        return text


def _kinds(asks: list[tuple[str, int]]) -> tuple[str, ...]:
    """The GPU type of a job; none where it took several, which no one type stands for."""
    kinds = {intern(kind.upper()) for kind, count in asks if kind and count}
    return tuple(kinds) if len(kinds) == 1 else ()
