"""Numbered steps from one schema to the next, oldest first, and what opens a database with them.

An up-to-date database costs one query; Alembic is loaded only when there is something to do.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, exc, inspect, text

from ...jobs.errors import StoreError
from ..store.database import Database
from ..store.errors import translated
from ..store.tables import APPLICATION
from .copies import copy_file, copy_schema

REVISIONS = ("0001", "0002", "0003")
"""Every revision that this version knows, oldest first."""

HEAD = REVISIONS[-1]

STEPS = Path(__file__).parent

_LOCK = 0x67707573
"""Any number: whoever migrates on PostgreSQL holds the advisory lock of this key."""


def migrate(database: Database, *, steps: Path = STEPS, known: tuple[str, ...] = REVISIONS) -> str | None:
    """Bring a database to the newest of the known revisions: made if it is empty, changed if it is older.

    Before an older database is changed it is copied: a SQLite file beside itself, a PostgreSQL one into a schema of its
    own (docs/upgrades.md says how to go back). All steps are one transaction.

    Returns:
        The revision that it had; None = it was empty.

    Raises:
        StoreError: it is another program's, written by a newer gpusched, locked, damaged or cannot be written.
    """
    with database.read() as connection:
        found = _version(connection, known)
    if found == known[-1]:
        return found
    if database.sqlite:
        _use_wal(database)
    with database.write() as connection:
        if not database.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = _version(connection, known)  # another process may have been here first
        if found == known[-1]:
            return found
        if found is not None:
            with translated(database.url, database.busy_timeout):
                if database.path is not None:
                    copy_file(database.path, found)
                else:
                    copy_schema(connection, found)
        _upgrade(connection, steps)
    return found


def _version(connection: Connection, known: tuple[str, ...]) -> str | None:
    """The revision of a database of ours; None = it is empty."""
    try:
        with connection.begin_nested() if connection.in_transaction() else connection.begin():
            row = connection.execute(
                text("SELECT meta.value, alembic_version.version_num FROM meta, alembic_version WHERE meta.key = :key"),
                {"key": "application"},
            ).first()
    except exc.DBAPIError as error:
        if not isinstance(error, exc.OperationalError | exc.ProgrammingError) or not _no_such_table(error):
            raise
        row = None
    name = connection.engine.url.database
    if row is None and not inspect(connection).get_table_names():
        return None
    if row is None or row[0] != APPLICATION:
        raise StoreError(
            f"{name} is a database of another program; gpusched does not write to it",
            hint="set GPUSCHED_DATABASE_URL to an empty database, or to a file that does not exist yet",
        )
    if row[1] not in known:
        raise StoreError(
            f"{name} was written by a newer gpusched (schema {row[1]}; this one knows up to {known[-1]})",
            hint="upgrade gpusched, or use the backup made before the upgrade",
        )
    return str(row[1])


def _no_such_table(error: exc.DBAPIError) -> bool:
    words = str(error.orig)
    return "no such table" in words or "no such column" in words or getattr(error.orig, "sqlstate", "") in _UNKNOWN


_UNKNOWN = {"42P01", "42703"}  # PostgreSQL: undefined table, undefined column


def _use_wal(database: Database) -> None:
    """Write-ahead logging, which lets readers read while one writes. It stays with the file."""
    with translated(database.url, database.busy_timeout):
        raw = database.writer.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            mode = cursor.fetchone()
        finally:
            raw.close()
    if mode is None or mode[0] != "wal":
        raise StoreError(
            f"the disk of {database.name} cannot share a SQLite database (no write-ahead log there)",
            hint="put it on a local disk, or use PostgreSQL",
        )


def _upgrade(connection: Connection, steps: Path) -> None:
    from alembic import command  # noqa: PLC0415 - 300 ms that an up-to-date database does not need
    from alembic.config import Config  # noqa: PLC0415 - the same

    config = Config()
    config.set_main_option("script_location", str(steps).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
