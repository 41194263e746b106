"""`gpusched simulate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ...jobs.errors import GpuschedError
from .progress import Bar
from .session import Session, pass_session
from .trace_options import trace_options
from .verb import verb

if TYPE_CHECKING:
    from ...policies.greedy import Policy
    from ..report import Run, Summary

DEFAULT_POLICIES = ("fifo", "binpack", "gang")
EXAMPLE_CLUSTER = "54x8"
"""The cluster that the shipped example was generated for."""
EXAMPLES = """
gpusched simulate                                       # the shipped example, fifo against binpack against gang
gpusched simulate trace.csv.gz --nodes 54x8
gpusched simulate trace.csv --nodes 10x8:H100,4x4:A100 --policy fifo --policy mine.py:Mine
gpusched simulate jobs.csv --columns submitted=submit_time,duration=seconds,gpus=num_gpus --nodes 8x8
gpusched export | gpusched simulate - --nodes 2x8 --html report.html
"""


@verb("simulate", examples=EXAMPLES)
@click.argument("trace", required=False, metavar="[TRACE]")
@click.option(
    "--policy", "policies", multiple=True, metavar="NAME", help="May repeat; left out: fifo, binpack and gang."
)
@click.option("--nodes", metavar="NxG[:TYPE],...", help="The cluster: 54x8, or 10x8:H100,4x4:A100.")
@click.option("--cluster", metavar="FILE", help="The cluster as a YAML or CSV file of nodes.")
@trace_options
@click.option(
    "--estimates",
    type=click.Choice(["exact", "trace", "none"]),
    default="exact",
    show_default=True,
    help="What policies are told of run times: the truth, what the trace's users asked for, or nothing.",
)
@click.option(
    "--start-up", metavar="TIME", default="0s", show_default=True, help="From a start to the first second of work."
)
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "csv"]), metavar="FORM", help="table, json, csv."
)
@click.option(
    "--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write a page with all charts; works offline."
)
@click.option("--timing", is_flag=True, help="Wall time of the replay in json, csv and the page too.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notes.")
@pass_session
def simulate(
    session: Session,
    *,
    trace: str | None,
    policies: tuple[str, ...],
    nodes: str | None,
    cluster: str | None,
    trace_form: dict[str, Any],
    estimates: Literal["exact", "trace", "none"],
    start_up: str,
    form: str | None,
    html: str | None,
    timing: bool,
    quiet: bool,
) -> None:
    """Replay a trace under one policy or several, and compare them.

    The engine is the one that runs the live queue; only the cluster is simulated. The table shows completion times
    (JCT) and queueing delays, makespan, allocation ratio, fragmentation and preemptions, the best of each row starred.
    Same input, same figures, byte by byte. What a reader left out or changed is counted below the table.

    TRACE is a file of any format in `gpusched trace info --help`, gzip or not, or `-`. Left out: the shipped example.
    """
    from ...cluster.inventory import read_cluster  # noqa: PLC0415 - the help does not need it
    from ...cluster.profile import Profile  # noqa: PLC0415 - likewise
    from ...jobs.traces.catalog import read_trace  # noqa: PLC0415 - likewise
    from ...jobs.traces.generate import EXAMPLE  # noqa: PLC0415 - likewise
    from ..report import summarize  # noqa: PLC0415 - likewise
    from ..simulate import simulate as replay  # noqa: PLC0415 - likewise

    if nodes and cluster:
        raise click.UsageError("give --nodes or --cluster, not both", click.get_current_context())
    if trace and not (nodes or cluster):
        raise click.UsageError("say on which cluster: --nodes 54x8, or --cluster FILE", click.get_current_context())
    chosen = _load(policies or _configured(session))
    inventory = read_cluster(nodes or cluster or EXAMPLE_CLUSTER)
    read = read_trace(trace or EXAMPLE, **trace_form)
    runs: list[Run] = []
    summaries: list[Summary] = []
    profile = Profile(start_up=_seconds(start_up))
    for policy in chosen:
        with Bar(session, policy.name, silent=quiet) as bar:
            run = replay(read, inventory, policy, estimates=estimates, profile=profile, progress=bar.at)
            summaries.append(summarize(run))
        runs.append(run)
    _print(session, summaries, form or _form(session), timing=timing, quiet=quiet)
    if html:
        _write_page(html, runs, summaries, timing=timing)
        if not quiet:
            click.echo(f"wrote {html}", err=True)


def _configured(session: Session) -> tuple[str, ...]:
    policy = session.config["policy"]
    return (policy,) if policy else DEFAULT_POLICIES


def _load(names: tuple[str, ...]) -> list[Policy]:
    from ...policies.catalog import load  # noqa: PLC0415 - the help does not need it

    return [load(name) for name in dict.fromkeys(names)]


def _form(session: Session) -> str:
    form = session.config["output"]
    return form if form in {"json", "csv"} else "table"


def _seconds(text: str) -> float:
    from ...jobs.units import UnitError, parse_duration  # noqa: PLC0415 - the help does not need it

    try:
        return parse_duration(text)
    except UnitError as error:
        raise click.BadParameter(f"{error.message}: {error.hint}", param_hint="--start-up") from None


def _print(session: Session, summaries: list[Summary], form: str, *, timing: bool, quiet: bool) -> None:
    from ..report.table import table, to_csv, to_json  # noqa: PLC0415 - the help does not need it

    if form == "json":
        sys.stdout.write(to_json(summaries, timing=timing))
        return
    if form == "csv":
        sys.stdout.write(to_csv(summaries, timing=timing))
        return
    from rich.console import Console  # noqa: PLC0415 - machine forms do not need it

    coloured = session.colour_on(sys.stdout)
    console = Console(no_color=not coloured, highlight=False, width=session.width() or 200)
    first = summaries[0]
    console.print(f"{first.trace} on {first.cluster}: {first.submitted:,} jobs", markup=False)
    console.print(table(summaries))
    if not quiet:
        for note in dict.fromkeys(note for summary in summaries for note in summary.notes):
            console.print(f"note: {note}", markup=False)
        for line in _left_out(summaries):
            console.print(line, markup=False)


def _left_out(summaries: list[Summary]) -> list[str]:
    """What no figure counts, named as far as a few names go."""
    lines = [
        f"note: {summary.policy}: {len(summary.unfinished):,} jobs had not ended: {_few(summary.unfinished)}"
        for summary in summaries
        if summary.unfinished
    ]
    rejected = {name: why for summary in summaries for name, why in summary.rejected}
    if rejected:
        named = [f"{name} ({why})" for name, why in rejected.items()]
        many = len(rejected) > 1
        lines.append(
            f"note: {len(rejected):,} job{'s were' if many else ' was'} rejected, "
            f"no node could hold {'them' if many else 'it'}: {_few(named)}"
        )
    return lines


def _few(names: list[str] | tuple[str, ...], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _write_page(file: str, runs: list[Run], summaries: list[Summary], *, timing: bool) -> None:
    from ..report.page import page  # noqa: PLC0415 - only for --html

    text = page(runs, summaries, timing=timing)
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise GpuschedError(
            f"{file}: cannot be written: {error.strerror or error}", hint="check the path and the disk"
        ) from error
