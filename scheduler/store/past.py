"""What ran before: attempts that ended, for policies that weigh the past, and the policy that was chosen last."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Text, cast, delete, insert, select

from ...jobs.events import Event
from ...jobs.job import Job, State
from .bulk import table_of
from .rows import decode_shape
from .sql import SqlStore
from .tables import AttemptRow, DecisionRow, JobRow, MetaRow

CHOSEN = "policy"
"""The row of table meta that names the policy which a user chose while the control plane ran."""


def past_attempts(connection: Connection, since: float, limit: int) -> list[tuple[Job, float]]:
    """(job, when the attempt ended) of attempts that ended after `since` (UTC seconds), the oldest first.

    The job is one of its own for each attempt, with what books look at: whose it is, its shape, its estimate, when this
    attempt was placed, and the state that the job is in now. Of more than `limit`, the latest.
    """
    jobs, attempts = table_of(JobRow).c, table_of(AttemptRow).c
    shape = cast(jobs.shape, Text).label("shape")
    query = (
        select(
            jobs.id, shape, jobs.submitted, jobs.name, jobs.queue, jobs.user, jobs.priority, jobs.estimate,
            jobs.limit, jobs.state, jobs.first_start, jobs.ended, jobs.executed,
            attempts.attempt, attempts.placed, attempts.ended.label("until"),
        )
        .join_from(table_of(AttemptRow), table_of(JobRow), attempts.job == jobs.id)
        .where(attempts.ended > since)
        .order_by(attempts.ended.desc(), attempts.job)
        .limit(limit)
    )  # fmt: skip
    found = [(_job(row._asdict()), row.until) for row in connection.execute(query)]
    found.reverse()
    return found


def _job(row: dict[str, object]) -> Job:
    job = Job(
        row["id"],  # type: ignore[arg-type] # the columns have the types of Job's fields
        decode_shape(str(row["shape"])),
        row["submitted"],  # type: ignore[arg-type] # the same
        name=str(row["name"]),
        queue=str(row["queue"]),
        user=str(row["user"]),
        priority=row["priority"],  # type: ignore[arg-type] # the same
        estimate=row["estimate"],  # type: ignore[arg-type] # the same
        limit=row["limit"],  # type: ignore[arg-type] # the same
        state=State(str(row["state"])),
    )
    for key in ("first_start", "ended", "executed", "attempt", "placed"):
        setattr(job, key, row[key])
    return job


def last_policy(connection: Connection) -> str:
    """The name of the policy that made the last decision; empty = none was ever made."""
    table = table_of(DecisionRow).c
    found = connection.scalar(select(table.policy).order_by(table.seq.desc()).limit(1))
    return "" if found is None else str(found).rpartition("/")[0]


def chosen_policy(connection: Connection) -> str:
    """The name of the policy that a user chose while the control plane ran; empty = nobody did."""
    table = table_of(MetaRow).c
    return str(connection.scalar(select(table.value).where(table.key == CHOSEN)) or "")


def choose_policy(store: SqlStore, name: str, events: Sequence[Event] = ()) -> None:
    """Remember a choice, in a transaction of its own, with lines of the journal that belong to it.

    From the thread that commits only.

    Raises:
        StoreError: it cannot be written; nothing changed.
    """
    table = table_of(MetaRow)
    with store.writer() as connection:
        connection.execute(delete(table).where(table.c.key == CHOSEN))
        connection.execute(insert(table).values(key=CHOSEN, value=name))
        store.append(connection, events)
