"""Secrets in the database: sealed when they come, opened for a start, sealed anew when the key changes, then gone."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

from sqlalchemy import Connection, func, select, update

from ...jobs.job import FINAL, Job, State
from .database import Database
from .keyring import Keyring, SealError
from .tables import JobRow, JobSecretRow

log = logging.getLogger("gpusched.secrets")

PLAIN = "plain"
"""What stands for the key of a secret that an older version stored as it was."""
AT_ONCE = 500
"""Rows of one transaction when all are sealed anew: who submits meanwhile waits for no more than that."""

Writer = Callable[[], AbstractContextManager[Connection]]


class Sealed(NamedTuple):
    """A row of `job_secrets` and the ULID of its job."""

    job: int
    uid: str
    name: str
    value: bytes
    key: str


_ROWS = select(JobSecretRow.job, JobRow.uid, JobSecretRow.name, JobSecretRow.value, JobSecretRow.key).join_from(
    JobSecretRow, JobRow
)
_ACTIVE = JobRow.state.in_([state.value for state in State if state not in FINAL])


def rows_of(keys: Keyring, jobs: Iterable[Job]) -> list[tuple[int, str, bytes, str]]:
    """The secrets of these jobs as rows: job, name, value, key. What is not known stays as the database has it."""
    found = []
    for job in jobs:
        for name, value in () if job.spec is None else job.spec.secrets.items():
            if value is not None:
                key, sealed = keys.seal(job.uid, name, value.get_secret_value())
                found.append((job.id, name, sealed, key))
    return found


def opened(keys: Keyring, row: Sealed) -> str:
    """The value of a row.

    Raises:
        SealError: its key is not here, or it is not what was sealed.
    """
    return keys.open(row.key, row.uid, row.name, row.value) if row.key != PLAIN else row.value.decode()


def of_job(connection: Connection, keys: Keyring, job: int) -> dict[str, str]:
    """A job's secrets by name. Raises as `opened` does."""
    rows = connection.execute(_ROWS.where(JobSecretRow.job == job))
    return {row.name: opened(keys, row) for row in map(Sealed._make, rows)}


def of_unfinished(connection: Connection, keys: Keyring) -> tuple[dict[int, dict[str, str]], dict[int, str]]:
    """(the secrets of unfinished jobs by job and name, why those of a job cannot be opened)."""
    found: dict[int, dict[str, str]] = {}
    locked: dict[int, str] = {}
    for row in map(Sealed._make, connection.execute(_ROWS.where(_ACTIVE))):
        try:
            found.setdefault(row.job, {})[row.name] = opened(keys, row)
        except SealError as error:
            locked.setdefault(row.job, error.message)
    return found, locked


def counts(connection: Connection) -> dict[str, int]:
    """How many secrets are sealed with each key; PLAIN = not at all."""
    query = select(JobSecretRow.key, func.count()).group_by(JobSecretRow.key).order_by(JobSecretRow.key)
    return {row[0]: row[1] for row in connection.execute(query)}


def seal_plain(database: Database, keys: Keyring) -> None:
    """Seal what an older version left as it was, and have nothing of it stay in a SQLite file.

    Raises:
        StoreError: it cannot be written; it is tried again when the database is opened next.
    """
    with database.read() as connection:
        if connection.execute(select(JobSecretRow.job).where(JobSecretRow.key == PLAIN).limit(1)).first() is None:
            return
    done, _ = seal_anew(database.write, keys, plain_only=True)
    log.info("%d secrets of an older version were sealed with the key in %s", done, keys.name)
    if database.path is None:
        return
    for copy in sorted(database.path.parent.glob(f"{database.path.name}.schema-*")):
        log.warning(
            "%s, the copy from before the upgrade, holds secrets as they were: delete it when all is well", copy
        )
    raw = database.writer.raw_connection()
    try:
        # What was deleted or changed lies on in free room of the file and in its log until both are written anew.
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            raw.cursor().execute(statement)
    except sqlite3.Error as error:
        log.warning("%s may hold earlier secrets in its free room: %s; VACUUM it when you can", database.name, error)
    finally:
        raw.close()


def seal_anew(writer: Writer, keys: Keyring, *, plain_only: bool = False, at_once: int = AT_ONCE) -> tuple[int, int]:
    """Seal with the first key what is sealed with another, or not at all.

    May be cut off anywhere and done again: a row is changed only if it still is what was read.

    Args:
        writer: a transaction of the process that may write.
        keys: the first seals, any of them may open.
        plain_only: leave alone what is sealed.
        at_once: rows of one transaction.

    Returns:
        (how many were sealed, how many cannot be opened).
    """
    done, failed, last = 0, 0, (0, "")
    while True:
        with writer() as connection:
            # In the same transaction as the change: a job that ends meanwhile takes its secrets with it.
            current = next(iter(keys.known()), "none")
            query = _ROWS.where(JobSecretRow.key == PLAIN if plain_only else JobSecretRow.key != current)
            job, name = last
            query = query.where((JobSecretRow.job > job) | ((JobSecretRow.job == job) & (JobSecretRow.name > name)))
            rows = list(
                map(
                    Sealed._make, connection.execute(query.order_by(JobSecretRow.job, JobSecretRow.name).limit(at_once))
                )
            )
            for row in rows:
                try:
                    key, sealed = keys.seal(row.uid, row.name, opened(keys, row))
                except SealError as error:
                    failed += 1
                    log.warning("job %d: %s", row.job, error)
                    continue
                connection.execute(
                    update(JobSecretRow)
                    .where(JobSecretRow.job == row.job, JobSecretRow.name == row.name, JobSecretRow.key == row.key)
                    .values(value=sealed, key=key)
                )
                done += 1
        if len(rows) < at_once:
            return done, failed
        last = rows[-1].job, rows[-1].name
