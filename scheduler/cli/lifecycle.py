"""`gpusched cancel`, `hold`, `release` and `requeue`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ..output import Listing, Style, safe
from .job_columns import job_columns
from .refs import JOB, EachError, check_named, each, named, owner_of
from .session import Session, pass_session
from .verb import output_options, selector, verb

if TYPE_CHECKING:
    pass

JSON = dict[str, Any]

FEW = 10
"""Jobs that a question names."""


def _changing(name: str, meaning: str, examples: str) -> click.Command:
    """A verb that does one thing to each of some jobs."""

    @verb(name, examples=examples)
    @click.argument("refs", nargs=-1, metavar="JOB...", type=JOB)
    @selector
    @click.option("-y", "--yes", is_flag=True, help="Do not ask when a selector means several jobs.")
    @click.option("-q", "--quiet", is_flag=True, help="Print nothing when all went well.")
    @output_options
    @pass_session
    def change(
        session: Session, *, refs: tuple[str, ...], labels: dict[str, str], yes: bool, quiet: bool, style: Style
    ) -> None:
        check_named(refs, labels)
        client = session.client()
        chosen = named(session, client, refs, labels)
        if labels and len(chosen) > 1 and not yes and sys.stdin.isatty():
            more = "" if len(chosen) <= FEW else f" and {len(chosen) - FEW} more"
            if not click.confirm(f"{name} {len(chosen)} jobs: {', '.join(chosen[:FEW])}{more}?", err=True):
                raise click.exceptions.Exit(1)
        act = getattr(client, name)
        try:
            jobs = each(chosen, lambda ref: act(ref, user=owner_of(ref, session)))
        except EachError as error:
            _show(session, error.done, name, style, quiet=quiet)
            raise
        _show(session, jobs, name, style, quiet=quiet)

    change.help = meaning
    return change


def _show(session: Session, jobs: list[JSON], name: str, style: Style, *, quiet: bool) -> None:
    if quiet:
        return
    if style.form != "table":
        session.show(Listing("jobs", job_columns(time.time()), jobs), style)
        return
    for job in jobs:
        click.echo(safe(f"job {job['id']} ({job['name']}) {_DONE.get((name, job['state']), 'is ' + job['state'])}"))


_DONE = {
    ("cancel", "CANCELLED"): "is cancelled",
    ("cancel", "STOPPING"): "is being stopped: its processes have their grace to end",
    ("hold", "HELD"): "is held",
    ("release", "QUEUED"): "is released",
    ("release", "STARTING"): "is released, and starts",
    ("requeue", "QUEUED"): "waits in line again",
    ("requeue", "PREEMPTING"): "is being stopped, with its grace; then it waits in line again",
}


cancel = _changing(
    "cancel",
    """End jobs, or take them out of the queue.

    A job that runs gets SIGTERM in every process, its grace, and then SIGKILL: nothing of it is left over.
    """,
    """
gpusched cancel 12 13
gpusched cancel @
gpusched cancel -l sweep=lr --yes
""",
)
hold = _changing(
    "hold",
    """Keep waiting jobs from starting.

    `gpusched release` lets them go.
    """,
    """
gpusched hold 12
""",
)
release = _changing(
    "release",
    """Let held jobs wait in line again.""",
    """
gpusched release 12
""",
)
requeue = _changing(
    "requeue",
    """Stop running jobs, with their grace, and queue them again.

    They go on from their checkpoint, if they keep one. It does not count against their retries.
    """,
    """
gpusched requeue 12
""",
)
