"""`gpusched policy compare`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ...jobs.errors import NotFoundError
from ..output import SCHEMA_VERSION, Column, Listing, Style, safe, to_json
from .files import check_writable, write_text
from .progress import Bar
from .session import Session, pass_session
from .simulate_options import input_options
from .verb import since_option, verb

if TYPE_CHECKING:
    from ...jobs.job import Job
    from ..report import Run, Summary, Window
    from ..report.compare import Change, GroupChange, Pair
    from .compare_inputs import Inputs

JSON = dict[str, Any]

EXAMPLES = """
gpusched policy compare binpack easy                                # on this site's own history
gpusched policy compare fifo easy conservative trace.csv.gz --nodes 54x8
gpusched policy compare fifo mine.py:Mine generate:jobs=2000 --nodes 8x8 --queues queues.yaml
gpusched policy compare easy fair --history --since 30d --per-job jobs.csv
"""
MOST_NAMED = 3
MOST_GROUPS = 12
"""Users or queues that a table shows; JSON has all."""


@verb("compare", examples=EXAMPLES)
@click.argument("names", nargs=-1, required=True, metavar="A B... [TRACE]")
@input_options
@click.option("--window", metavar="WINDOW", help="Jobs that are measured: full, batch:1d..5d, steady:1000..5000.")
@click.option("--history", is_flag=True, help="On the control plane's recorded history, or not at all.")
@since_option
@click.option(
    "--top",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="Jobs named that change most.",
)
@click.option("--per-job", metavar="FILE", help="Write every job under each policy as CSV.")
@click.option(
    "-o", "--output", "form", type=click.Choice(["table", "json", "csv"]), metavar="FORM", help="table, json, csv."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notes.")
@pass_session
def compare(
    session: Session,
    /,
    *,
    names: tuple[str, ...],
    window: str | None,
    top: int,
    per_job: str | None,
    form: Literal["table", "json", "csv"] | None,
    quiet: bool,
    **asked: Any,  # noqa: ANN401 - click's
) -> None:
    """Say what changes for whom if another policy decides.

    The policies run on the same jobs; the first is what the others are compared with. Shown are the figures side by
    side, in per cent and with what is better; the jobs that gain and lose most, paired one by one; and users, queues
    and sizes of jobs.

    TRACE is a file, `-`, or `generate:...`, as in `gpusched simulate`. Without it the jobs are those that the running
    control plane has recorded, on its nodes and with its queues; without a control plane, or as long as no job of it
    has ended, the shipped example. Which it is, is said.
    """
    from ...policies.catalog import load  # noqa: PLC0415 - the help does not need it
    from ..report import Window, summarize  # noqa: PLC0415 - likewise
    from ..simulate import simulate  # noqa: PLC0415 - likewise
    from .compare_inputs import inputs  # noqa: PLC0415 - likewise

    policies, trace = _split(names)
    loaded = [load(name) for name in policies]
    if per_job:
        check_writable(per_job)
    measured = Window.parse(window) if window else Window()
    found = inputs(session, trace, **asked)
    runs: list[Run] = []
    for policy in loaded:
        with Bar(session, policy.name, silent=quiet) as bar:
            runs.append(
                simulate(
                    found.trace,
                    found.nodes,
                    policy,
                    estimates=found.estimates,
                    profile=found.profile,
                    seed=found.seed,
                    tree=found.tree,
                    progress=bar.at,
                )
            )
    compared = _compared(runs, [summarize(run, measured, isolated=False) for run in runs], measured, top)
    shown = form or (session.config["output"] if session.config["output"] in {"json", "csv"} else "table")
    if shown == "json":
        sys.stdout.write(to_json(_document(found, compared)))
    elif shown == "csv":
        sys.stdout.write(_figures_csv(compared))
    else:
        _print(session, found, compared, quiet=quiet)
    if per_job:
        write_text(per_job, _jobs_csv(compared))
        if not quiet:
            click.echo(f"wrote {per_job}", err=True)


def _split(names: Sequence[str]) -> tuple[list[str], str | None]:
    """The policies, and the trace if the last name is one."""
    *policies, last = dict.fromkeys(names)
    is_trace = last == "-" or last.startswith("generate:") or (Path(last).is_file() and ".py:" not in last)
    policies, trace = (policies, last) if is_trace else ([*policies, last], None)
    if len(policies) < 2:  # noqa: PLR2004 - one alone cannot be compared
        raise click.UsageError("name two policies or more, such as `compare fifo easy`", click.get_current_context())
    if trace is None and len(policies) > 2 and ("/" in last or "." in last) and ".py:" not in last and "+" not in last:  # noqa: PLR2004 - as above
        raise NotFoundError(f"{last}: no such file, and no policy", hint="check the path of the trace")
    return policies, trace


@dataclass(frozen=True, slots=True)
class Compared:
    """One policy against the first. Attributes: unpaired: jobs that did not start and end under both."""

    first: Summary
    other: Summary
    changes: list[Change]
    pairs: list[Pair]
    unpaired: list[Job]
    gainers: list[Pair]
    losers: list[Pair]
    groups: dict[str, list[GroupChange]]


def _compared(runs: Sequence[Run], summaries: Sequence[Summary], window: Window, top: int) -> list[Compared]:
    from ..report.compare import by, by_size, changes, most, pairs  # noqa: PLC0415 - the help does not need it

    made = []
    for run, summary in zip(runs[1:], summaries[1:], strict=True):
        found, unpaired = pairs(runs[0], run, window)
        gainers, losers = most(found, top)
        groups = {
            "user": by(found, lambda job: job.user),
            "queue": by(found, lambda job: job.queue),
            "size": by_size(found),
        }
        made.append(
            Compared(summaries[0], summary, changes(summaries[0], summary), found, unpaired, gainers, losers, groups)
        )
    return made


# For people -----------------------------------------------------------------------------------------------------------


def _print(session: Session, found: Inputs, compared: Sequence[Compared], *, quiet: bool) -> None:
    style = Style(colour=session.colour_on(sys.stdout), width=session.width())
    first = compared[0].first
    click.echo(f"{found.said}: {first.submitted:,} jobs on {first.cluster}")
    for one in compared:
        click.echo(f"\n{one.first.policy} -> {one.other.policy}")
        session.show(Listing("figures", _figure_columns(one), _figure_rows(one)), style)
        gain, lose = sum(pair.gain > 0 for pair in one.pairs), sum(pair.gain < 0 for pair in one.pairs)
        click.echo(
            f"\n{len(one.pairs):,} jobs under both: {gain:,} end sooner, {lose:,} later, "
            f"{len(one.pairs) - gain - lose:,} at the same time"
        )
        for title, members in (("gain most", one.gainers), ("lose most", one.losers)):
            if members:
                click.echo(f"\nJobs that {title} under {one.other.policy}")
                session.show(Listing("jobs", JOB_COLUMNS, [_pair_row(pair) for pair in members]), style)
        for what, groups in one.groups.items():
            if len(groups) > 1:
                click.echo(f"\nBy {what}")
                session.show(Listing(what, _group_columns(what), _group_rows(groups[:MOST_GROUPS])), style)
                if len(groups) > MOST_GROUPS:
                    click.echo(f"and {len(groups) - MOST_GROUPS:,} more")
        if one.unpaired and not quiet:
            names = ", ".join(safe(job.name or str(job.id)) for job in one.unpaired[:MOST_NAMED])
            more = ", ..." if len(one.unpaired) > MOST_NAMED else ""
            click.echo(f"note: {len(one.unpaired):,} jobs did not start and end under both: {names}{more}")
    if not quiet:
        for note in dict.fromkeys(
            note for one in compared for summary in (one.first, one.other) for note in summary.notes
        ):
            click.echo(f"note: {note}")


def _figure_rows(one: Compared) -> list[JSON]:
    rows = []
    for change in one.changes:
        if change.metric.detail:
            continue
        metric = change.metric
        plain = metric.label in {"mean", "p50", "p90", "p99"}
        rows.append(
            {
                "figure": f"{metric.section} {metric.label}" if plain else metric.label,
                "before": "-" if change.before is None else metric.text(change.before),
                "after": "-" if change.after is None else metric.text(change.after),
                "change": _signed(change.share),
                "verdict": {True: "better", False: "worse", None: ""}[change.better],
            }
        )
    return rows


def _signed(share: float | None) -> str:
    if share is None:
        return "-"
    return "same" if abs(share) < 5e-5 else f"{100 * share:+,.1f}%"  # noqa: PLR2004 - 0.0 % to one digit


def _colour(text: str) -> str:
    return {"better": "green", "worse": "red"}.get(text, "")


def _figure_columns(one: Compared) -> tuple[Column, ...]:
    return (
        Column("figure", lambda row: row["figure"], heading=" "),
        Column("before", lambda row: row["before"], right=True, heading=one.first.policy),
        Column("after", lambda row: row["after"], right=True, heading=one.other.policy),
        Column("change", lambda row: row["change"], right=True),
        Column("verdict", lambda row: row["verdict"], heading=" ", colour=_colour),
    )


def _time(value: float) -> str:
    from ..report.metric import duration  # noqa: PLC0415 - machine forms do not need it

    return duration(value)


def _pair_row(pair: Pair) -> JSON:
    from ..report.compare import relative  # noqa: PLC0415 - the help does not need it

    job = pair.job
    return {
        "job": job.name or str(job.id),
        "user": job.user,
        "queue": job.queue,
        "gpus": job.shape.total_gpus,
        "jct_before": pair.jct[0],
        "jct_after": pair.jct[1],
        "delay_before": pair.delay[0],
        "delay_after": pair.delay[1],
        "gain": pair.gain,
        "change": relative(*pair.jct),
    }


JOB_COLUMNS = (
    Column("job", lambda row: row["job"], flexible=True),
    Column("user", lambda row: row["user"]),
    Column("queue", lambda row: row["queue"]),
    Column("gpus", lambda row: row["gpus"], right=True),
    Column("before", lambda row: row["jct_before"], lambda row: _time(row["jct_before"]), right=True, heading="JCT"),
    Column("after", lambda row: row["jct_after"], lambda row: _time(row["jct_after"]), right=True, heading="THEN"),
    Column("gain", lambda row: row["gain"], lambda row: _gain(row["gain"]), right=True, heading="ENDS"),
    Column("change", lambda row: row["change"], lambda row: _signed(row["change"]), right=True),
)


def _gain(seconds: float) -> str:
    return f"{_time(abs(seconds))} {'sooner' if seconds > 0 else 'later'}"


def _group_rows(groups: Iterable[GroupChange]) -> list[JSON]:
    return [
        {
            "name": group.name,
            "jobs": group.jobs,
            "jct_mean_before": group.jct[0],
            "jct_mean_after": group.jct[1],
            "change": group.share,
            "queueing_delay_mean_before": group.delay[0],
            "queueing_delay_mean_after": group.delay[1],
            "gain": group.gain,
            "lose": group.lose,
        }
        for group in groups
    ]


def _group_columns(what: str) -> tuple[Column, ...]:
    def time(key: str, heading: str) -> Column:
        text: Callable[[JSON], str] = lambda row: _time(row[key])  # noqa: E731 - one key each
        return Column(key, lambda row: row[key], text, right=True, heading=heading)

    return (
        Column("name", lambda row: row["name"], heading=what.upper()),
        Column("jobs", lambda row: row["jobs"], right=True),
        time("jct_mean_before", "MEAN JCT"),
        time("jct_mean_after", "THEN"),
        Column("change", lambda row: row["change"], lambda row: _signed(row["change"]), right=True),
        time("queueing_delay_mean_before", "MEAN DELAY"),
        time("queueing_delay_mean_after", "THEN"),
        Column("gain", lambda row: row["gain"], right=True, heading="SOONER"),
        Column("lose", lambda row: row["lose"], right=True, heading="LATER"),
    )


# For machines ---------------------------------------------------------------------------------------------------------


def _document(found: Inputs, compared: Sequence[Compared]) -> JSON:
    from ..report.table import to_dict  # noqa: PLC0415 - the help does not need it

    summaries = [compared[0].first, *(one.other for one in compared)]
    return {
        "schema_version": SCHEMA_VERSION,
        "units": {"time": "s", "share": "0..1"},
        "source": found.source,
        "runs": [to_dict(summary) for summary in summaries],
        "comparisons": [_comparison(one) for one in compared],
    }


def _comparison(one: Compared) -> JSON:
    return {
        "before": one.first.policy,
        "after": one.other.policy,
        "figures": {
            change.metric.key: {
                "before": change.before,
                "after": change.after,
                "change": change.share,
                "better": change.better,
            }
            for change in one.changes
        },
        "paired": len(one.pairs),
        "unpaired": [job.name or str(job.id) for job in one.unpaired],
        "sooner": sum(pair.gain > 0 for pair in one.pairs),
        "later": sum(pair.gain < 0 for pair in one.pairs),
        "gain_most": [_pair_row(pair) for pair in one.gainers],
        "lose_most": [_pair_row(pair) for pair in one.losers],
        **{f"by_{what}": _group_rows(groups) for what, groups in one.groups.items()},
    }


def _figures_csv(compared: Sequence[Compared]) -> str:
    rows = [
        {
            "before": one.first.policy,
            "after": one.other.policy,
            "figure": change.metric.key,
            "value_before": change.before,
            "value_after": change.after,
            "change": change.share,
            "better": None if change.better is None else str(change.better).lower(),
        }
        for one in compared
        for change in one.changes
    ]
    return _csv(rows)


def _jobs_csv(compared: Sequence[Compared]) -> str:
    return _csv(
        [
            {"before": one.first.policy, "after": one.other.policy, **_pair_row(pair)}
            for one in compared
            for pair in one.pairs
        ]
    )


def _csv(rows: Sequence[JSON]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return out.getvalue()


def _cell(value: object) -> object:
    """A spreadsheet takes a text that begins with = + - @ for a formula: an apostrophe goes before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"} else value
