"""Users and their tokens as they are kept. A version number rises with every change, for who keeps a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from ...jobs.errors import NotFoundError
from ..access.model import Role, Token, User
from .bulk import table_of
from .rows import text as harmless
from .tables import MetaRow, TokenRow, UserRow

VERSION = "people"
"""The row of table meta that holds the version number."""


@dataclass(frozen=True, slots=True)
class People:
    """All users and tokens at one moment.

    Attributes:
        version: rises with every change. users: by name. tokens: by id.
    """

    version: int = 0
    users: Mapping[str, User] = field(default_factory=dict)
    tokens: Mapping[str, Token] = field(default_factory=dict)


def people_version(connection: Connection) -> int:
    """The version number; 0 = nobody was ever let in."""
    table = table_of(MetaRow).c
    return int(connection.scalar(select(table.value).where(table.key == VERSION)) or 0)


def read_people(connection: Connection) -> People:
    """Everybody."""
    users = {row.name: _user(row) for row in connection.execute(select(table_of(UserRow)))}
    tokens = {row.id: _token(row) for row in connection.execute(select(table_of(TokenRow)))}
    return People(people_version(connection), users, tokens)


def list_users(connection: Connection) -> list[User]:
    """Users, by name."""
    table = table_of(UserRow)
    return [_user(row) for row in connection.execute(select(table).order_by(table.c.name))]


def list_tokens(connection: Connection, user: str | None = None) -> list[Token]:
    """Tokens of one user or of all, the newest first."""
    table = table_of(TokenRow)
    query = select(table).order_by(table.c.created.desc(), table.c.id)
    return [_token(row) for row in connection.execute(query if user is None else query.where(table.c.user == user))]


def token_counts(connection: Connection, now: float) -> dict[str, int]:
    """Tokens that are good at present, by user."""
    table = table_of(TokenRow).c
    good = table.revoked.is_(None) & (table.expires.is_(None) | (table.expires > now))
    query = select(table.user, func.count()).where(good).group_by(table.user)
    return {row[0]: row[1] for row in connection.execute(query)}


# Changes, each inside a transaction of the caller's ---------------------------------------------------------------


def put_user(connection: Connection, user: User) -> None:
    """Let somebody in, or change what they may do."""
    table = table_of(UserRow)
    values: dict[str, Any] = {
        "role": user.role.value,
        "groups": [harmless(group) for group in user.groups],
        "disabled": user.disabled,
        "changed": user.changed,
    }
    if connection.execute(update(table).where(table.c.name == user.name).values(values)).rowcount == 0:
        connection.execute(insert(table).values(name=user.name, settings={}, created=user.created, **values))
    _changed(connection)


def remove_user(connection: Connection, name: str) -> None:
    """Forget somebody and their tokens. Their jobs stay.

    Raises:
        NotFoundError: there is no such user.
    """
    users, tokens = table_of(UserRow), table_of(TokenRow)
    if connection.execute(delete(users).where(users.c.name == name)).rowcount == 0:
        raise NotFoundError(f"there is no user {name!r}", hint="`gpusched users list` shows them")
    connection.execute(delete(tokens).where(tokens.c.user == name))
    _changed(connection)


def add_token(connection: Connection, token: Token) -> None:
    """Keep a token."""
    connection.execute(
        insert(table_of(TokenRow)).values(
            id=token.id,
            user=token.user,
            digest=token.digest,
            role="" if token.role is None else token.role.value,
            note=harmless(token.note),
            created=token.created,
            expires=token.expires,
            revoked=None,
            last_used=None,
            last_from="",
        )
    )
    _changed(connection)


def revoke_token(connection: Connection, token: str, now: float) -> None:
    """Refuse a token from now on.

    Raises:
        NotFoundError: there is no such token.
    """
    table = table_of(TokenRow)
    if connection.scalar(select(table.c.id).where(table.c.id == token)) is None:
        raise NotFoundError(f"there is no token {token!r}", hint="`gpusched token list` shows them")
    connection.execute(update(table).where(table.c.id == token, table.c.revoked.is_(None)).values(revoked=now))
    _changed(connection)


def note_use(connection: Connection, uses: Sequence[tuple[str, float, str]]) -> None:
    """When tokens were used last, and where from: (id, UTC seconds, address). No change that a copy has to know of."""
    table = table_of(TokenRow)
    for token, time, address in uses:
        connection.execute(update(table).where(table.c.id == token).values(last_used=time, last_from=harmless(address)))


def _changed(connection: Connection) -> None:
    table = table_of(MetaRow)
    number = people_version(connection) + 1
    connection.execute(delete(table).where(table.c.key == VERSION))
    connection.execute(insert(table).values(key=VERSION, value=str(number)))


def _user(row: Any) -> User:  # noqa: ANN401 - a row of `users`
    return User(row.name, Role(row.role), tuple(row.groups or ()), bool(row.disabled), row.created, row.changed)


def _token(row: Any) -> Token:  # noqa: ANN401 - a row of `tokens`
    return Token(
        row.id,
        row.user,
        row.digest,
        Role(row.role) if row.role else None,
        row.note,
        row.created,
        row.expires,
        row.revoked,
        row.last_used,
        row.last_from,
    )
