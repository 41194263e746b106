"""The audit trail: lines of the journal about who asked for what."""

from __future__ import annotations

from sqlalchemy import Connection, select

from ...jobs.events import Kind
from .bulk import table_of
from .queries import EventInfo
from .tables import EventRow


def audit_lines(
    connection: Connection,
    *,
    user: str = "",
    verb: str = "",
    outcome: str = "",
    since: float | None = None,
    before: int | None = None,
    limit: int = 1000,
) -> list[EventInfo]:
    """Lines of the trail, the newest first.

    Args:
        connection: a reader's.
        user: only this one; empty = any.
        verb: the same.
        outcome: the same.
        since: only from then on, in UTC seconds.
        before: only those with a lower sequence number.
        limit: at most so many.
    """
    table = table_of(EventRow)
    # The journal is indexed by job: these lines are all under job 0.
    query = select(table).where(table.c.job == 0, table.c.kind == Kind.AUDIT.value)
    for key, value in (("user", user), ("verb", verb), ("outcome", outcome)):
        if value:
            query = query.where(table.c.data[key].as_string() == value)
    if since is not None:
        query = query.where(table.c.time >= since)
    if before is not None:
        query = query.where(table.c.seq < before)
    return [EventInfo(**row._asdict()) for row in connection.execute(query.order_by(table.c.seq.desc()).limit(limit))]
