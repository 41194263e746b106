"""`gpusched config view` and `validate`."""

from __future__ import annotations

import os
from typing import Any

import click

from ..output import Column, Listing, Style
from .session import Session, pass_session
from .verb import SETTINGS, output_options, verb

MASK = "***"


@click.group("config", context_settings=SETTINGS)
def config() -> None:
    """Show and check the configuration.

    \b
    A setting is taken from the first of these that has it:
      an option             --address
      the environment       GPUSCHED_ADDRESS
      the project           .gpusched.yaml in this folder, or the nearest one above
      the user              ~/.config/gpusched/config.yaml
      the system            /etc/gpusched/config.yaml
    """  # noqa: D301 - \b is click's mark for lines that stay as they are


def _columns(*, origin: bool) -> tuple[Column, ...]:
    return (
        Column("key", lambda row: row["key"]),
        Column("value", lambda row: row["value"]),
        Column("origin", lambda row: row["origin"], wide=not origin),
        Column("meaning", lambda row: row["meaning"], wide=True),
    )


@verb("view", examples="\ngpusched config view --show-origin\n")
@click.option("--show-origin", is_flag=True, help="Where each value comes from.")
@output_options
@pass_session
def view(session: Session, *, show_origin: bool, style: Style) -> None:
    """Show every setting as it is now."""
    from ..config import KEYS  # noqa: PLC0415 - loaded with the session's

    rows: list[dict[str, Any]] = []
    for key, about in KEYS.items():
        setting, _ = session.config.find(key)
        value = MASK if about.secret and setting.value else setting.value
        rows.append({"key": key, "value": value, "origin": setting.origin, "meaning": about.meaning})
    session.show(Listing("settings", _columns(origin=show_origin), rows, name="key"), style)


@verb("validate", examples="\ngpusched config validate\n")
@pass_session
def validate(session: Session) -> None:
    """Check every file and variable; exit with 4 if one is wrong."""
    from ..config import files, strangers  # noqa: PLC0415 - loaded with the session's

    session.config["address"]  # reads all layers, or raises with every problem
    found = [str(path) for _, path in files(os.environ)]
    for name, hint in strangers(os.environ):
        click.echo(f"warning: {name} is no setting: {hint}", err=True)
    click.echo(
        f"valid: {', '.join(found)}" if found else "valid: there are no files, and the environment is as it should be"
    )


for _command in (view, validate):
    config.add_command(_command)
