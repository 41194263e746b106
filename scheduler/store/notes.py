"""What running jobs have said of themselves, out of the journal: no table repeats it."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from ...jobs.events import Kind
from ...jobs.job import HOLDING
from .bulk import table_of
from .tables import EventRow, JobRow


def saved_at(connection: Connection) -> dict[int, float]:
    """When the present attempt of each job that holds GPUs last saved its work, by job; not those that never did."""
    events, jobs = table_of(EventRow).c, table_of(JobRow).c
    last = (
        select(func.max(events.seq))
        .join_from(table_of(JobRow), table_of(EventRow), events.job == jobs.id)
        .where(
            jobs.state.in_([state.value for state in HOLDING]),
            events.attempt == jobs.attempt,
            events.kind == Kind.CHECKPOINTED.value,
        )
        .group_by(events.job)
    )
    return {
        row.job: row.data["time"]
        for row in connection.execute(select(events.job, events.data).where(events.seq.in_(last)))
    }
