"""`gpusched secrets`: the keys that seal the secrets of jobs."""

from __future__ import annotations

from typing import Any

import click

from ..output import Column, Listing, Style
from .session import Session, pass_session
from .verb import SETTINGS, output_options, verb

JSON = dict[str, Any]


@click.group("secrets", context_settings=SETTINGS)
def secrets() -> None:
    """Look after the keys that seal the secrets of jobs.

    Secrets lie in the database sealed (AES-256-GCM) until their job has ended. The key is the file secret.key of the
    state directory. Control planes that share a database share a key: GPUSCHED_SECRET_KEY_FILE names its file, or
    GPUSCHED_SECRET_KEY holds it.
    """


def _state(row: JSON) -> str:
    if not row["here"]:
        return "missing"
    return "seals" if row["seals"] else "opens"


COLUMNS = (
    Column("key", lambda row: row["key"]),
    Column("secrets", lambda row: row["secrets"], right=True),
    Column("state", _state, colour=lambda text: "red" if text == "missing" else ""),
)


@verb("keys", examples="\ngpusched secrets keys\n")
@output_options
@pass_session
def keys(session: Session, *, style: Style) -> None:
    """List the keys by their ids, with how many secrets of unfinished jobs each has sealed.

    One that is `missing` is not at hand: the jobs whose secrets it sealed are held until it is.
    """
    rows = session.client().secret_keys()
    session.show(Listing("keys", COLUMNS, rows, name="key", empty="no secret has needed a key yet"), style)


@verb("rotate-key", examples="\ngpusched secrets rotate-key\ngpusched secrets rotate-key --forget-old\n")
@click.option("--forget-old", is_flag=True, help="Take the other keys out of the file: a copy of old needs them.")
@pass_session
def rotate_key(session: Session, *, forget_old: bool) -> None:
    """Make a new key and seal all secrets with it.

    Jobs go on meanwhile; the old keys open what is not done yet, and stay in the file for copies of the database made
    before, unless you say --forget-old.
    """
    found = session.client().rotate_secret_key(forget_old=forget_old)
    key = next(row["key"] for row in found["keys"] if row["seals"])
    click.echo(f"key {key} seals from now on; {found['sealed']} secrets were sealed anew")
    if found["locked"]:
        click.echo(f"{found['locked']} secrets could not be opened: the control plane's log names their jobs", err=True)


@verb("new-key", examples="\n(umask 077 && gpusched secrets new-key > /etc/gpusched/secret.key)\n")
def new_key() -> None:
    """Print a new key, for a key file or GPUSCHED_SECRET_KEY. It is stored nowhere."""
    from ..store.keyring import new_key as make  # noqa: PLC0415 - the help does not need it

    click.echo(make())


for _command in (keys, rotate_key, new_key):
    secrets.add_command(_command)
