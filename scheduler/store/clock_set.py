"""A clock that was set by hours: what runs keeps the time that it has left, and the journal says so."""

from __future__ import annotations

from sqlalchemy import func, insert, select, update

from ...jobs.events import Kind
from ...jobs.job import HOLDING, State
from .bulk import table_of
from .lease import NAME, Lease
from .sql import SqlStore
from .tables import AttemptRow, EventRow, JobRow, LeaseRow


def clock_set(store: SqlStore, lease: Lease, now: float, by: float) -> None:
    """Move what is counted from the time of attempts that run, and pauses that have begun, by `by` seconds.

    In the same transaction the lease's row learns the new time, so that a crash does not have it done again.

    Args:
        store: where.
        lease: ours, by its term.
        now: UTC seconds by the clock as it was until now.
        by: seconds that it was set forward; negative = back.

    Raises:
        StoreError: it cannot be written; nothing of it is there.
    """
    jobs, attempts, events, leases = map(table_of, (JobRow, AttemptRow, EventRow, LeaseRow))
    runs = jobs.c.state.in_([state.value for state in HOLDING])
    pauses = jobs.c.state == State.QUEUED.value, jobs.c.not_before > now
    moved = {name: attempts.c[name] + by for name in ("placed", "started", "stopping")}
    data = {"what": f"the clock was set {'forward' if by > 0 else 'back'} by {abs(by):.0f} s", "by": by}
    with store.writer() as connection:
        connection.execute(update(jobs).where(runs).values(placed=jobs.c.placed + by, started=jobs.c.started + by))
        connection.execute(update(jobs).where(*pauses).values(not_before=jobs.c.not_before + by))
        connection.execute(update(attempts).where(attempts.c.ended.is_(None)).values(**moved))
        last = connection.execute(select(func.max(events.c.seq))).scalar() or 0
        connection.execute(
            insert(events).values(seq=last + 1, time=now + by, kind=Kind.PLANE.value, job=0, attempt=0, data=data)
        )
        trace = lease.trace() | {"seen": now + by}
        connection.execute(update(leases).where(leases.c.name == NAME).values(**trace))
