"""`gpusched doctor`."""

from __future__ import annotations

import sys
from operator import itemgetter

import click

from ..output import Column, Listing, Style
from .session import Session, pass_session
from .verb import output_options, verb

COLUMNS = tuple(Column(name, itemgetter(name)) for name in ("name", "status", "found", "why", "fix"))


@verb("doctor", examples="\ngpusched doctor\ngpusched doctor -o json\n")
@output_options
@pass_session
@click.pass_context
def doctor(ctx: click.Context, session: Session, *, style: Style) -> None:
    """Check what cannot be seen: Ray's settings, GPUs, disk, clock.

    Each fault comes with why it matters and how to mend it. Looks at this machine only, and changes nothing. Exits with
    1 if something keeps jobs from running or loses them; warnings do not count.
    """
    from ..client import paths_of  # noqa: PLC0415 - the help does not need it
    from ..daemon import DEFAULT_PORT, running  # noqa: PLC0415 - likewise
    from ..doctor import Port, as_json, as_table, doctor_report, exit_code  # noqa: PLC0415 - likewise

    paths = paths_of(session.config)
    plane = running(paths)
    port = int(plane.url.rpartition(":")[2]) if plane is not None else int(session.config["port"] or DEFAULT_PORT)
    checks = doctor_report(
        paths.root,
        session.config["ray_address"],
        session.config["database_url"],
        ports=(Port("the control plane", port, ("gpusched",)),),
    )
    if style.form in {"table", "wide"}:
        from rich.console import Console  # noqa: PLC0415 - machine forms do not need it

        console = Console(no_color=not session.colour_on(sys.stdout), highlight=False, width=session.width() or 120)
        console.print(as_table(checks))
    else:
        session.show(Listing("checks", COLUMNS, as_json(checks)), style)
    ctx.exit(exit_code(checks))
