"""`gpusched ps`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ...jobs.errors import NotFoundError
from ...jobs.job import State
from ..output import Listing, Style
from .job_columns import job_columns
from .refs import QUEUE
from .session import Session, pass_session
from .verb import output_options, selector, since_option, verb
from .watching import events_as_lines, redraw, watch_option

if TYPE_CHECKING:
    from ..client import Client

MOST = 1000
"""Jobs that are listed unless more are asked for."""
FORESEEN = 10
"""Waiting jobs whose start is estimated: each costs the control plane a look ahead."""
EXAMPLES = """
gpusched ps   # my jobs that have not ended
gpusched ps -A   # everybody's
gpusched ps -a --since 1d   # finished ones too
gpusched ps --state RUNNING -o json
gpusched ps -A --columns id,user,gpus --sort-by -gpus
gpusched ps -w   # again and again
"""


@verb("ps", examples=EXAMPLES)
@click.option("-a", "--all", "all_states", is_flag=True, help="Those that have ended, too.")
@click.option("-A", "--all-users", is_flag=True, help="Everybody's, not mine alone.")
@click.option("-u", "--user", metavar="NAME", help="This user's.")
@click.option("-p", "--queue", "--partition", "queue", type=QUEUE, metavar="QUEUE", help="In this queue.")
@click.option("-n", "--name", metavar="NAME", help="Of this name.")
@click.option("--state", "states", metavar="STATE,...", help="In one of these states.")
@selector
@since_option
@click.option("--limit", type=click.IntRange(0), default=MOST, show_default=True, help="At most so many; 0 = all.")
@click.option("-q", "--quiet", is_flag=True, help="Print the ids alone.")
@watch_option
@output_options
@pass_session
def ps(
    session: Session,
    *,
    all_states: bool,
    all_users: bool,
    user: str | None,
    queue: str | None,
    name: str | None,
    states: str | None,
    labels: dict[str, str],
    since: str,
    limit: int,
    quiet: bool,
    watch: float | None,
    style: Style,
) -> None:
    """List jobs: those of yours that have not ended.

    REASON/NODES says why a job waits, where it runs, or how it ended. ETA is when a waiting job is expected to start,
    and a running one to end by its estimate. UTIL is what its GPUs were measured to do, as far as they can be.
    """
    wanted: dict[str, Any] = {
        "states": states_of(states),
        "user": "" if all_users else user or session.user,
        "queue": queue or "",
        "name": name or "",
        "labels": labels,
        "since": since,
        "all_states": all_states,
    }
    client = session.client()
    if watch is not None and style.form in {"json", "jsonl"}:
        ids = {job["id"] for job in client.jobs(**wanted)}
        events_as_lines(client, lambda event: event["job"] in ids or _joins(client, event, wanted, ids))
        return

    def picture(style: Style) -> Listing:
        client = session.client()  # anew each time: one that was started again has another address
        rows = _rows(client, wanted, limit)
        if style.form in {"table", "wide"}:
            _measure(client, rows)
            _foresee(client, rows)
        whose = "" if all_users else f" of {wanted['user']}"
        what = "jobs" if all_states or states else "unfinished jobs"
        return Listing("jobs", job_columns(time.time()), rows, name="name", empty=f"no {what}{whose}")

    if quiet:
        for row in _rows(client, wanted, limit):
            click.echo(row["id"])
    elif watch is not None:
        redraw(session, style, picture, watch)
    else:
        session.show(picture(style), style)


def states_of(text: str | None) -> list[str]:
    """States from a list with commas.

    Raises:
        BadParameter: one is none.
    """
    states = [word.strip().upper() for word in (text or "").split(",") if word.strip()]
    for state in states:
        if state not in State.__members__:
            raise click.BadParameter(f"{state} is no state; one of {', '.join(State)}", param_hint="--state")
    return states


def _rows(client: Client, wanted: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    """The newest jobs, the oldest of them first."""
    if not limit:
        return list(client.jobs(**wanted))
    rows = list(client.jobs(**wanted, newest=True, limit=limit + 1))
    if len(rows) > limit:
        rows = rows[:limit]
        click.echo(f"the newest {limit} are shown: --limit 0 shows all", err=True)
    return rows[::-1]


def _measure(client: Client, rows: list[dict[str, Any]]) -> None:
    """Add what was measured of running jobs, where the listing does not say."""
    running = [row for row in rows if row["state"] == State.RUNNING and row["gpus"] and "utilization" not in row]
    if running:
        measured = {job["id"]: job["utilization"] for job in client.top()["jobs"]}
        for row in running:
            row["utilization"] = measured.get(row["id"])


def _foresee(client: Client, rows: list[dict[str, Any]]) -> None:
    """Add when the first waiting jobs are expected to start, where the listing does not say."""
    waiting = [row for row in rows if row["position"] is not None and "eta" not in row]
    for row in sorted(waiting, key=lambda row: row["position"])[:FORESEEN]:
        try:
            eta = client.explain(row["id"])["eta"]
        except NotFoundError:
            continue  # it was removed meanwhile
        row["eta"] = eta and eta["time"]


def _joins(client: Client, event: dict[str, Any], wanted: Mapping[str, Any], ids: set[int]) -> bool:
    """Whether an event is of a new job that belongs to the listing."""
    if event["kind"] != "submitted":
        return False
    ids |= {job["id"] for job in client.jobs(**{**wanted, "all_states": True}, newest=True, limit=MOST)}
    return event["job"] in ids
