"""`gpusched report usage`."""

from __future__ import annotations

from typing import Any

import click

from ..output import Column, Listing, Style, hours, percent
from .session import Session, pass_session
from .verb import SETTINGS, output_options, since_option, verb

JSON = dict[str, Any]

EXAMPLES = """
gpusched report usage --since 7d
gpusched report usage --by gpu-type -o csv
gpusched report usage --by job --since 2026-03-01 --sort-by -idle
"""


@click.group("report", context_settings=SETTINGS)
def report() -> None:
    """Sum up GPU-hours by user, queue, job or GPU type."""


@verb("usage", examples=EXAMPLES)
@click.option(
    "--by",
    type=click.Choice(["user", "queue", "job", "gpu-type"]),
    default="user",
    show_default=True,
    help="One row each.",
)
@since_option
@output_options
@pass_session
def usage(session: Session, *, by: str, since: str, style: Style) -> None:
    """Sum up GPU-hours: allocated, used, idle while held, and lost.

    Used is the allocated time multiplied with the measured utilization; where nothing was measured it stays empty.
    Lost is the work since their last checkpoint of jobs that were preempted, or tried again after a failure.
    Without --since, all that is kept.
    """
    found = session.client().usage(by, since=since)
    extra = {"by": found["by"], "since": found["since"], "until": found["until"]}
    session.show(
        Listing("rows", usage_columns(by), found["rows"], name="key", extra=extra, empty="no GPU-hours in that time"),
        style,
    )


def usage_columns(by: str) -> tuple[Column, ...]:
    """The columns, the first of which is what the rows are summed by."""
    return (
        Column(by.replace("-", "_"), lambda row: row["key"]),
        Column("jobs", lambda row: row["jobs"], right=True),
        _hours("allocated"),
        _hours("used"),
        _hours("idle"),
        _hours("lost"),
        Column(
            "utilization",
            lambda row: row["utilization"],
            lambda row: percent(row["utilization"]),
            right=True,
            heading="UTIL",
        ),
    )


def _hours(what: str) -> Column:
    key = f"gpu_hours_{what}"

    def text(row: JSON) -> str:
        return hours(row[key])

    return Column(
        what, lambda row: row[key], text, right=True, heading=f"GPU-HOURS {what.upper()}" if what == "allocated" else ""
    )


report.add_command(usage)
