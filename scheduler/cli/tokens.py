"""`gpusched token`: what people and programs show to be let in."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from ..access.model import Role
from ..output import SCHEMA_VERSION, Column, Listing, Style, relative, safe
from .session import Session, pass_session
from .verb import SETTINGS, form_option, output_options, verb

JSON = dict[str, Any]

CREATE = """
gpusched token create --note laptop                       # for yourself
gpusched token create --user ann --expires 30d            # an admin, for somebody else
gpusched token create --role viewer --note dashboard --expires never
"""


@click.group("token", context_settings=SETTINGS)
def token() -> None:
    """Make, list and revoke tokens.

    A token stands for its user. It is shown once, when it is made; the control plane keeps its SHA-256 alone.
    `gpusched login` takes it where it is used, or GPUSCHED_TOKEN.
    """


@verb("create", examples=CREATE)
@click.option("--user", metavar="NAME", default="", help="Whose; yours if left out. For others: admins.")
@click.option("--expires", metavar="TIME", default="90d", show_default=True, help="A duration, or never.")
@click.option("--note", metavar="TEXT", default="", help="What it is for.")
@click.option("--role", type=click.Choice([role.value for role in Role]), help="It carries no more than this role.")
@form_option
@pass_session
def create(session: Session, *, user: str, expires: str, note: str, role: str | None, style: Style) -> None:
    """Make a token, and print it this one time.

    The token alone goes to standard output, what is known of it to standard error.
    """
    made = session.client().create_token(user, note=note, expires=expires, role=role or "")
    if style.form in {"json", "jsonl"}:
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, "token": made}))
        return
    until = f"until {made['expires'][:10]}" if made["expires"] else "until it is revoked"
    click.echo(safe(f"token {made['id']} of {made['user']}, good {until}; it is not shown again:"), err=True)
    sys.stdout.write(f"{made['token']}\n")


def _columns(now: float) -> tuple[Column, ...]:
    def when(key: str) -> Any:  # noqa: ANN401 - a function of a row
        return lambda row: relative(row[key], now)

    return (
        Column("id", lambda row: row["id"]),
        Column("user", lambda row: row["user"]),
        Column("state", lambda row: row["state"], colour=lambda state: "" if state == "good" else "red"),
        Column("role", lambda row: row["role"] or "", wide=True),
        Column("note", lambda row: row["note"], flexible=True),
        Column("created", lambda row: row["created"], when("created")),
        Column("expires", lambda row: row["expires"], when("expires")),
        Column("last_used", lambda row: row["last_used"], when("last_used"), heading="LAST USED"),
        Column("last_from", lambda row: row["last_from"], heading="FROM", wide=True),
        Column("revoked", lambda row: row["revoked"], when("revoked"), wide=True),
    )


@verb("list", examples="\ngpusched token list\ngpusched token list --all -o wide\n")
@click.option("--user", metavar="NAME", default="", help="Whose; yours if left out. Others': admins.")
@click.option("-a", "--all", "everybody", is_flag=True, help="Everybody's. Admins.")
@output_options
@pass_session
def list_(session: Session, *, user: str, everybody: bool, style: Style) -> None:
    """List tokens: their ids and notes, until when they are good, and when they were used last. Not what they are."""
    rows = session.client().tokens(user, everybody=everybody)
    session.show(Listing("tokens", _columns(time.time()), rows, name="id", empty="no tokens"), style)


@verb("revoke", examples="\ngpusched token revoke k3x9m2p7qa\n")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@pass_session
def revoke(session: Session, ids: tuple[str, ...]) -> None:
    """Refuse tokens from now on, by their ids.

    Within two seconds on every control plane of the database. What they submitted goes on.
    """
    from ..access.tokens import id_of  # noqa: PLC0415 - the help does not need it
    from .refs import each  # noqa: PLC0415 - likewise

    client = session.client()

    def act(name: str) -> None:
        done = client.revoke_token(id_of(name) or name)  # the whole token will do, too
        click.echo(safe(f"token {done['id']} of {done['user']} is revoked"))

    each(ids, act)


for _command in (create, list_, revoke):
    token.add_command(_command)
