"""`gpusched audit`: who asked for what change."""

from __future__ import annotations

from typing import Any

import click

from ..output import Column, Listing, Style, clock
from .session import Session, pass_session
from .verb import output_options, since_option, verb

JSON = dict[str, Any]

AUDIT = """
gpusched audit
gpusched audit --user bob --since 7d
gpusched audit --outcome not_allowed -o json
"""

COLUMNS = (
    Column("seq", lambda line: line["seq"], right=True, wide=True),
    Column("time", lambda line: line["time"], lambda line: clock(line["time"])),
    Column("user", lambda line: line.get("user", "")),
    Column("for", lambda line: line.get("for", ""), wide=True),
    Column("role", lambda line: line.get("role", ""), wide=True),
    Column("token", lambda line: line.get("token", "")),
    Column("from", lambda line: line.get("from", "")),
    Column("verb", lambda line: line.get("verb", "")),
    Column("on", lambda line: line.get("on", ""), flexible=True),
    Column("outcome", lambda line: line.get("outcome", ""), colour=lambda text: "" if text == "done" else "red"),
    Column("count", lambda line: line.get("count", 1), right=True, wide=True),
)


@verb("audit", examples=AUDIT)
@click.option("--user", metavar="NAME", default="", help="Who asked.")
@click.option("--verb", "verb_", metavar="VERB", default="", help="For what, such as cancel or `queues apply`.")
@click.option("--outcome", metavar="CODE", default="", help="`done`, or the code of an error such as not_allowed.")
@click.option("--limit", type=click.IntRange(1), default=200, show_default=True, metavar="N", help="So many lines.")
@since_option
@output_options
@pass_session
def audit(session: Session, *, user: str, verb_: str, outcome: str, limit: int, since: str, style: Style) -> None:
    """List who asked for what change, and what came of it, the newest first. For admins.

    What was done was written together with it. What was refused is counted: COUNT says how often within a few seconds.
    """
    rows = list(session.client().audit(user=user, verb=verb_, outcome=outcome, since=since, limit=limit))
    session.show(Listing("audit", COLUMNS, rows, name="seq", empty="nothing was asked for yet"), style)
