"""`gpusched bench tiresias`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ..output import Column, Listing, Style, span
from .files import check_folder, check_writable, write_text
from .progress import Bar
from .session import Session, pass_session
from .verb import output_options, verb

if TYPE_CHECKING:
    from ...jobs.traces.trace import Trace
    from ..bench.tiresias import Asked, Done
    from ..bench.tiresias_files import Machines

JSON = dict[str, Any]

SAMPLE = "a made-up sample"

EXAMPLES = """
gpusched bench tiresias
gpusched bench tiresias 60_job.csv n32g4.csv --distribution yarn-gput1000.csv
gpusched bench tiresias 480_job.csv 15x4 --schedule dlas-gpu,shortest-gpu --scheme count,yarn --per-job jobs.csv
gpusched bench tiresias 480_job.csv 15x4 --schedule dlas-gpu --quirks none -o json
"""


@verb("tiresias", examples=EXAMPLES)
@click.argument("job_file", required=False)
@click.argument("cluster_file", required=False)
@click.option(
    "--schedule",
    metavar="A,B",
    help="Policies by the simulator's names; left out: fifo, fjf, sjf, lpjf, shortest, shortest-gpu, dlas, dlas-gpu "
    "and gittins. Also dlas-gpu-gittins, and dlas-gpu-P for promotion.",
)
@click.option(
    "--scheme", metavar="A,B", default="count", show_default=True, help="Placements: count, yarn, random, crandom."
)
@click.option(
    "--distribution",
    metavar="FILE",
    help="GPU-seconds that jobs needed, as yarn-gput1000.csv, for gittins; left out: a made-up sample.",
)
@click.option(
    "--limits", metavar="A,B", default="3250,7200", show_default=True, help="Attained service that ends each queue."
)
@click.option(
    "--quirks",
    metavar="A,B",
    default="all",
    show_default=True,
    help="What the simulator does unsaid: all, none, or some of kept-places, every-other, late-demotion, "
    "lowest-index-first, waiting-by-seconds.",
)
@click.option("--per-job", metavar="FILE", help="Write every job of every run as CSV, in the simulator's columns.")
@click.option("--html", metavar="FILE", help="Write a page with all charts; works offline.")
@click.option("--figures", metavar="FOLDER", help="Write each figure as PNG and SVG.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but the figures.")
@output_options
@pass_session
def tiresias(
    session: Session,
    /,
    *,
    job_file: str | None,
    cluster_file: str | None,
    per_job: str | None,
    html: str | None,
    figures: str | None,
    quiet: bool,
    style: Style,
    **options: Any,  # noqa: ANN401 - click's
) -> None:
    """Replay jobs as the simulator of Tiresias (NSDI 2019) does.

    JOB_FILE has the simulator's columns job_id, num_gpu, submit_time, duration; others do not matter. CLUSTER_FILE
    has num_switch, num_node_p_switch and num_gpu_p_node, or is NxG in words. Without them it runs on a small made-up
    sample. Times are whole seconds; completions of a second release first, then arrivals join, then one pass.
    Restarts cost nothing, and run times are known exactly.

    Printed are the mean, median, 95th and 99th percentile of the job completion time, the makespan and the
    preemptions. The policies are played quirks and all, so that each job starts and ends at the simulator's second;
    --quirks none has the catalogue's own policies instead. dlas, dlas-gpu and gittins count GPUs under every scheme.

    What differs is in docs/bench.md: CPUs and memory are not counted, preemptive policies under yarn keep running jobs
    where they are, and the schemes greedy, balance, cbalance and gandiva are not played.
    """
    from ..bench.tiresias import rows as rows_of  # noqa: PLC0415 - the help does not need it
    from ..bench.tiresias import run_all  # noqa: PLC0415 - likewise

    if (job_file is None) != (cluster_file is None):
        raise click.UsageError(
            "give both JOB_FILE and CLUSTER_FILE, or neither for the sample", click.get_current_context()
        )
    for file in (per_job, html):
        if file:
            check_writable(file)
    if figures:
        check_folder(figures)
    trace, machines, asked, notes = _inputs(job_file, cluster_file, **options)
    with Bar(session, "bench tiresias", silent=quiet, unit="runs") as bar:
        done = run_all(trace, machines, asked, bar.at)
    rows = rows_of(done)
    about = {
        "job_file": trace.name,
        "cluster": machines.name,
        "switches": machines.switches,
        "nodes": machines.switches * machines.nodes,
        "gpus": machines.switches * machines.nodes * machines.gpus,
        "limits": list(asked.limits),
        "quirks": sorted(asked.quirks),
    }
    if style.form in {"table", "wide"} and not quiet:
        click.echo(f"{len(trace.jobs):,} jobs on {about['gpus']:,} GPUs on {about['nodes']:,} nodes")
    session.show(Listing("policies", COLUMNS, rows, name="schedule", extra=about), style)
    if not quiet:
        for note in [*notes, *_left_out(done)]:
            click.echo(f"note: {note}", err=True)
    _write(done, per_job, html, figures)


def _inputs(
    job_file: str | None,
    cluster_file: str | None,
    *,
    schedule: str | None,
    scheme: str,
    distribution: str | None,
    limits: str,
    quirks: str,
) -> tuple[Trace, Machines, Asked, list[str]]:
    from ..bench.tiresias import DEFAULT, QUIRKS, Asked  # noqa: PLC0415 - the help does not need it
    from ..bench.tiresias_files import read_jobs, read_machines, read_sample  # noqa: PLC0415 - likewise
    from ..bench.tiresias_sample import write_sample  # noqa: PLC0415 - likewise

    chosen = _words(schedule) if schedule else DEFAULT
    with TemporaryDirectory() as folder:
        made = write_sample(Path(folder))
        trace = read_jobs(job_file or str(made[0]))
        machines = read_machines(cluster_file or str(made[1]))
        sample = read_sample(distribution or str(made[2]))
    if job_file is None:
        trace, machines = replace(trace, name=SAMPLE), replace(machines, name=SAMPLE)
    known = frozenset(QUIRKS) if quirks == "all" else frozenset() if quirks == "none" else frozenset(_words(quirks))
    asked = Asked(chosen, _words(scheme), known, _numbers(limits), tuple(sample))
    notes = list(machines.remarks(trace)) if job_file else []
    if job_file and distribution is None and any("gittins" in name for name in chosen):
        notes.append("gittins knows of run times by a made-up sample; --distribution gives it another")
    return trace, machines, asked, notes


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of seconds, such as 3250,7200", param_hint="--limits") from None


def _left_out(done: Sequence[Done]) -> list[str]:
    """Jobs that no run could place, named as far as a few names go."""
    lines = []
    for scheme in dict.fromkeys(one.scheme for one in done):
        names = list(dict.fromkeys(name for one in done if one.scheme == scheme for name, _ in one.run.rejected))
        if names:
            few = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")  # noqa: PLR2004 - a few
            lines.append(
                f"{scheme}: left out because the idle cluster could not hold them: job {few} "
                "(in the published simulator they never start, and under fifo nobody behind them does)"
            )
    return lines


def _write(done: Sequence[Done], per_job: str | None, html: str | None, figures: str | None) -> None:
    if per_job:
        times = [row for one in done for row in one.times()]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(times[0]) if times else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(times)
        write_text(per_job, text.getvalue())
        click.echo(f"wrote {len(times):,} rows to {per_job}", err=True)
    if not html and not figures:
        return
    from ..report import summarize  # noqa: PLC0415 - only for --html and --figures

    runs = [one.run for one in done]
    summaries = [summarize(run) for run in runs]
    if html:
        from ..report.page import page  # noqa: PLC0415 - only for --html

        write_text(html, page(runs, summaries, timing=False))
        click.echo(f"wrote {html}", err=True)
    if figures:
        from ..report.figures import write_figures  # noqa: PLC0415 - only for --figures

        written = write_figures(runs, summaries, figures)
        click.echo(f"wrote {len(written)} files of figures to {figures}", err=True)


def _time(key: str, heading: str) -> Column:
    return Column(key, lambda row: row[key], lambda row: span(row[key]), right=True, heading=heading)


COLUMNS = (
    Column("schedule", lambda row: row["schedule"]),
    Column("scheme", lambda row: row["scheme"]),
    _time("jct_mean", "MEAN JCT"),
    _time("jct_median", "MEDIAN"),
    _time("jct_p95", "P95"),
    _time("jct_p99", "P99"),
    _time("makespan", "MAKESPAN"),
    Column("preemptions", lambda row: row["preemptions"], right=True),
    Column("preempted_jobs", lambda row: row["preempted_jobs"], wide=True, right=True),
    Column("first_start_delay_mean", lambda row: row["first_start_delay_mean"], wide=True, right=True),
    Column("jobs", lambda row: row["jobs"], wide=True, right=True),
    Column("left_out", lambda row: row["left_out"], wide=True, right=True),
    Column("decided_by", lambda row: row["decided_by"], wide=True),
)
