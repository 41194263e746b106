"""A database by its URL: one connection that writes, several that read, and neither waits for the other."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from ...jobs.errors import StoreError
from .errors import called, sqlite_path, translated

SQLITE_MAGIC = b"SQLite format 3\0"


def database_url(given: str) -> URL:
    """The URL with our driver: sqlite:///FILE (or a bare path), postgresql://..., postgres://...

    Raises:
        StoreError: it is no URL, names a database that we do not speak, or its driver is not installed.
    """
    try:
        url = make_url(given if "://" in given else f"sqlite:///{given}")
    except (exc.ArgumentError, ValueError) as error:
        raise StoreError("the database URL cannot be read", hint=_EXAMPLES) from error
    backend = url.drivername.split("+")[0]
    if backend in {"postgresql", "postgres"}:
        if importlib.util.find_spec("psycopg") is None:
            raise StoreError("PostgreSQL needs the driver psycopg", hint="pip install 'gpusched-ray[postgres]'")
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise StoreError(f"gpusched does not speak {backend}", hint=_EXAMPLES)
    if not url.database or url.database == ":memory:":
        raise StoreError("a database in memory would forget every job", hint=_EXAMPLES)
    return url.set(drivername="sqlite+pysqlite", database=os.path.abspath(os.path.expanduser(url.database)))  # noqa: PTH100, PTH111 - text in, text out


_EXAMPLES = "such as sqlite:////var/lib/gpusched/gpusched.db or postgresql://user:password@host/database"


PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}
"""Seconds (the last in thousandths) after which a PostgreSQL that is cut off counts as gone."""
SILENT = 4000
"""Milliseconds that PostgreSQL waits for a writer in the middle of a transaction. One that is frozen there would keep
the lease's row locked, and nobody could take over."""


def _release_when_silent(connection: Any, _record: object) -> None:  # noqa: ANN401 - the driver's own type
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = {SILENT}")
    connection.commit()


class Database:
    """Connections to one database. `write` serves one thread at a time, in turn; `read` never waits for it.

    Attributes:
        url: with the driver; name: for messages, without the password.
        sqlite: whether it is a SQLite file.
    """

    def __init__(self, given: str, *, busy_timeout: float = 5.0) -> None:
        self.url = database_url(given)
        self.name = called(self.url)
        self.path = sqlite_path(self.url)
        self.sqlite = self.path is not None
        self.busy_timeout = busy_timeout
        if self.sqlite:
            self._make_file()
        self.writer = self._engine(writes=True, pool_size=1, max_overflow=0, pool_timeout=60.0)
        self.readers = self._engine(writes=False, pool_size=4, max_overflow=28, pool_timeout=30.0)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed at the end or, if anything is raised, as if it never was.

        Raises:
            StoreError: the database is locked, full, gone or not writable.
        """
        with translated(self.url, self.busy_timeout), self.writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One unchanging picture of what was committed, for as many questions as are asked inside.

        Raises:
            StoreError: the database does not answer, or something tries to write.
        """
        with translated(self.url, self.busy_timeout), self.readers.connect() as connection:
            yield connection

    def close(self) -> None:
        """Let go of all connections."""
        self.readers.dispose()
        self.writer.dispose()

    def _make_file(self) -> None:
        """Make the file if there is none, for its owner's eyes only: it holds secrets. Refuse what is no database."""
        path = self.path
        assert path is not None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb") as file:
                head = file.read(len(SQLITE_MAGIC))
        except OSError as error:
            raise StoreError(
                f"cannot open the database {path}: {error.strerror}", hint=f"may you write in {path.parent}?"
            ) from error
        if head and head != SQLITE_MAGIC:
            raise StoreError(f"{path} is not a SQLite database", hint="give another path; the file was not touched")

    def _engine(self, *, writes: bool, **pool: Any) -> Engine:  # noqa: ANN401 - passed on
        if not self.sqlite:
            # Positional parameters: the store hands over plain tuples. A connection that went stale is replaced.
            options = {"paramstyle": "format", "pool_pre_ping": True}
            isolation = "READ COMMITTED" if writes else "REPEATABLE READ"
            engine = create_engine(self.url, isolation_level=isolation, connect_args=PATIENCE, **options, **pool)
            if writes:
                event.listen(engine, "connect", _release_when_silent)
            return engine if writes else engine.execution_options(postgresql_readonly=True)
        engine = create_engine(
            self.url, connect_args={"check_same_thread": False, "timeout": self.busy_timeout}, **pool
        )

        def connected(connection: sqlite3.Connection, _record: object) -> None:
            connection.isolation_level = None  # transactions begin where we say, and DDL is inside them
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA synchronous=FULL")  # with WAL: a commit that returned survives a power cut
            if writes:  # of a new file: what is archived gives its room back
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute(f"PRAGMA journal_size_limit={64 << 20}")  # after a burst the log gives its room back
            if not writes:
                connection.execute("PRAGMA query_only=ON")

        def begun(connection: Connection) -> None:
            # A writer takes the lock at once: one that first reads could not upgrade beside another.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        event.listen(engine, "connect", connected)
        event.listen(engine, "begin", begun)
        return engine
