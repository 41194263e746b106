"""Workdirs in the database, where control planes on several machines share it. Each has them on its own disk soon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import delete, func, insert, select, update

from .bulk import table_of
from .sql import SqlStore
from .tables import SnapshotRow

PART = 1 << 20
"""Bytes of a row."""


class SharedSnapshots:
    """Packed workdirs in parts, named by their SHA-256. All or nothing: a transaction each.

    Args:
        store: whose database. Only who leads writes.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._rows = table_of(SnapshotRow)

    def names(self) -> set[str]:
        """The SHA-256 of each that is there."""
        with self._store.reader() as connection:
            return set(connection.execute(select(self._rows.c.sha256).where(self._rows.c.part == 0)).scalars())

    def put(self, sha256: str, path: Path, now: float) -> None:
        """Keep a file.

        Raises:
            StoreError: it cannot be written, or another control plane leads.
        """
        size = path.stat().st_size
        parts = max(1, -(-size // PART))
        with self._store.writer() as connection, path.open("rb") as file:
            connection.execute(delete(self._rows).where(self._rows.c.sha256 == sha256))
            for number in range(parts):
                row = {"sha256": sha256, "part": number, "parts": parts, "touched": now, "data": file.read(PART)}
                connection.execute(insert(self._rows).values(row))

    def get(self, sha256: str) -> Iterator[bytes]:
        """Its parts in order; none = it is not there."""
        rows = self._rows.c
        with self._store.reader() as connection:
            count = connection.execute(select(func.max(rows.part)).where(rows.sha256 == sha256)).scalar()
            for number in range(-1 if count is None else count + 1):
                yield connection.execute(
                    select(rows.data).where(rows.sha256 == sha256, rows.part == number)
                ).scalar_one()

    def touch(self, sha256: str, now: float) -> bool:
        """It is wanted still; False = it is not there."""
        rows = self._rows
        with self._store.writer() as connection:
            met = connection.execute(update(rows).where(rows.c.sha256 == sha256).values(touched=now)).rowcount
        return met > 0

    def collect(self, keep: set[str], before: float) -> None:
        """Delete those that are not kept and were not touched since."""
        rows = self._rows
        with self._store.writer() as connection:
            connection.execute(delete(rows).where(rows.c.sha256.not_in(keep), rows.c.touched < before))
