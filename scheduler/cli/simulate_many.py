"""`gpusched simulate` with many runs: puts the study together, has it made, and prints what came out."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...cluster.inventory import read_cluster
from ...jobs.errors import GpuschedError
from ...jobs.traces.generate import EXAMPLE
from ..report import Window
from ..sweep.case import Extra, Setup
from ..sweep.combine import Group, grouped
from ..sweep.grid import SweepError, parse, points
from ..sweep.inputs import cluster_inputs, policy_inputs, profile_input, text_input, trace_inputs
from ..sweep.spread import Makers, Processes, cores
from ..sweep.study import Outcome, Study, by_chance, conduct
from ..sweep.vary import GENERATED, generator_options
from ..sweep.work import Bench
from .files import write_text
from .progress import Bar
from .session import Session
from .simulate import EXAMPLE_CLUSTER, form_of, profile_of, seconds, warn_of_quotas
from .simulate_options import Asked

if TYPE_CHECKING:
    from ..sweep.results import Results

FAILED = 3
"""Failed runs that are named one by one on standard error; the others are counted."""


def study(session: Session, asked: Asked, policies: Sequence[str]) -> None:
    """Run every combination that was asked for."""
    plan = planned(asked, policies)
    notes = _notes(plan, asked)
    results = _results(asked)
    try:
        with Bar(session, "simulate", silent=asked.quiet, unit="runs") as bar:
            outcome = _made(plan, asked, results, bar)
    finally:
        if results is not None:
            results.close()
    groups = grouped(outcome.rows)
    notes += _notes_of(groups)
    if groups:
        _print(session, asked, plan, outcome, groups=groups, notes=notes)
        _draw(asked, plan, groups, notes)
    if outcome.failures:
        raise _failed(plan, outcome)


def planned(asked: Asked, policies: Sequence[str]) -> Study:
    """The study, with everything read and checked that can be before the first run."""
    swept = parse(asked.sweep)
    if "seed" in swept and asked.seeds is not None:
        raise SweepError("--seeds and --sweep seed both say which seeds", hint="give one of them")
    if "start_up" in swept and asked.start_up is not None:
        raise SweepError("--start-up and --sweep start_up both say how long a start takes", hint="give one of them")
    seeds = [int(seed) for seed in swept.get("seed", range(asked.seed, asked.seed + (asked.seeds or 1)))]
    traces = trace_inputs(asked.traces or (str(EXAMPLE),), asked.trace_form)
    clusters = cluster_inputs(asked.nodes or asked.clusters or (EXAMPLE_CLUSTER,), read_cluster)
    extras: dict[str, Extra] = {}
    if asked.profile is not None:
        profile = profile_of(asked)
        assert profile is not None, "a profile was asked for"
        extras["profile"] = profile_input(asked.profile, profile)
    if asked.window is not None:
        extras["window"] = text_input(asked.window, Window.parse(asked.window), asked.window)
    if asked.queues is not None:
        from ..queues.reading import parse_queues, read_text  # noqa: PLC0415 - brings pydantic, and few ask for queues

        text = read_text(asked.queues)
        tree = parse_queues(text, file=asked.queues)  # what is wrong with it is said here, with its whole path
        for nodes in clusters.values() if not asked.quiet else ():
            warn_of_quotas(tree, nodes)
        extras["queues"] = text_input(Path(asked.queues).name, text, text)
    setup = Setup(
        traces,
        clusters,
        policy_inputs(policies),
        estimates=asked.estimates,
        start_up=None if asked.start_up is None else seconds(asked.start_up, "--start-up"),
        bootstrap=_block(asked.bootstrap),
        bounds=asked.bounds,
        extras=extras,
        per_job=asked.per_job,
    )
    plan = Study(setup, points(swept), seeds)
    _check_traces(plan)
    return plan


def _block(text: str | None) -> float | None:
    if text is None:
        return None
    block = seconds(text, "--bootstrap")
    if block <= 0:
        raise click.BadParameter("give a time above 0, such as 1d", param_hint="--bootstrap")
    return block


def _check_traces(plan: Study) -> None:
    """Find what is wrong with a trace once and now, rather than in each of its runs."""
    setup = plan.setup
    bench = Bench(setup)
    made_up = [key for point in plan.points[:1] for key, _ in point if key.startswith("generate.")]
    for trace in setup.traces.values():
        if not trace.source.startswith(GENERATED):
            if made_up:
                raise SweepError(
                    f"--sweep {made_up[0]}: {trace.label} is a file, not a made-up trace",
                    hint="give generate: as TRACE",
                )
            bench.read(trace.label)
            continue
        for nodes in setup.clusters.values():
            for point in plan.points:
                more = [(key.partition(".")[2], str(value)) for key, value in point if key.startswith("generate.")]
                generator_options(trace.source, sum(node.gpus for node in nodes), more=more)


def _notes(plan: Study, asked: Asked) -> list[str]:
    """What the seeds change, or that they change nothing."""
    notes = []
    asked_for = asked.seeds is not None or len(plan.seeds) > 1
    for label in plan.setup.traces:
        chance = by_chance(plan.setup, label)
        if chance and asked_for:
            notes.append(f"{label}: a seed changes {' and '.join(chance)}; every policy meets the same")
        elif asked_for:
            notes.append(
                f"{label}: nothing is left to chance, so one run stands for all {len(plan.seeds)} seeds and there are "
                "no intervals; seeds count for generate: traces, for a profile with failures, and with --bootstrap"
            )
    return notes


def _results(asked: Asked) -> Results | None:
    if asked.results is None:
        return None
    from ..sweep.results import Results  # noqa: PLC0415 - brings pyarrow, and only for --results

    return Results(asked.results)


def _made(plan: Study, asked: Asked, results: Results | None, bar: Bar) -> Outcome:
    done = 0

    def progress(count: int, total: int) -> None:
        nonlocal done
        done = count
        bar.at(count, total)

    def makers() -> Makers:
        if asked.ray_address is None:
            return Processes(plan.setup, asked.processes or cores())
        from ..sweep.ray_side import OnRay  # noqa: PLC0415 - only for --ray-address

        return OnRay(plan.setup, asked.ray_address, say=lambda line: click.echo(f"note: {line}", err=True))

    try:
        return conduct(plan, makers, results=results, progress=progress)
    except KeyboardInterrupt:
        kept = f"{runs(done)} kept in {asked.results}: the same command goes on from there"
        click.echo(f"interrupted: {kept if results else 'nothing is kept without --results FOLDER'}", err=True)
        raise


def _notes_of(groups: Sequence[Group]) -> list[str]:
    """What the runs' own notes say: those that differ in their figures alone once, with how many runs say so."""
    alike: dict[str, list[str]] = {}
    for group in groups:
        for row in group.rows:
            for note in row.get("notes") or ():
                alike.setdefault(re.sub(r"\d[\d.,]*", "#", note), []).append(note)
    total = sum(len(group.rows) for group in groups)
    return [
        notes[0] if len(notes) == total and len(set(notes)) == 1 else f"in {len(notes):,} of {runs(total)}: {notes[0]}"
        for notes in alike.values()
    ]


