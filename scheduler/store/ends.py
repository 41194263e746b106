"""How attempts ended of late: the evidence against nodes, for a control plane that begins."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select

from ...jobs.events import Kind
from .bulk import table_of
from .tables import AttemptRow, EventRow


class Ended(NamedTuple):
    """An attempt that failed or did its work, or a node that was resumed (job 0).

    Attributes:
        time: UTC seconds. job, attempt: which.
        cause: its token, empty = it succeeded. detail: in words.
        nodes: names; of a failure that of the rank that failed first.
    """

    time: float
    job: int
    attempt: int
    cause: str
    detail: str
    nodes: tuple[str, ...]


def recent_ends(connection: Connection, since: float, limit: int = 100_000) -> list[Ended]:
    """What ended after `since` (UTC seconds) with a known node, and the nodes that were resumed, the oldest first."""
    attempts, events = table_of(AttemptRow).c, table_of(EventRow).c
    rows = connection.execute(
        select(
            attempts.ended, attempts.job, attempts.attempt, attempts.cause, attempts.cause_detail,
            attempts.failed_node, attempts.pieces,
        )
        .where(attempts.ended > since)
        .where((attempts.failed_node != "") | (attempts.result == Kind.SUCCEEDED.value))
        .order_by(attempts.ended.desc())
        .limit(limit)
    )  # fmt: skip
    found = [
        Ended(ended, job, number, cause, detail, (node,) if node else tuple(sorted({piece[0] for piece in pieces})))
        for ended, job, number, cause, detail, node, pieces in rows
    ]
    resumed = connection.execute(
        select(events.time, events.data["node"].as_string()).where(
            events.job == 0,
            events.kind == Kind.NODE.value,
            events.time > since,
            events.data["what"].as_string() == "resumed",
        )
    )
    found += [Ended(time, 0, 0, "", "", (str(node),)) for time, node in resumed]
    return sorted(found, key=lambda one: one.time)
