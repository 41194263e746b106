"""Our own format: what the journal of a live queue, or the generator, writes, and what replays without loss.

The first line is `#gpusched-export v1`, followed by `epoch=<Unix time of second 0>` where it is known. Then either a
CSV with a header line, or JSON lines with the same keys, those of COLUMNS: gpu_types are parted by `|`, labels are a
JSON object. Times are seconds; an empty cell is "not known". GPUs, CPUs and memory are per node of the gang, or in
total where num_nodes is 0, as in `Shape`. An id is there once; names may repeat.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TextIO

from ..errors import TraceError
from ..job import Shape, TopologyWish
from .builder import Builder
from .options import Options
from .source import Source
from .table import Table, fault
from .trace import Trace, TraceJob
from .values import MAX_BYTES, MAX_CPU_MILLI, MAX_GPUS, CellError, instant, number, seconds, whole

NAME = "export"
MARK = "#gpusched-export"
VERSION = 1
COLUMNS = (
    "id", "name", "submitted", "duration", "num_nodes", "gpus", "gpu_milli", "gpu_types", "cpu_milli", "memory",
    "labels", "distinct", "user", "queue", "priority", "estimate", "limit", "state", "attempts",
)  # fmt: skip
_FIRST = re.compile(rf"{MARK} v(\d{{1,6}})(?: epoch=(\S+))?\s*$")
_MAX_PRIORITY = 100
_MAX_ATTEMPTS = 10**9


def write_export(
    target: str | os.PathLike[str] | TextIO,
    jobs: Iterable[TraceJob],
    *,
    epoch: float | None = None,
    style: Literal["csv", "jsonl"] = "csv",
) -> int:
    """Write jobs as they come; the same jobs give the same bytes.

    Args:
        target: a path (packed if it ends in `.gz`) or an open text file.
        jobs: in order of submission.
        epoch: Unix time of second 0, if known.
        style: a CSV, or one JSON object a line.

    Returns:
        How many jobs were written.

    Raises:
        TraceError: the file cannot be written.
    """
    if not isinstance(target, str | os.PathLike):
        return _write(target, jobs, epoch, style)
    path = Path(target)
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(path.open("wb"))
            if path.suffix == ".gz":  # no name and no time inside, so that equal jobs give equal bytes
                packed = stack.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
                text: TextIO = stack.enter_context(io.TextIOWrapper(packed, "utf-8", "backslashreplace", newline=""))
            else:
                text = stack.enter_context(io.TextIOWrapper(raw, "utf-8", "backslashreplace", newline=""))
            return _write(text, jobs, epoch, style)
    except OSError as error:
        raise TraceError(
            f"{path}: cannot be written: {error.strerror or error}", hint="check the path and the disk"
        ) from error


def _write(file: TextIO, jobs: Iterable[TraceJob], epoch: float | None, style: str) -> int:
    file.write(f"{MARK} v{VERSION}" + (f" epoch={epoch!r}\n" if epoch is not None else "\n"))
    count = 0
    if style == "jsonl":
        for count, job in enumerate(jobs, 1):  # noqa: B007 - the count is the result
            record = dict(zip(COLUMNS, _record(job), strict=True))
            record["gpu_types"], record["labels"] = list(job.shape.gpu_types), dict(job.shape.labels)
            file.write(json.dumps(record, separators=(",", ":")) + "\n")
        return count
    plain = csv.writer(file, lineterminator="\n").writerow
    # csv's default leaves a lone carriage return bare, and then cannot read it: such rows are quoted throughout.
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow
    plain(COLUMNS)
    cells: dict[Shape, tuple[object, ...]] = {}
    for count, job in enumerate(jobs, 1):  # noqa: B007 - the count is the result
        asks = cells.get(job.shape)
        if asks is None:
            asks = cells[job.shape] = _asks(job.shape)
        write = quoted if "\r" in f"{job.name}{job.user}{job.queue}{job.state}{asks[3]}" else plain
        write((*job[:4], *asks, *job[5:9], job.limit, job.state, job.attempts))
    return count


def _asks(shape: Shape) -> tuple[object, ...]:
    if any(not kind or "|" in kind for kind in shape.gpu_types):
        raise TraceError(f"a GPU type of {shape.gpu_types} cannot be written", hint="types have no | in their name")
    return (
        shape.num_nodes,
        shape.gpus,
        shape.gpu_milli,
        "|".join(shape.gpu_types),
        shape.cpu_milli,
        shape.memory,
        json.dumps(dict(shape.labels), separators=(",", ":")) if shape.labels else "",
        f"{int(shape.distinct)} {shape.topology}" if shape.topology else int(shape.distinct),
    )


def _record(job: TraceJob) -> tuple[object, ...]:
    return (*job[:4], *_asks(job.shape), *job[5:9], job.limit, job.state, job.attempts)


def recognises(head: str) -> bool:
    """Whether the file starts with our mark."""
    return head.startswith(MARK)


def read(source: Source, options: Options) -> Trace:
    """Read an export of either style, exactly as it was written: GPUs, CPUs and memory, whatever the options say.

    Raises:
        TraceError: a newer version wrote it, a column is missing, a cell cannot be read, or an id is there twice.
    """
    first, _, second = source.head.partition("\n")
    found = _FIRST.match(first)
    if found is None or int(found[1]) != VERSION:
        raise TraceError(
            f"{source.name}, row 1: {first[:60]!r} is no version of the export that is read here",
            hint=f"this program reads {MARK} v{VERSION}; a newer gpusched wrote the file" if found else "write it anew",
        )
    builder = Builder(source.name, options)
    try:
        epoch = number(found[2], "epoch") if found[2] else None
    except CellError as error:
        raise fault(source.name, 1, error) from error
    lines = source.lines()
    next(lines)
    if second.lstrip().startswith("{"):
        _read_json(source.name, lines, builder)
    else:
        _read_csv(source, lines, builder)
    return builder.finish(NAME, names="labels", epoch=epoch)


def _read_csv(source: Source, lines: Iterator[str], builder: Builder) -> None:
    table = Table(source, csv.reader(lines), above=1)
    at = [table.need(name) for name in COLUMNS]
    in_order = at == list(range(len(table.names)))
    add = _Adder(builder)
    for row in table.rows():
        try:
            add(table.line, row if in_order else [row[i] for i in at])
        except CellError as error:
            raise table.fault(error) from error


def _read_json(file: str, lines: Iterator[str], builder: Builder) -> None:
    add = _Adder(builder)
    for row, line in enumerate(lines, 2):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TraceError(f"{file}, row {row}: is no JSON: {error}", hint="the row may be cut off") from error
        try:
            add(row, [_cell(record, name) for name in COLUMNS])
        except CellError as error:
            raise fault(file, row, error) from error


def _cell(record: Any, name: str) -> str:  # noqa: ANN401 - JSON holds anything
    if not isinstance(record, dict) or name not in record:
        raise CellError(name, "is missing", "each row is an object with all keys of the export")
    value = record[name]
    if name == "gpu_types" and isinstance(value, list):
        return "|".join(map(str, value))
    if isinstance(value, dict | list):
        return json.dumps(value)
    return "" if value is None else str(int(value) if isinstance(value, bool) else value)


class _Adder:
    """Cells, in the order of COLUMNS, to jobs; remembers the shapes and the ids that it has met."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._rows: dict[str, int] = {}

    def __call__(self, row: int, cells: list[str]) -> None:
        before = self._rows.setdefault(cells[0], row)
        if before != row:
            raise CellError("id", f"{cells[0]!r} is the id of row {before} too", "give each job an id of its own")
        asks = tuple(cells[4:12])
        shape = self._shapes.get(asks)
        if shape is None:
            shape = self._shapes[asks] = _shape(*asks)
        self._builder.add(
            row,
            cells[1],
            instant(cells[2], "submitted"),
            seconds(cells[3], "duration"),
            shape,
            user=cells[12],
            queue=cells[13],
            priority=whole(cells[14], "priority", _MAX_PRIORITY),
            estimate=seconds(cells[15], "estimate") if cells[15] else None,
            limit=seconds(cells[16], "limit") if cells[16] else None,
            state=cells[17],
            attempts=whole(cells[18], "attempts", _MAX_ATTEMPTS),
        )


