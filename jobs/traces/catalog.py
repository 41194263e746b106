"""Every format that is read: a plain map, and the one function that reads any of them."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import TraceError
from . import alibaba, export, generic, helios, itp, philly, slurm, swf
from .options import Gang, Options, Resources
from .source import Source
from .table import header_of
from .trace import Trace


@dataclass(frozen=True, slots=True)
class Format:
    """A published format: what it is, how to know its header line or its first text, and how to read it."""

    what: str
    read: Callable[[Source, Options], Trace]
    by_columns: Callable[[list[str]], bool] | None = None
    by_text: Callable[[str], bool] | None = None


FORMATS: dict[str, Format] = {
    export.NAME: Format("gpusched's own export, CSV or JSON lines", export.read, by_text=export.recognises),
    swf.NAME: Format("Standard Workload Format", swf.read, by_text=swf.recognises),
    philly.LOG_NAME: Format("Microsoft Philly, cluster_job_log", philly.read_log, by_text=philly.recognises_log),
    helios.NAME: Format("SenseTime Helios or Acme CSV", helios.read, by_columns=helios.recognises),
    itp.NAME: Format("Microsoft ITP CSV (ElasticFlow)", itp.read, by_columns=itp.recognises),
    philly.NAME: Format("Microsoft Philly job table", philly.read, by_columns=philly.recognises),
    alibaba.NAME: Format("Alibaba openb pods", alibaba.read, by_columns=alibaba.recognises),
    slurm.NAME: Format("Slurm sacct text, or a CSV of it", slurm.read, by_columns=slurm.recognises),
    generic.NAME: Format("any CSV with a header line, see --columns", generic.read, by_columns=generic.recognises),
}
"""Name -> format, in the order in which a file is tried."""


def read_trace(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002 - the option's own name
    columns: Mapping[str, str] | str | None = None,
    gang: Gang = "total",
    resources: Resources = "gpus",
) -> Trace:
    """Read a trace of any known format, packed with gzip or not.

    Args:
        path: the file; `-` is standard input.
        format: one of FORMATS; None = tell by the content.
        columns: our field name -> the file's column, or the same as text `submitted=submit_time,gpus=num_gpus`; reads
            the file as a generic CSV.
        gang: whether the trace's node counts are asked for, see `Options`.
        resources: whether CPUs and memory are asked for, see `Options`.

    Raises:
        TraceError: the file cannot be read; names the file, the row, the column and the fix.
    """
    if format is not None and format not in FORMATS:
        raise TraceError(f"there is no trace format {format!r}", hint=f"the formats are {', '.join(FORMATS)}")
    if columns and format not in (None, generic.NAME):
        raise TraceError(
            f"--columns is for the format {generic.NAME!r}, not for {format!r}", hint="leave out one of the two"
        )
    if isinstance(columns, str):
        columns = generic.parse_columns(columns)
    options = Options(gang=gang, resources=resources, columns=columns or {})
    with Source(path) as source, _no_collection():
        name = generic.NAME if columns else format or recognise(source)
        return FORMATS[name].read(source, options)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the cycle collector: jobs hold no cycles, and a third of the time would go into looking for them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def recognise(source: Source) -> str:
    """The name of the file's format, told by its first lines.

    Raises:
        TraceError: it is like none that is known.
    """
    for name, form in FORMATS.items():
        if form.by_text is not None and form.by_text(source.head):
            return name
    columns = header_of(source)
    for name, form in FORMATS.items():
        if form.by_columns is not None and form.by_columns(columns):
            return name
    if {"gpu", "model"} <= set(columns) or "machineId" in columns:
        raise TraceError(f"{source.name}: is a list of machines, not of jobs", hint="give it as --nodes")
    raise TraceError(
        f"{source.name}, row 1: is like no format that is known; it starts with {source.head[:80].splitlines()[0]!r}",
        hint="map a CSV's columns with --columns submitted=COLUMN,duration=COLUMN,gpus=COLUMN, "
        f"or name one of the formats {', '.join(FORMATS)} with --format",
    )
