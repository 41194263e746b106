"""A copy of a database as it is, made before an upgrade changes it, that the older program can go on with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, exc, text
from sqlalchemy.sql.elements import quoted_name

from ...jobs.errors import StoreError

COPY = "gpusched_schema_"
"""How the PostgreSQL schema of a copy is called, the revision behind it."""


def copy_file(path: Path, revision: str) -> Path:
    """Copy a SQLite database, what its log holds included, beside itself: FILE.schema-REVISION.

    The caller holds the writer's lock, so nothing changes meanwhile; the copy appears whole or not at all.

    Raises:
        StoreError: there is no room.
    """
    target = path.with_name(f"{path.name}.schema-{revision}")
    unfinished = target.with_name(f"{target.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        unfinished.touch(mode=0o600)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as copy:
            source.backup(copy)
        unfinished.replace(target)
    except (sqlite3.Error, OSError) as error:
        unfinished.unlink(missing_ok=True)
        raise StoreError(
            f"cannot copy {path} before its upgrade: {error}", hint=f"make room in {path.parent}; nothing was changed"
        ) from error
    return target


def copy_schema(connection: Connection, revision: str) -> str:
    """Copy every table of a PostgreSQL database into a schema of its own, in the transaction of the upgrade.

    So the copy and the upgrade are there both or neither, and no program outside is needed for it. An earlier copy of
    the same revision gives way: it was of an upgrade that somebody took back.

    Raises:
        StoreError: the user may not make a schema.
    """
    quote = connection.dialect.identifier_preparer.quote
    target = quote(quoted_name(COPY + revision, quote=True))
    try:
        source, tables = _tables(connection)
        connection.execute(text(f"DROP SCHEMA IF EXISTS {target} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {target}"))
        for name in tables:
            table = quote(quoted_name(name, quote=True))
            whole = f"{quote(quoted_name(source, quote=True))}.{table}"
            connection.execute(text(f"CREATE TABLE {target}.{table} (LIKE {whole} INCLUDING ALL)"))
            connection.execute(text(f"INSERT INTO {target}.{table} SELECT * FROM {whole}"))  # noqa: S608 - quoted names
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", "") != _MAY_NOT:
            raise
        raise StoreError(
            f"cannot copy the database before its upgrade: {error.orig}",
            hint="GRANT CREATE ON DATABASE to this user, until the upgrade is done; nothing was changed",
        ) from error
    return COPY + revision


_MAY_NOT = "42501"  # PostgreSQL: insufficient privilege


def _tables(connection: Connection) -> tuple[str, list[str]]:
    """The schema that is in use, and its tables."""
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    rows = connection.execute(
        text("SELECT tablename FROM pg_tables WHERE schemaname = :schema ORDER BY tablename"), {"schema": schema}
    )
    return str(schema), [str(name) for (name,) in rows]
