"""`gpusched users`: who may ask for what."""

from __future__ import annotations

import time
from typing import Any

import click

from ..access.model import ROLES, Role
from ..output import Column, Listing, Style, relative, safe
from .session import Session, pass_session
from .verb import SETTINGS, output_options, verb

JSON = dict[str, Any]

ROLE = click.Choice([role.value for role in Role])
_WORDS = "\n".join(f"      {role:<10}{ROLES[role]}" for role in Role)


@click.group(
    "users",
    context_settings=SETTINGS,
    help=f"""Let people in, and say what they may do. For admins.

    \b
    Each role may do all that the ones before it may:
{_WORDS}

    Who started the control plane is an admin without being in the list, by the token in its state directory.
    """,
)
def users() -> None:
    """Its words are above, made from the roles."""


def _columns(now: float) -> tuple[Column, ...]:
    return (
        Column("name", lambda user: user["name"]),
        Column("role", lambda user: user["role"]),
        Column("groups", lambda user: ",".join(user["groups"])),
        Column("state", lambda user: "disabled" if user["disabled"] else "active", colour=_colour),
        Column("tokens", lambda user: user["tokens"], right=True),
        Column("created", lambda user: user["created"], lambda user: relative(user["created"], now), wide=True),
        Column("changed", lambda user: user["changed"], lambda user: relative(user["changed"], now), wide=True),
    )


def _colour(state: str) -> str:
    return "red" if state == "disabled" else ""


def _groups(text: str) -> list[str]:
    return [group for group in text.replace(",", " ").split() if group]


@verb("list", examples="\ngpusched users list\n")
@output_options
@pass_session
def list_(session: Session, *, style: Style) -> None:
    """List the users: role, groups, and how many good tokens each has."""
    rows = session.client().users()
    session.show(
        Listing("users", _columns(time.time()), rows, empty="nobody was let in yet: `gpusched users add`"), style
    )


@verb("add", examples="\ngpusched users add ann\ngpusched users add bob --role operator --groups nlp,vision\n")
@click.argument("name", metavar="NAME")
@click.option("--role", type=ROLE, default=Role.USER.value, show_default=True, help="What they may do.")
@click.option("--groups", metavar="A,B", default="", help="For the queues' access lists.")
@pass_session
def add(session: Session, name: str, *, role: str, groups: str) -> None:
    """Let somebody in.

    They need a token next: `gpusched token create --user NAME` makes one.
    """
    user = session.client().add_user(name, role=role, groups=_groups(groups))
    click.echo(safe(f"{user['name']} is let in as {user['role']}; `gpusched token create --user {name}` makes a token"))


@verb("role", examples="\ngpusched users role ann operator\n")
@click.argument("name", metavar="NAME")
@click.argument("role", metavar="ROLE", type=ROLE)
@pass_session
def role_(session: Session, name: str, role: str) -> None:
    """Give a user another role: viewer, user, operator or admin. At once, for all their tokens."""
    user = session.client().change_user(name, role=role)
    click.echo(safe(f"{user['name']} has role {user['role']}"))


@verb("groups", examples="\ngpusched users groups ann nlp,vision\ngpusched users groups ann none\n")
@click.argument("name", metavar="NAME")
@click.argument("groups", metavar="A,B")
@pass_session
def groups_(session: Session, name: str, groups: str) -> None:
    """Give a user other groups, for the queues' access lists. `none` takes all away."""
    user = session.client().change_user(name, groups=[] if groups == "none" else _groups(groups))
    click.echo(safe(f"{user['name']} is in {', '.join(user['groups']) or 'no group'}"))


@verb("disable", examples="\ngpusched users disable ann\n")
@click.argument("name", metavar="NAME")
@pass_session
def disable(session: Session, name: str) -> None:
    """Let a user in no more: every token of theirs is refused from now on.

    Their jobs stay: what runs goes on and what waits will start. `gpusched cancel` ends them.
    """
    user = session.client().change_user(name, disabled=True)
    click.echo(safe(f"{user['name']} is let in no more; their jobs go on"))


@verb("enable", examples="\ngpusched users enable ann\n")
@click.argument("name", metavar="NAME")
@pass_session
def enable(session: Session, name: str) -> None:
    """Let a disabled user in again, with the tokens they had."""
    user = session.client().change_user(name, disabled=False)
    click.echo(safe(f"{user['name']} is let in again"))


@verb("remove", examples="\ngpusched users remove ann\n")
@click.argument("name", metavar="NAME")
@pass_session
def remove(session: Session, name: str) -> None:
    """Forget a user and their tokens. Their jobs stay as they are."""
    session.client().remove_user(name)
    click.echo(safe(f"{name} and their tokens are removed; their jobs go on"))


for _command in (list_, add, role_, groups_, disable, enable, remove):
    users.add_command(_command)
