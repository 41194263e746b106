"""One control plane at a time: a row that is taken by compare-and-set and renewed while its holder lives."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from ...jobs.errors import ConflictError
from .bulk import insert_bulk, table_of
from .sql import Fence, SqlStore
from .tables import LeaseRow

NAME = "control-plane"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lease: process `pid` on `host`, since when and until when (UTC seconds), for the term-th time."""

    owner: str
    host: str
    pid: int
    since: float
    expires: float
    term: int

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.pid} on {self.host}, since {since}"


class LeaseHeldError(ConflictError):
    """Another control plane holds the lease. `holder` says which."""

    code = "lease_held"

    def __init__(self, holder: Holder) -> None:
        super().__init__(
            f"another control plane has this database: {holder}",
            hint="use that one, or stop it; after a crash its lease runs out by itself",
        )
        self.holder = holder


class Lease:
    """The right to write, for `ttl` seconds at a time. While it is held, the store refuses commits under a lost term.

    Args:
        store: whose database; its `fence` is set and cleared here.
        owner: unlike any other control plane's; empty = one is made up.
        ttl: seconds without renewal after which another may take it. Renew three times as often. Where two machines'
            clocks differ by more, a lease may be taken early; the fence still lets only one of them write.
    """

    def __init__(self, store: SqlStore, owner: str = "", ttl: float = 15.0) -> None:
        self._store = store
        self.owner = owner or uuid.uuid4().hex
        self.ttl = ttl
        columns = [column.name for column in table_of(LeaseRow).columns]
        self._empty = insert_bulk(store.database.writer.dialect, LeaseRow, columns, change=())

    def acquire(self, now: float) -> Holder:
        """Take the lease if nobody has it, if it ran out, or if it is this owner's, whose process here is gone.

        Every new holder begins a new term, so that what an older one still tries to write is refused.

        Raises:
            LeaseHeldError: another has it.
            StoreError: the database cannot be written.
        """
        with self._store.database.write() as connection:
            # The row is there from the first on, so that there is something to lock: on PostgreSQL it is this row, on
            # SQLite the whole database.
            self._empty.run(connection, [(NAME, "", "", 0, 0.0, 0.0, 0)])
            before = _read(connection, lock=True)
            assert before is not None
            here, kept = (socket.gethostname(), os.getpid()), False
            if before.expires > now:
                kept = before.owner == self.owner and (before.host, before.pid) == here
                if not kept and not (before.owner == self.owner and before.host == here[0] and not _lives(before.pid)):
                    raise LeaseHeldError(before)
            term = before.term if kept else before.term + 1
            taken = Holder(self.owner, *here, before.since if kept else now, now + self.ttl, term)
            table = table_of(LeaseRow)
            connection.execute(update(table).where(table.c.name == NAME).values(asdict(taken)))
        self._store.fence = Fence(NAME, term)
        return taken

    def renew(self, now: float) -> bool:
        """Hold it for another ttl; False = it was lost meanwhile, and commits are refused from now on."""
        fence = self._store.fence
        if fence is None:
            return False
        table = table_of(LeaseRow)
        with self._store.database.write() as connection:
            met = connection.execute(
                update(table)
                .where(table.c.name == NAME, table.c.owner == self.owner, table.c.term == fence.term)
                .values(expires=now + self.ttl)
            ).rowcount
        return met == 1

    def release(self) -> None:
        """Give it back, if it is still held; the next may take it at once."""
        table = table_of(LeaseRow)
        with self._store.database.write() as connection:
            # The row stays, so that terms go on rising.
            connection.execute(
                update(table).where(table.c.name == NAME, table.c.owner == self.owner).values(expires=0.0, owner="")
            )

    def holder(self, now: float) -> Holder | None:
        """Who holds it now; None = nobody."""
        with self._store.reader() as connection:
            found = _read(connection, lock=False)
        return found if found is not None and found.expires > now else None


def _lives(pid: int) -> bool:
    """Whether a process of this machine runs. A number given to another process meanwhile counts as alive: wait."""
    import psutil  # noqa: PLC0415 - only a restart needs it

    try:
        # A killed process stays as a zombie until its parent asks for it; it writes no more.
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # another user's


def _read(connection: Connection, *, lock: bool) -> Holder | None:
    table = table_of(LeaseRow)
    query = select(table.c.owner, table.c.host, table.c.pid, table.c.since, table.c.expires, table.c.term).where(
        table.c.name == NAME
    )
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else Holder(*row)
