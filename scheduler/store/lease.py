"""One control plane at a time: a row that is taken by compare-and-set and renewed while its holder lives.

No two clocks are compared. A holder changes the row with every renewal; whoever stands by takes it once the row has
stayed as it is for as long as the holder said, by its own steady clock. So a clock that is set, here, there or on the
database's machine, neither ends a lease early nor keeps a dead one alive.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, select, text, update

from ...jobs.errors import StandbyError
from .bulk import insert_bulk, table_of
from .sql import Fence, SqlStore
from .tables import LeaseRow

NAME = "control-plane"
SHARED_TTL = 6.0
"""Seconds without a renewal after which another may lead, where others can: on PostgreSQL."""
OWN_TTL = 15.0
"""The same on SQLite, whose only other user is our own successor, which sees whether our process is gone."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lease: process `pid` on `host`, since when (UTC seconds), for the term-th time.

    Attributes:
        url: where it answers; empty = it does not say.
        ttl: seconds without a change of `beat` after which it counts as dead.
        expires: UTC seconds by the database's clock until which it meant to hold it when it renewed last. For people.
    """

    owner: str
    host: str
    pid: int
    since: float
    expires: float
    term: int
    url: str = ""
    ttl: float = OWN_TTL
    beat: int = 0

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.pid} on {self.host}, since {since}"


class LeaseHeldError(StandbyError):
    """Another control plane holds the lease: nothing was done here. `holder` says which."""

    def __init__(self, holder: Holder) -> None:
        where = f" It answers at {holder.url}" if holder.url else ""
        super().__init__(
            f"this control plane stands by; another one leads: {holder}.{where}",
            hint="use that one, or stop it; if it is dead, another takes over within seconds: try again",
            leader=holder.url,
        )
        self.holder = holder


class Reading(NamedTuple):
    """What the database's clock showed (UTC seconds), and our steady one at that moment (seconds)."""

    utc: float
    steady: float


class Trace(NamedTuple):
    """What the control plane before went by at its last renewal: its time, and the machine's clock since its start.

    Nobody can set the latter. So who comes next on the same machine sees whether the clock was set in between.
    """

    boot: str
    uptime: float
    utc: float

    def jump(self, utc: float, now: tuple[str, float]) -> float:
        """By how many seconds it was set since, if the time is now `utc`; 0 = not at all, or that cannot be known.

        `now` is what `boot` says.
        """
        name, uptime = now
        return utc - self.utc - (uptime - self.uptime) if self.boot and self.boot == name else 0.0


class Taken(NamedTuple):
    """A lease that was taken: as it is held, from whom (None = it was free), and the clock of whoever had it before."""

    holder: Holder
    before: Holder | None
    trace: Trace | None


