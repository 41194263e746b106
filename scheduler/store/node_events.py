"""The journal's lines on nodes, for their history and for those that come and go too often."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, select

from ...jobs.events import Kind
from .bulk import table_of
from .queries import EventInfo
from .tables import EventRow


def node_events(connection: Connection, name: str = "", *, limit: int = 100) -> list[EventInfo]:
    """The last lines on a node, or on all nodes and windows, the oldest first."""
    table = table_of(EventRow)
    # The journal is indexed by job, and these lines are all under job 0.
    query = select(table).where(table.c.job == 0, table.c.kind == Kind.NODE.value)
    if name:
        query = query.where(table.c.data["node"].as_string() == name)
    rows = connection.execute(query.order_by(table.c.seq.desc()).limit(limit)).all()
    return [EventInfo(**row._asdict()) for row in reversed(rows)]


def times_left(connection: Connection, since: float) -> dict[str, int]:
    """How often each node left the cluster since then (UTC seconds)."""
    table = table_of(EventRow)
    # Counted here: PostgreSQL does not take a parameter of the list for the same one in GROUP BY.
    query = select(table.c.data["node"].as_string()).where(
        table.c.job == 0,
        table.c.kind == Kind.NODE.value,
        table.c.time >= since,
        table.c.data["what"].as_string() == "left",
    )
    return dict(Counter(connection.scalars(query)))