def _shape(*cells: str) -> Shape:
    nodes, gpus, milli, types, cpu, memory, labels, distinct = cells
    try:
        wanted = json.loads(labels) if labels else {}
    except (ValueError, RecursionError) as error:
        raise CellError("labels", f"{labels!r:.60} is no JSON", 'it reads like {"rack":"a"}') from error
    if not isinstance(wanted, dict):
        raise CellError("labels", f"{labels!r:.60} is no object", 'it reads like {"rack":"a"}')
    return Shape(
        num_nodes=whole(nodes, "num_nodes"),
        gpus=whole(gpus, "gpus", MAX_GPUS),
        gpu_milli=whole(milli, "gpu_milli", 999),
        gpu_types=tuple(types.split("|")) if types else (),
        cpu_milli=whole(cpu, "cpu_milli", MAX_CPU_MILLI),
        memory=whole(memory, "memory", MAX_BYTES),
        labels=tuple(sorted((str(key), str(value)) for key, value in wanted.items())),
        distinct=bool(whole(distinct.partition(" ")[0], "distinct", 1)),
        topology=_wish(distinct),
    )


def _wish(cell: str) -> TopologyWish | None:
    """What is wished of the topology, after whether the pieces lie apart: `0 required rack`."""
    _, _, wish = cell.partition(" ")
    mode, _, level = wish.partition(" ")
    if wish and (mode not in {"required", "preferred", "balanced"} or not level):
        raise CellError("distinct", f"{wish!r:.60} is no wish", "it reads like `0 required rack`, or 0 or 1 alone")
    return TopologyWish(mode, level) if wish else None  # type: ignore[arg-type] # one of the three, as checked
