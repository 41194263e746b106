"""Versions of the queue file: every one that was ever applied, as it was written. The newest holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from ...jobs.events import Event
from .bulk import table_of
from .rows import text as harmless
from .sql import SqlStore
from .tables import QueueVersionRow


@dataclass(frozen=True, slots=True)
class QueueVersion:
    """One version.

    Attributes:
        number: from 1, rising by 1. time: when it was applied, in UTC seconds. user: by whom.
        note: what for, if not a file's sake: "rollback to 3".
        file: its name, for messages. text: what was in it; empty = no queues from then on.
    """

    number: int
    time: float
    user: str
    note: str
    file: str
    text: str


def add_version(
    store: SqlStore, *, time: float, user: str, note: str, file: str, text: str, events: Sequence[Event] = ()
) -> QueueVersion:
    """Write the next version, in a transaction of its own, with lines of the journal that belong to it.

    From the thread that commits only.

    Raises:
        StoreError: it cannot be written, or another control plane took over; nothing changed.
    """
    table = table_of(QueueVersionRow)
    with store.writer() as connection:
        number = 1 + (connection.scalar(select(func.max(table.c.number))) or 0)
        added = QueueVersion(number, time, harmless(user), harmless(note), harmless(file), text)
        connection.execute(
            insert(table).values(
                number=number, time=time, user=added.user, note=added.note, file=added.file, text=added.text
            )
        )
        store.append(connection, events)
    return added


def newest_version(connection: Connection) -> QueueVersion | None:
    """The version that holds; None = none was ever applied."""
    found = list_versions(connection, limit=1)
    return found[0] if found else None


def version(connection: Connection, number: int) -> QueueVersion | None:
    """A version by its number."""
    table = table_of(QueueVersionRow)
    row = connection.execute(select(table).where(table.c.number == number)).first()
    return None if row is None else QueueVersion(**row._asdict())


def list_versions(connection: Connection, *, limit: int | None = None) -> list[QueueVersion]:
    """Versions, the newest first."""
    table = table_of(QueueVersionRow)
    rows = connection.execute(select(table).order_by(table.c.number.desc()).limit(limit))
    return [QueueVersion(**row._asdict()) for row in rows]
