"""`gpusched trace generate`, `convert` and `info`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click

from ...jobs.errors import TraceError
from ..output import NOTHING, SCHEMA_VERSION, clock, number, safe, span, to_json
from .session import Session, pass_session
from .trace_options import trace_options
from .verb import SETTINGS, verb

GENERATE = """
gpusched trace generate trace.csv.gz --jobs 2000 --gpus 432 --load 1.1 --mix helios
gpusched trace generate - --jobs 100 | gpusched simulate - --nodes 8x8
"""
CONVERT = """
gpusched trace convert sacct.txt trace.csv.gz
"""
INFO = """
gpusched trace info trace.csv.gz
gpusched trace info jobs.csv --columns submitted=submit_time,duration=seconds,gpus=num_gpus
"""


@click.group("trace", context_settings=SETTINGS)
def trace() -> None:
    """Generate, convert and look at traces."""


@verb("generate", examples=GENERATE)
@click.argument("target", metavar="FILE")
@click.option("--jobs", type=int, default=2000, show_default=True, metavar="N", help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Same seed and options, same bytes.")
@click.option(
    "--load", type=float, default=0.9, show_default=True, metavar="SHARE", help="GPU time asked for, of what there is."
)
@click.option(
    "--gpus", type=int, default=64, show_default=True, metavar="N", help="GPUs of the cluster that load refers to."
)
@click.option(
    "--mix", default="gavel", show_default=True, metavar="NAME", help="Sizes and run times: gavel, helios, philly, itp."
)
@click.option(
    "--arrivals", default="poisson", show_default=True, metavar="KIND", help="poisson, or diurnal with nights."
)
@click.option(
    "--users", type=int, default=20, show_default=True, metavar="N", help="The k-th submits in proportion to 1/k."
)
@click.option("--queues", default="default", show_default=True, metavar="A,B", help="Each user submits to one of them.")
@click.option(
    "--fractions", type=float, default=0.0, show_default=True, metavar="SHARE", help="1-GPU jobs that take part of one."
)
@click.option("--overestimate", type=float, metavar="X", help="Give estimates, too long by this share on average.")
@click.option("--style", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True, help="Of the file.")
def generate(target: str, *, style: Literal["csv", "jsonl"], queues: str, **options: Any) -> None:  # noqa: ANN401 - click's
    """Write a made-up trace with known distributions.

    Mixes are fitted to published traces: gavel (OSDI 2020), helios (SC 2021), philly (ATC 2019), itp (ASPLOS 2023).
    FILE is packed if it ends in .gz; `-` is standard output.
    """
    from ...jobs.traces.export import write_export  # noqa: PLC0415 - the help does not need it
    from ...jobs.traces.generate import Options  # noqa: PLC0415 - likewise
    from ...jobs.traces.generate import generate as make  # noqa: PLC0415 - likewise

    jobs = make(Options(queues=tuple(queues.split(",")), **options))
    _say(write_export(sys.stdout if target == "-" else target, jobs, style=style), target)


@verb("convert", examples=CONVERT)
@click.argument("source", metavar="TRACE")
@click.argument("target", metavar="FILE")
@trace_options
@click.option("--style", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True, help="Of the file.")
def convert(source: str, target: str, *, trace_form: dict[str, Any], style: Literal["csv", "jsonl"]) -> None:
    """Write a trace of any format in gpusched's own."""
    from ...jobs.traces.catalog import read_trace  # noqa: PLC0415 - the help does not need it
    from ...jobs.traces.export import write_export  # noqa: PLC0415 - likewise

    if target != "-" and source != "-" and Path(target).exists() and Path(target).samefile(source):
        raise TraceError(f"{target} is the trace itself", hint="name another file to write")
    read = read_trace(source, **trace_form)
    count = write_export(sys.stdout if target == "-" else target, read.jobs, epoch=read.epoch, style=style)
    for remark in read.remarks():
        click.echo(f"note: {safe(remark)}", err=True)
    if read.models:
        click.echo("note: what the jobs train was not written: this format has no column for it", err=True)
    _say(count, target)


def _say(count: int, target: str) -> None:
    if target != "-":
        click.echo(f"wrote {count:,} jobs to {target}", err=True)


@verb("info", examples=INFO)
@click.argument("source", metavar="TRACE")
@trace_options
@click.option("-o", "--output", "form", type=click.Choice(["table", "json"]), metavar="FORM", help="table or json.")
@pass_session
def info(session: Session, source: str, *, trace_form: dict[str, Any], form: str | None) -> None:
    """Say what is in a trace, and what its reader left out.

    \b
    Formats that are told by their content:
      export        gpusched's own, CSV or JSON lines
      helios        SenseTime Helios and Acme CSV
      philly        Microsoft Philly job table      philly-log  its cluster_job_log
      itp           Microsoft ITP CSV (ElasticFlow)
      alibaba       Alibaba openb pods
      slurm         Slurm sacct text, or a CSV of it
      swf           Standard Workload Format
      generic       any CSV with a header line; --columns maps its columns
    """  # noqa: D301 - \b is click's mark for lines that stay as they are
    from ...jobs.traces.catalog import read_trace  # noqa: PLC0415 - the help does not need it

    read = read_trace(source, **trace_form)
    facts = _facts(read)
    if (form or session.config["output"]) == "json":
        sys.stdout.write(to_json({"schema_version": SCHEMA_VERSION, **facts}))
        return
    shown = {
        "Trace": facts["trace"],
        "Format": facts["format"],
        "Jobs": f"{facts['jobs']:,}",
        "Users": f"{facts['users']:,}",
        "Queues": f"{facts['queues']:,}",
        "From": facts["from"] and f"{clock(facts['from'])} UTC",
        "Arrivals over": span(facts["arrivals_seconds"]),
        "GPUs of a job": f"{number(facts['gpus_mean'], 2)} on average, {number(facts['gpus_max'])} at most",
        "Run time": f"{span(facts['duration_median'])} in the middle, {span(facts['duration_max'])} at most",
        "GPU-hours": f"{facts['gpu_hours']:,.0f}",
        "With estimate": f"{facts['with_estimate']:,}",
    }
    for label, value in shown.items():
        click.echo(f"{label + ':':<16}{safe(str(value)) if value else NOTHING}")
    for note in facts["notes"]:
        click.echo(f"note: {safe(note)}")


def _facts(read: Any) -> dict[str, Any]:  # noqa: ANN401 - Trace, whose module is loaded by the verb
    from datetime import UTC, datetime  # noqa: PLC0415 - only here

    jobs = read.jobs
    durations = sorted(job.duration for job in jobs)
    gpus = [job.shape.total_gpus for job in jobs]
    begin = None if read.epoch is None else datetime.fromtimestamp(read.epoch, UTC)
    return {
        "trace": read.name,
        "format": read.format,
        "jobs": len(jobs),
        "users": len({job.user for job in jobs}),
        "queues": len({job.queue for job in jobs}),
        "from": None if begin is None else begin.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "arrivals_seconds": jobs[-1].submitted if jobs else 0,
        "gpus_mean": sum(gpus) / len(gpus) if gpus else 0.0,
        "gpus_max": max(gpus, default=0),
        "duration_median": durations[len(durations) // 2] if durations else None,
        "duration_max": durations[-1] if durations else None,
        "gpu_hours": read.gpu_hours(),
        "with_estimate": sum(job.estimate is not None for job in jobs),
        "skipped": read.skipped,
        "notes": read.remarks(),
    }


for _command in (generate, convert, info):
    trace.add_command(_command)
