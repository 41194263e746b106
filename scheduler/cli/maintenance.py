"""`gpusched maintenance`: times in which nodes are not for jobs."""

from __future__ import annotations

import time
from typing import Any

import click

from ..output import Column, Listing, Style, clock, relative, safe, span
from .nodes import duration
from .session import Session, pass_session
from .verb import SETTINGS, node_selector, output_options, verb

JSON = dict[str, Any]

ADD = """
gpusched maintenance add --nodes n1,n2 --start 2026-03-01T06:00:00Z --duration 2h --reason firmware
gpusched maintenance add -l rack=7 --start 12h --duration 30m
gpusched maintenance add --all --start 2026-03-01T06:00:00Z --duration 4h --lead 0s
"""


@click.group("maintenance", context_settings=SETTINGS)
def maintenance() -> None:
    """Plan times in which nodes are not for jobs.

    Before a window begins only jobs start on its nodes that could be gone by then. What still runs is told to
    checkpoint in time and moved. When the window is over the nodes take work again by themselves.
    """


def window_columns(now: float) -> tuple[Column, ...]:
    """The columns as they read at `now`, UTC seconds."""
    return (
        Column("id", lambda one: one["id"], right=True),
        Column("state", lambda one: one["state"]),
        Column("start", lambda one: one["start"], lambda one: f"{clock(one['start'])} ({relative(one['start'], now)})"),
        Column("end", lambda one: one["end"], lambda one: clock(one["end"])),
        Column("nodes", lambda one: ",".join(one["covers"]), _nodes, flexible=True),
        Column("reason", lambda one: one["reason"], flexible=True),
        Column("by", lambda one: one["by"]),
        Column("lead", lambda one: one["lead"], lambda one: span(one["lead"]), wide=True),
        Column("added", lambda one: one["added"], lambda one: relative(one["added"], now), wide=True),
    )


def _nodes(window: JSON) -> str:
    if window["all"]:
        return f"all ({len(window['covers'])})"
    asked = ",".join([f"{key}={value}" for key, value in window["labels"].items()])
    there = ",".join(window["covers"])
    return f"{asked}: {there}" if asked else ",".join(window["nodes"])


@verb("add", examples=ADD)
@click.option("--nodes", "names", default="", metavar="A,B", help="These nodes.")
@node_selector
@click.option("--all", "everywhere", is_flag=True, help="All nodes, also those that join later.")
@click.option("--start", required=True, metavar="TIME", help="2026-03-01T06:00:00Z (UTC if no zone), or 12h from now.")
@click.option("--duration", "length", required=True, metavar="DURATION", help="How long it lasts.")
@click.option(
    "--lead", metavar="DURATION", help="So long before it no job of unknown length starts there; 1h if not said."
)
@click.option("--reason", default="", metavar="TEXT", help="Shown in `gpusched nodes` and to who waits.")
@click.option("-q", "--quiet", is_flag=True, help="Print the number alone.")
@pass_session
def add(
    session: Session,
    *,
    names: str,
    labels: dict[str, str],
    everywhere: bool,
    start: str,
    length: str,
    lead: str | None,
    reason: str,
    quiet: bool,
) -> None:
    """Plan a window.

    A job starts on its nodes before it only if its `max_duration` (or else its estimate) and its grace end before the
    window does begin; one that says nothing of its length only until the lead. What would still run when it begins is
    told to checkpoint its grace before that, and moved. It is there when this returns, and outlives restarts.
    """
    wanted = [one for one in names.split(",") if one]
    if bool(wanted) + bool(labels) + everywhere != 1:
        raise click.UsageError("give --nodes, -l or --all, one of them", click.get_current_context())
    after = _from_now(start)
    window = session.client().add_window(
        nodes=wanted,
        labels=labels,
        all=everywhere or None,
        after=after,
        start=start if after is None else None,
        duration=duration(length, "--duration"),
        lead=None if lead is None else duration(lead, "--lead"),
        reason=reason,
        user=session.user,
    )
    if quiet:
        click.echo(window["id"])
        return
    when = f"{clock(window['start'])} to {clock(window['end'])} UTC"
    click.echo(safe(f"maintenance {window['id']}: {when} on {_nodes(window)}"))


def _from_now(text: str) -> float | None:
    """Seconds from now, if it is a duration."""
    from ...jobs.units import UnitError, parse_duration  # noqa: PLC0415 - the help does not need it

    try:
        return parse_duration(text)
    except UnitError:
        return None  # then it is a time, which the control plane reads


@verb("list", examples="\ngpusched maintenance list\ngpusched maintenance list -a -o json\n")
@click.option("-a", "--all", "over", is_flag=True, help="Those that are over or cancelled too.")
@output_options
@pass_session
def list_windows(session: Session, *, over: bool, style: Style) -> None:
    """List the windows that are planned or on."""
    found = session.client().windows(over=over)
    session.show(Listing("windows", window_columns(time.time()), found, empty="no maintenance is planned"), style)


@verb("cancel", examples="\ngpusched maintenance cancel 3\n")
@click.argument("numbers", nargs=-1, required=True, metavar="ID...", type=click.IntRange(min=1))
@pass_session
def cancel(session: Session, *, numbers: tuple[int, ...]) -> None:
    """Call windows off; nodes in one take work again at once."""
    client = session.client()
    for number in numbers:
        window = client.cancel_window(number, user=session.user)
        already = "" if window["changed"] else " already"
        click.echo(safe(f"maintenance {window['id']} is {window['state']}{already}"))


maintenance.add_command(add)
maintenance.add_command(list_windows)
maintenance.add_command(cancel)
