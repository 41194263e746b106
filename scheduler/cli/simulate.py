"""`gpusched simulate`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from .files import check_folder, check_writable, write_text
from .progress import Bar
from .session import Session, pass_session
from .simulate_options import Asked, simulate_options
from .verb import verb

if TYPE_CHECKING:
    from ...cluster.backend import Node
    from ...cluster.profile import Profile
    from ...jobs.traces.trace import Trace
    from ...policies.greedy import Policy
    from ...policies.tree import Tree
    from ..report import Run, Summary

DEFAULT_POLICIES = ("fifo", "binpack", "gang")
EXAMPLE_CLUSTER = "54x8"
"""The cluster that the shipped example was generated for."""
EXAMPLES = """
gpusched simulate                                       # the shipped example, fifo against binpack against gang
gpusched simulate trace.csv.gz --nodes 54x8
gpusched simulate trace.csv --nodes 10x8:H100,4x4:A100 --policy fifo --policy mine.py:Mine
gpusched simulate jobs.csv --columns submitted=submit_time,duration=seconds,gpus=num_gpus --nodes 8x8
gpusched simulate a.csv b.csv --nodes 8x8 --nodes 16x8 --sweep load=0.7:1.3:0.1 --results out
gpusched simulate generate:jobs=2000,mix=helios --nodes 54x8 --seeds 10 --sweep load=0.7:1.3:0.1 --figures out
gpusched export | gpusched simulate - --nodes 2x8 --html report.html
"""


@verb("simulate", examples=EXAMPLES)
@click.argument("traces", nargs=-1, metavar="[TRACE]...")
@simulate_options
@pass_session
def simulate(session: Session, *, asked: Asked) -> None:
    """Replay a trace under one policy or several, and compare them.

    The engine is the one that runs the live queue; only the cluster is simulated. The table shows completion times
    (JCT) and queueing delays, makespan, allocation ratio, fragmentation and preemptions, the best of each row starred.
    Same input, same figures, byte by byte. What a reader left out or changed is counted below the table.

    TRACE is a file of any format in `gpusched trace info --help`, gzip or not, or `-`. Left out: the shipped example.
    `generate:jobs=2000,load=0.9,mix=helios` is a made-up trace, by the options of `gpusched trace generate`.

    Several traces or clusters, --sweep, --seeds, --bootstrap, --processes, --ray-address or --results make a study:
    every combination is run, over all cores or a Ray cluster, and the table has a row for each. `load` is the offered
    load: GPU time submitted, of what the cluster has from the first arrival to the last; arrivals are moved closer or
    further apart until it is so. A seed changes the made-up trace, the profile's failures, and with --bootstrap the
    arrivals; every policy meets the same. Figures are then means with 95 % confidence intervals over the seeds.
    """
    _check(asked)
    if asked.many():
        from .simulate_many import study  # noqa: PLC0415 - one run does not pay for what many need

        study(session, asked, asked.policies or _configured(session))
        return
    _one(session, asked)


def _check(asked: Asked) -> None:
    """Refuse what cannot be, and files that could not be written in the end."""
    ctx = click.get_current_context()
    if asked.nodes and asked.clusters:
        raise click.UsageError("give --nodes or --cluster, not both", ctx)
    if asked.traces and not (asked.nodes or asked.clusters):
        raise click.UsageError("say on which cluster: --nodes 54x8, or --cluster FILE", ctx)
    if asked.per_job and not asked.results:
        raise click.UsageError("--per-job says what is kept: give --results FOLDER", ctx)
    if asked.ray_address is not None and asked.processes is not None:
        raise click.UsageError("give --processes for this machine or --ray-address for a cluster, not both", ctx)
    if asked.html:
        check_writable(asked.html)
    if asked.figures:
        check_folder(asked.figures)


def _one(session: Session, asked: Asked) -> None:
    """One trace on one cluster, under each policy in turn."""
    from ...cluster.inventory import read_cluster  # noqa: PLC0415 - the help does not need it
    from ...jobs.traces.catalog import read_trace  # noqa: PLC0415 - likewise
    from ...jobs.traces.generate import EXAMPLE  # noqa: PLC0415 - likewise
    from ..report import Window, summarize  # noqa: PLC0415 - likewise
    from ..simulate import simulate as replay  # noqa: PLC0415 - likewise

    chosen = _load(asked.policies or _configured(session))
    inventory = read_cluster((*asked.nodes, *asked.clusters, EXAMPLE_CLUSTER)[0])
    source = asked.traces[0] if asked.traces else EXAMPLE
    if str(source).startswith("generate:"):
        from ..sweep.vary import generated, generator_options  # noqa: PLC0415 - few traces are made up

        gpus = sum(node.gpus for node in inventory)
        read = generated(generator_options(str(source), gpus, seed=asked.seed), str(source))
    else:
        read = read_trace(source, **asked.trace_form)
    window = Window.parse(asked.window) if asked.window else Window()
    profile, tree = profile_of(asked), _queues_of(asked)
    if tree is not None and not asked.quiet:
        warn_of_quotas(tree, inventory)
    runs: list[Run] = []
    summaries: list[Summary] = []
    for policy in chosen:
        with Bar(session, policy.name, silent=asked.quiet) as bar:
            run = replay(
                read,
                inventory,
                policy,
                estimates=asked.estimates,
                profile=profile,
                seed=asked.seed,
                tree=tree,
                progress=bar.at,
                timing=asked.timing,
            )
            summaries.append(summarize(run, window))
        runs.append(run)
    if asked.bounds:
        summaries = _bounded(read, inventory, profile, runs, summaries)
    _print(session, summaries, asked)
    if asked.html:
        _write_page(asked.html, runs, summaries, timing=asked.timing)
        if not asked.quiet:
            click.echo(f"wrote {asked.html}", err=True)
    if asked.figures:
        from ..report.figures import write_figures  # noqa: PLC0415 - only for --figures

        written = write_figures(runs, summaries, asked.figures)
        if not asked.quiet:
            click.echo(f"wrote {len(written)} files of figures to {asked.figures}", err=True)


def _bounded(
    trace: Trace, nodes: list[Node], profile: Profile | None, runs: list[Run], summaries: list[Summary]
) -> list[Summary]:
    """The summaries with lower bounds, which are the same for all policies."""
    from ...cluster.profile import ZERO  # noqa: PLC0415 - the help does not need it
    from ..sweep.floors import above, floor_of  # noqa: PLC0415 - likewise

    floor = floor_of(trace, nodes, profile or ZERO)
    return [above(summary, run, floor, profile or ZERO) for run, summary in zip(runs, summaries, strict=True)]


def profile_of(asked: Asked) -> Profile | None:
    """The profile asked for, with the start-up time asked for; None = neither."""
    if asked.profile is None and asked.start_up is None:
        return None
    from dataclasses import replace  # noqa: PLC0415 - the standard library's, and small

    from ...cluster.profile import ZERO, read_profile  # noqa: PLC0415 - the help does not need it

    profile = ZERO if asked.profile is None else read_profile(asked.profile)
    return profile if asked.start_up is None else replace(profile, start_up=seconds(asked.start_up, "--start-up"))


def _queues_of(asked: Asked) -> Tree | None:
    """The queues asked for; None = none has a limit."""
    if asked.queues is None:
        return None
    from ..queues.reading import read_queues  # noqa: PLC0415 - the help does not need it

    return read_queues(asked.queues)


def warn_of_quotas(tree: Tree, inventory: Iterable[Node]) -> None:
    """Say it if the queues promise more than the cluster has, as `queues apply` does."""
    from ..queues.compare import beyond, has  # noqa: PLC0415 - few ask for queues

    for warning in beyond(tree, has(inventory)):
        click.echo(f"warning: {warning}", err=True)


def _configured(session: Session) -> tuple[str, ...]:
    policy = session.config["policy"]
    return (policy,) if policy else DEFAULT_POLICIES


def _load(names: tuple[str, ...]) -> list[Policy]:
    from ...policies.catalog import load  # noqa: PLC0415 - the help does not need it

    return [load(name) for name in dict.fromkeys(names)]


def form_of(session: Session, asked: Asked) -> str:
    """table, json or csv: as asked for, else as configured."""
    form = asked.form or session.config["output"]
    return form if form in {"json", "csv"} else "table"


def seconds(text: str, option: str) -> float:
    """A duration that an option gives."""
    from ...jobs.units import UnitError, parse_duration  # noqa: PLC0415 - the help does not need it

    try:
        return parse_duration(text)
    except UnitError as error:
        raise click.BadParameter(f"{error.message}: {error.hint}", param_hint=option) from None


def _print(session: Session, summaries: list[Summary], asked: Asked) -> None:
    from ..report.table import table, to_csv, to_json  # noqa: PLC0415 - the help does not need it

    form = form_of(session, asked)
    if form == "json":
        sys.stdout.write(to_json(summaries, timing=asked.timing))
        return
    if form == "csv":
        sys.stdout.write(to_csv(summaries, timing=asked.timing))
        return
    from rich.console import Console  # noqa: PLC0415 - machine forms do not need it

    coloured = session.colour_on(sys.stdout)
    console = Console(no_color=not coloured, highlight=False, width=session.width() or 200)
    first = summaries[0]
    console.print(f"{first.trace} on {first.cluster}: {first.submitted:,} jobs", markup=False)
    console.print(table(summaries))
    if not asked.quiet:
        for note in dict.fromkeys(note for summary in summaries for note in summary.notes):
            console.print(f"note: {note}", markup=False)
        for line in [*_above_bounds(summaries), *_left_out(summaries)]:
            console.print(line, markup=False)


def _above_bounds(summaries: list[Summary]) -> list[str]:
    """How far each policy is above what no schedule can beat."""
    from ..report.metric import duration, percent  # noqa: PLC0415 - machine forms do not need it

    lines = []
    for summary in summaries:
        said = [
            f"{name} {percent(share)} above the clairvoyant preemptive bound of {duration(bound)}"
            for name, share, bound in (
                ("mean JCT", summary.jct_above_bound, summary.jct_bound),
                ("makespan", summary.makespan_above_bound, summary.makespan_bound),
            )
            if share is not None and bound is not None
        ]
        if said:
            lines.append(f"note: {summary.policy}: {', '.join(said)}")
    return lines


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

    write_text(file, page(runs, summaries, timing=timing))
