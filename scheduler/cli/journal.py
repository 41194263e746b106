"""`gpusched journal`: the history that lies in files."""

from __future__ import annotations

from typing import Any

import click

from ..output import Column, Listing, Style, clock
from .session import Session, pass_session
from .verb import SETTINGS, output_options, verb

JSON = dict[str, Any]


@click.group("journal", context_settings=SETTINGS)
def journal() -> None:
    """The history that is archived in Parquet files.

    Jobs that ended long ago, and the journal of that time, move there by themselves, as `archive:` in settings.yaml
    says. They read as before: describe, explain, report, export and simulations of the history find them.
    """


@verb("list", examples="\ngpusched journal list\n")
@output_options
@pass_session
def list_(session: Session, *, style: Style) -> None:
    """List the parts that lie in files."""
    columns = (
        Column("part", lambda part: part["part"], right=True),
        Column("state", lambda part: part["state"]),
        Column("first", lambda part: part["first"], lambda part: clock(part["first"])),
        Column("last", lambda part: part["last"], lambda part: clock(part["last"])),
        Column("jobs", lambda part: part["jobs"], right=True),
        Column("events", lambda part: part["events"], right=True),
        Column("decisions", lambda part: part["decisions"], right=True),
        Column("bytes", lambda part: part["bytes"], right=True),
        Column("files", lambda part: " ".join(part["files"]), wide=True),
    )
    parts = session.client().archive_parts()
    session.show(Listing("parts", columns, parts, name="part", empty="nothing is archived"), style)


@verb("archive", examples="\ngpusched journal archive\ngpusched journal archive --after 7d\n")
@click.option("--after", metavar="DURATION", help="What ended so long ago; left out: as settings.yaml says.")
@pass_session
def archive(session: Session, *, after: str | None) -> None:
    """Move old history into files now. The control plane goes on meanwhile."""
    click.echo(f"{session.client().archive_now(after):,} rows moved into files")


@verb("verify", examples="\ngpusched journal verify\n")
@pass_session
def verify(session: Session) -> None:
    """See whether every file is there, and as it was written. Exit code 1 if not."""
    faults = session.client().verify_archive()
    for fault in faults:
        click.echo(fault)
    if faults:
        raise click.exceptions.Exit(1)
    click.echo("every file is as it was written")


@verb("restore", examples="\ngpusched journal restore 3\n")
@click.argument("part", type=click.IntRange(1))
@pass_session
def restore(session: Session, *, part: int) -> None:
    """Put a part back into the database.

    What is old goes out again with the next run: first let `archive.after` in settings.yaml be longer.
    """
    click.echo(f"{session.client().restore_archive(part):,} rows are in the database again")


for _command in (list_, archive, verify, restore):
    journal.add_command(_command)