def runs(count: int) -> str:
    """A count of runs in words."""
    return f"{count:,} run{'' if count == 1 else 's'}"


def _print(
    session: Session, asked: Asked, plan: Study, outcome: Outcome, *, groups: Sequence[Group], notes: Sequence[str]
) -> None:
    from ..sweep.show import legend, table, to_csv, to_json  # noqa: PLC0415 - not needed where nothing came out

    form = form_of(session, asked)
    if form == "json":
        failures = [(str(case), why) for case, why in outcome.failures]
        sys.stdout.write(to_json(groups, failures, notes, timing=asked.timing))
        return
    if form == "csv":
        sys.stdout.write(to_csv(groups, timing=asked.timing))
        return
    from rich.console import Console  # noqa: PLC0415 - machine forms do not need it

    console = Console(no_color=not session.colour_on(sys.stdout), highlight=False, width=session.width() or 200)
    console.print(f"{_where(plan)}: {runs(len(outcome.rows))}", markup=False)
    console.print(table(groups))
    for line in [] if asked.quiet else [*legend(groups), *(f"note: {note}" for note in notes)]:
        console.print(line, markup=False)
    if outcome.found and not asked.quiet:
        click.echo(f"in {asked.results} already: {runs(outcome.found)}", err=True)


def _where(plan: Study) -> str:
    """On what it was run, in a few words."""
    traces, clusters = list(plan.setup.traces), list(plan.setup.clusters)
    one_trace = traces[0] if len(traces) == 1 else f"{len(traces)} traces"
    return f"{one_trace} on {clusters[0] if len(clusters) == 1 else f'{len(clusters)} clusters'}"


def _draw(asked: Asked, plan: Study, groups: Sequence[Group], notes: Sequence[str]) -> None:
    if asked.html:
        from ..sweep.page import page  # noqa: PLC0415 - only for --html

        write_text(asked.html, page(groups, f"{', '.join(plan.setup.policies)} on {_where(plan)}", notes))
        _wrote(asked, asked.html)
    if asked.figures:
        from ..sweep.figures import write_figures  # noqa: PLC0415 - only for --figures

        written = write_figures(groups, asked.figures)
        _wrote(asked, f"{len(written)} files of figures to {asked.figures}")


def _wrote(asked: Asked, what: str) -> None:
    if not asked.quiet:
        click.echo(f"wrote {what}", err=True)


def _failed(plan: Study, outcome: Outcome) -> GpuschedError:
    """The failures in words, each run by its name."""
    count = len(outcome.failures)
    lines = [f"{case}: {why}" for case, why in outcome.failures[:FAILED]]
    lines += [f"and {count - FAILED:,} more"] if count > FAILED else []
    total = len(plan.cases())
    return GpuschedError(
        f"{count:,} of {runs(total)} failed:\n" + "\n".join(lines),
        hint="the other runs are in the figures; -o json names all that failed",
    )