class Lease:
    """The right to write, for `ttl` seconds at a time. While it is held, the store refuses commits under a lost term.

    Args:
        store: whose database; its `fence` is set and cleared here.
        owner: unlike any other control plane's; empty = one is made up.
        ttl: seconds without renewal after which another may take it; 0 = as the database calls for. Renew three times
            as often.
        url: where this control plane answers.
        now: UTC seconds as this control plane counts them.
        steady: seconds of a clock that nobody sets.
        wall: UTC seconds as this machine shows them.
        booted: what `boot` says.
    """

    def __init__(
        self,
        store: SqlStore,
        owner: str = "",
        ttl: float = 0.0,
        *,
        url: str = "",
        now: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        booted: Callable[[], tuple[str, float]] | None = None,
    ) -> None:
        self._store = store
        self.owner = owner or uuid.uuid4().hex
        self.ttl = ttl or (OWN_TTL if store.database.sqlite else SHARED_TTL)
        self.url = url
        self.reading: Reading | None = None
        self._now = now
        self._steady = steady
        self._wall = wall
        self.booted = booted or boot
        self._renewed = -1e18
        self._seen: tuple[tuple[int, int, float], float] | None = None  # the row as it was, and since when
        columns = [column.name for column in table_of(LeaseRow).columns]
        self._empty = insert_bulk(store.database.writer.dialect, LeaseRow, columns, change=())

    @property
    def due(self) -> float:
        """When to renew it, by the steady clock."""
        return self._renewed + self.ttl / 3

    def sure(self) -> bool:
        """Whether nobody can have taken it since the last renewal. Without asking; the fence has the last word."""
        return self._steady() < self._renewed + self.ttl

    def free_at(self) -> float:
        """The earliest moment by the steady clock at which another's lease may be taken, as far as is known."""
        return self._steady() if self._seen is None else self._seen[1]

    def identity(self) -> str:
        """Under which name the database's jobs run on a cluster: that of whoever opened it first. Asked once."""
        table = table_of(LeaseRow)
        with self._store.database.write() as connection:
            self._make(connection)
            connection.execute(
                update(table).where(table.c.name == NAME, table.c.cluster == "").values(cluster=self.owner)
            )
            return str(connection.execute(select(table.c.cluster).where(table.c.name == NAME)).scalar_one())

    def acquire(self) -> Taken:
        """Take the lease if nobody has it, its holder is silent, or it was this owner's, whose process died.

        Every new holder begins a new term, so that what an older one still tries to write is refused.

        Raises:
            LeaseHeldError: another has it.
            StoreError: the database cannot be written.
        """
        self._look()  # without a lock: who stands by must hold up nobody, frozen or not
        asked = self._steady()
        with self._store.database.write() as connection:
            # The row is there from the first on, so that there is something to lock: on PostgreSQL it is this row, on
            # SQLite the whole database.
            self._make(connection)
            before = _read(connection, lock=True)
            assert before is not None
            holder, left = before
            here = (socket.gethostname(), os.getpid())
            kept = self._ours(holder)
            if not self._free(holder):
                raise LeaseHeldError(holder)
            now = self._read_clock(connection)
            term = holder.term if kept else holder.term + 1
            since = holder.since if kept else now
            taken = Holder(self.owner, *here, since, now + self.ttl, term, self.url, self.ttl, holder.beat + 1)
            table = table_of(LeaseRow)
            connection.execute(update(table).where(table.c.name == NAME).values(**asdict(taken)))
        self._renewed, self._seen = asked, None
        self._store.fence = Fence(NAME, term)
        return Taken(taken, holder if holder.owner and not kept else None, left if not kept else None)

    def _look(self) -> None:
        """Raises LeaseHeldError as `acquire` does; whether the lease is still free is asked again under a lock."""
        with self._store.reader() as connection:
            found = _read(connection, lock=False)
        if found is not None and not self._free(found[0]):
            raise LeaseHeldError(found[0])

    def _ours(self, holder: Holder) -> bool:
        return holder.owner == self.owner and (holder.host, holder.pid) == (socket.gethostname(), os.getpid())

    def _free(self, holder: Holder) -> bool:
        """Whether it may be taken: nobody's, ours, our dead predecessor's, or silent for its ttl under our eyes."""
        if not holder.owner or self._ours(holder):
            return True
        if holder.owner == self.owner and holder.host == socket.gethostname() and not _lives(holder.pid):
            return True
        state, now = (holder.term, holder.beat, holder.expires), self._steady()
        if self._seen is None or self._seen[0] != state:
            self._seen = state, now + holder.ttl
        return now >= self._seen[1]

    def renew(self) -> bool:
        """Hold it for another ttl; False = it was lost meanwhile, and commits are refused from now on.

        Raises:
            StoreError: the database cannot be written.
        """
        fence = self._store.fence
        if fence is None:
            return False
        table, asked = table_of(LeaseRow), self._steady()
        with self._store.database.write() as connection:
            now = self._read_clock(connection)
            met = connection.execute(
                update(table)
                .where(table.c.name == NAME, table.c.owner == self.owner, table.c.term == fence.term)
                .values(expires=now + self.ttl, beat=table.c.beat + 1, **self.trace())
            ).rowcount
        if met == 1:
            self._renewed = asked
        return met == 1

    def release(self) -> None:
        """Give it back, if it is still held; the next may take it at once."""
        table, fence = table_of(LeaseRow), self._store.fence
        if fence is None:
            return
        with self._store.database.write() as connection:
            # The row stays, so that terms go on rising.
            connection.execute(
                update(table)
                .where(table.c.name == NAME, table.c.owner == self.owner, table.c.term == fence.term)
                .values(expires=0.0, owner="", url="", **self.trace())
            )
        self._renewed = -1e18

    def holder(self) -> Holder | None:
        """Who holds it by the row; None = nobody. Whether that one still lives, only time tells."""
        with self._store.reader() as connection:
            found = _read(connection, lock=False)
        return found[0] if found is not None and found[0].owner else None

    def read_clock(self) -> Reading:
        """What the database's clock shows now."""
        with self._store.reader() as connection:
            self._read_clock(connection)
        assert self.reading is not None
        return self.reading

    def _read_clock(self, connection: Connection) -> float:
        """On PostgreSQL the server's, so that two control planes go by one clock; on SQLite this machine's."""
        before = self._steady()
        if self._store.database.sqlite:
            utc = self._wall()
        else:
            utc = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        self.reading = Reading(utc, (before + self._steady()) / 2)
        return utc

    def trace(self) -> dict[str, object]:
        """What the row keeps of our clock, for who comes next."""
        name, uptime = self.booted()
        return {"boot": name, "uptime": uptime, "seen": self._now()}

    def _make(self, connection: Connection) -> None:
        self._empty.run(connection, [(NAME, "", "", 0, 0.0, 0.0, 0, "", self.ttl, 0, "", "", 0.0, 0.0)])


def boot() -> tuple[str, float]:
    """Which start of this machine it is, and the seconds since: a clock that goes on over all its processes."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "", 0.0  # not a Linux machine
    return name, time.clock_gettime(time.CLOCK_BOOTTIME)


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


def _read(connection: Connection, *, lock: bool) -> tuple[Holder, Trace | None] | None:
    table = table_of(LeaseRow).c
    who = (table.owner, table.host, table.pid, table.since, table.expires, table.term, table.url, table.ttl, table.beat)
    query = select(*who, table.boot, table.uptime, table.seen).where(table.name == NAME)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        return None
    return Holder(*row[: len(who)]), Trace(row.boot, row.uptime, row.seen) if row.boot else None
