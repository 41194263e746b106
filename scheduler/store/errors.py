"""What a database's error means to the person who reads it: one StoreError with its cause and its mend."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, exc

from ...jobs.errors import StoreError

DISK_FULL = "53100"
READ_ONLY = "25006"
NOT_ALLOWED = "42501"
TOO_LATE = ("55P03", "57014")
"""SQLSTATEs of PostgreSQL: lock not available, query cancelled by a time-out."""


def called(url: URL) -> str:
    """The database's name for messages: a file's path, or a URL without its password."""
    return str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite database; None for another kind."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


@contextmanager
def translated(url: URL, busy_timeout: float) -> Iterator[None]:
    """Turn the driver's errors into StoreError."""
    try:
        yield
    except exc.DBAPIError as error:
        raise store_error(url, error, busy_timeout) from error
    except exc.TimeoutError as error:  # the pool's: every connection is busy
        raise StoreError(
            f"the database {called(url)} is busy: no connection came free", hint="try again in a moment"
        ) from error


def store_error(url: URL, wrapped: exc.DBAPIError, busy_timeout: float) -> StoreError:
    """The StoreError for a driver's error."""
    error = wrapped.orig
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(url, error, busy_timeout)
    name, state, words = called(url), getattr(error, "sqlstate", None), " ".join(str(error).split())
    if state == DISK_FULL:
        return StoreError(f"disk full: PostgreSQL at {name} cannot write", hint="free space there; nothing was lost")
    if state in {READ_ONLY, NOT_ALLOWED}:
        return StoreError(f"not allowed to write to {name}: {words}", hint="give the user of the URL its own database")
    if state in TOO_LATE:
        return StoreError(f"the database {name} is locked by another program: {words}")
    if state is None and isinstance(wrapped, exc.OperationalError | exc.InterfaceError):
        return StoreError(
            f"the database {name} does not answer: {words}", hint="is PostgreSQL running, and is the URL right?"
        )
    return StoreError(
        f"the database {name} refused: {words} ({f'SQLSTATE {state}' if state else type(error).__name__})"
    )


def _of_sqlite(url: URL, error: sqlite3.Error, busy_timeout: float) -> StoreError:
    name, code = called(url), getattr(error, "sqlite_errorname", "")
    path = Path(name)
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        others = holders(path)
        who = f"; it is open in {', '.join(others)}" if others else ""
        return StoreError(
            f"the database {name} is locked: another program has kept it for more than {busy_timeout:g} s{who}",
            hint="end that program, or set GPUSCHED_DATABASE_URL to another database",
        )
    if code.startswith("SQLITE_IOERR") and _full(path):
        code = "SQLITE_FULL"
    for start, words, hint in _SQLITE:
        if code.startswith(start):
            return StoreError(words.format(name=name, error=error, code=code), hint=hint.format(folder=path.parent))
    return StoreError(f"the database {name} refused: {error} ({code or type(error).__name__})")


_SQLITE = (
    ("SQLITE_FULL", "disk full: cannot write to {name}", "free space in {folder}; nothing was lost"),
    ("SQLITE_READONLY", "not allowed to write to {name} or to its folder", "check who owns {folder}"),
    ("SQLITE_CANTOPEN", "cannot open the database {name}", "does {folder} exist, and may you write there?"),
    ("SQLITE_NOTADB", "{name} is not a database, or it is damaged: {error}", "move it away, or restore a backup"),
    ("SQLITE_CORRUPT", "{name} is damaged: {error}", "move it away, or restore a backup"),
    ("SQLITE_IOERR", "cannot write to {name}: {error} ({code})", "check the disk; nothing was lost"),
)


def _full(path: Path) -> bool:
    try:
        room = os.statvfs(path.parent)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < 64 * 1024


def holders(path: Path) -> list[str]:
    """Other processes that have the file open, as "pid 12 (name)"; those of other users are seen by root only."""
    found = []
    try:
        wanted = path.resolve()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return []  # not a Linux machine
    for pid in pids:
        if pid == os.getpid():
            continue
        folder = Path("/proc") / str(pid)
        try:
            if any(os.readlink(link) == str(wanted) for link in (folder / "fd").iterdir()):  # noqa: PTH115 - a Path a link costs
                found.append(f"pid {pid} ({(folder / 'comm').read_text().strip()})")
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found
