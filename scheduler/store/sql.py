"""The store on a database: SQLite by default, PostgreSQL by URL. It keeps the promises of `Store`.

A commit is one transaction of a few statements, each for many rows, prepared once: what the budget of 10,000 accepted
jobs a second in batches leaves room for. Faces read through `reader` and queries.py, beside the writer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Text, cast, delete, func, select

from ...cluster.backend import Node, NodeChange
from ...jobs.arrays import Tasks
from ...jobs.errors import StoreError
from ...jobs.events import Event, Kind
from ...jobs.job import FINAL, Job, State
from ...policies.plan import Decision
from ..migrations import migrate
from ..paths import state_directory
from . import sealed
from .attempts import Attempts
from .bulk import given, insert_bulk, table_of, update_bulk
from .database import Database
from .keyring import KEY_FILE, Keyring
from .notes import saved_at
from .rows import (
    JOB_MUTABLE,
    JOB_STATIC,
    decision_of,
    decision_row,
    encode_data,
    encode_line,
    encode_node,
    event_of,
    job_mutable,
    job_of,
    job_static,
    node_of,
    text,
    ulid,
)
from .tables import (
    DecisionRow,
    EventRow,
    JobLabelRow,
    JobRow,
    JobSecretRow,
    LeaseRow,
    NodeRow,
    ShapeReasonRow,
)


class Fence(NamedTuple):
    """The lease under which this process writes: its name, and the term that must still be running."""

    name: str
    term: int


class LeaseLostError(StoreError):
    """Another control plane has taken over: nothing of this was written."""

    code = "lease_lost"


class SqlStore:
    """Jobs, journal and nodes in a database. One thread commits; any number read.

    Args:
        url: sqlite:///FILE, a bare path, or postgresql://... The database is made, or brought up to date.
        busy_timeout: seconds to wait for another program's lock before giving up.
        keys: what secrets are sealed with; None = a key file beside a SQLite file, else in the state directory.

    Attributes:
        database: its connections, for what else lives there (samples, lease).
        locked: why the secrets of a job could not be opened when `unfinished` was asked last, by job.
        fence: if set, a commit is refused once another control plane holds the lease.

    Raises:
        StoreError: the database is another program's, newer than us, locked, or cannot be written.
    """

    def __init__(self, url: str, *, busy_timeout: float = 5.0, keys: Keyring | None = None) -> None:
        self.database = Database(url, busy_timeout=busy_timeout)
        self.fence: Fence | None = None
        self.locked: dict[int, str] = {}
        path = self.database.path
        self.keys = keys or Keyring((state_directory() if path is None else path.parent) / KEY_FILE, make=True)
        try:
            self.upgraded_from = migrate(self.database)
            sealed.seal_plain(self.database, self.keys)
        except BaseException:
            self.database.close()
            raise
        self._statements = _Statements(self.database, self.keys)
        self._nodes: dict[int, Node] = {}
        self._numbers: dict[str, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read again what another control plane may have changed: the nodes and their numbers."""
        self._nodes = {number: change.node for number, change in self.known_nodes()}
        self._numbers = {node.name: number for number, node in self._nodes.items()}

    def close(self) -> None:
        """Let go of the database. What was committed is there."""
        self.database.close()

    def reader(self) -> AbstractContextManager[Connection]:
        """A connection that shows one moment and cannot write, for the functions of queries.py. From any thread."""
        return self.database.read()

    # Write --------------------------------------------------------------------------------------------------------

    def commit(
        self,
        *,
        jobs: Iterable[Job] = (),
        events: Sequence[Event] = (),
        decisions: Sequence[Decision] = (),
        nodes: Sequence[tuple[int, NodeChange]] = (),
    ) -> None:
        """Write it all in one transaction; when it returns, it is on disk.

        A job without a uid is given one. Attempts, labels, secrets and the latest reason of each line are derived
        here, so they can never disagree with the journal.

        Raises:
            StoreError: it cannot be written, or another control plane took over; nothing of this commit is there.
        """
        written = list(jobs)
        if not (written or events or decisions or nodes):
            return
        known = self._nodes
        if nodes:
            known = known | {number: change.node for number, change in nodes}
        statements = self._statements
        with self.writer() as connection:
            last_event, last_decision, last_job = connection.execute(statements.last).one()
            statements.write_nodes(connection, nodes)
            statements.write_jobs(connection, written, events, known, last_job or 0)
            statements.write_events(connection, events, known, last_event or 0)
            statements.write_decisions(connection, decisions, last_decision or 0)
        self._nodes = known
        if nodes:
            self._numbers = {node.name: number for number, node in known.items()}

    def append(self, connection: Connection, events: Sequence[Event]) -> None:
        """Lines of the journal that belong to what else the transaction writes. About the cluster, not about a job."""
        last = connection.scalar(select(func.max(EventRow.seq))) or 0
        self._statements.write_events(connection, events, self._nodes, last)

    @contextmanager
    def writer(self) -> Iterator[Connection]:
        """A transaction of this process's own, committed at the end of the block.

        Raises:
            StoreError: it cannot be written, or another control plane took over; nothing of it is there.
        """
        with self.database.write() as connection:
            if self.fence is not None:
                self._check_fence(connection, self.fence)
            yield connection

    def _check_fence(self, connection: Connection, fence: Fence) -> None:
        # Locked for sharing, so that on PostgreSQL nobody takes the lease between this look and the commit.
        row = connection.execute(
            select(LeaseRow.term, LeaseRow.host, LeaseRow.pid)
            .where(LeaseRow.name == fence.name)
            .with_for_update(read=True)
        ).first()
        if row is None or row.term != fence.term:
            who = "" if row is None else f": process {row.pid} on {row.host} holds it now"
            raise LeaseLostError(
                f"this control plane has lost its lease on {self.database.name}{who}", hint="nothing was written"
            )

    # Read back ----------------------------------------------------------------------------------------------------

    def last_job_id(self) -> int:
        """The highest job id ever given out."""
        with self.reader() as connection:
            last = connection.scalar(select(func.max(JobRow.id))) or 0
            # An array keeps a number for each of its tasks, whether they are made yet or not.
            arrays = select(JobRow.id, cast(JobRow.array_state, Text)).where(JobRow.array_id == JobRow.id)
            kept = [number + Tasks.of(json.loads(state)).count for number, state in connection.execute(arrays)]
            return max([last, *kept])

    def unfinished(self) -> list[Job]:
        """Jobs not in a final state, by id, their specs with the values of their secrets: ready to be started.

        Except those in `locked`, whose secrets cannot be opened.
        """
        active = JobRow.state.in_([state.value for state in State if state not in FINAL])
        with self.reader() as connection:
            secrets, self.locked = sealed.of_unfinished(connection, self.keys)
            rows = connection.execute(_JOBS.where(active).order_by(JobRow.id)).mappings()
            found = [job_of(row, secrets.get(row["id"])) for row in rows]
            saved = saved_at(connection)
        for one in found:
            one.saved = saved.get(one.id, 0.0)
        return found

    def job(self, job_id: int) -> Job | None:
        """One job as last committed."""
        with self.reader() as connection:
            row = connection.execute(_JOBS.where(JobRow.id == job_id)).mappings().first()
        return None if row is None else job_of(row)

    def events(self, job_id: int | None = None, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Event]]:
        """Numbered events. The job of a SUBMITTED event comes as it was then, without its spec."""
        query = (
            select(
                EventRow.seq, EventRow.time, EventRow.kind, EventRow.job, EventRow.attempt, cast(EventRow.data, Text)
            )
            .where(EventRow.seq > after)
            .order_by(EventRow.seq)
            .limit(limit)
        )
        if job_id is not None:
            query = query.where(EventRow.job == job_id)
        with self.reader() as connection:
            return [(row[0], event_of(*row[1:])) for row in connection.execute(query)]

    def decisions(self, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Decision]]:
        """Numbered decisions."""
        query = select(table_of(DecisionRow)).where(DecisionRow.seq > after).order_by(DecisionRow.seq).limit(limit)
        with self.reader() as connection:
            return [(row[0], decision_of(row[1:])) for row in connection.execute(query)]

    def known_nodes(self) -> list[tuple[int, NodeChange]]:
        """Every node ever seen, by number, as it was last: what a restarted engine fills its pool with."""
        with self.reader() as connection:
            rows = connection.execute(select(table_of(NodeRow)).order_by(NodeRow.id)).all()
        return [(row.id, NodeChange(row.changed, node_of(row.node), gone=not row.present)) for row in rows]

    def node_number(self, name: str) -> int | None:
        """The number of a node by its name; None = never seen. From memory: samples ask it all the time."""
        return self._numbers.get(name)

    def secrets(self, job_id: int) -> dict[str, str]:
        """A job's secrets by name, for its start; nothing else reads them.

        Raises:
            SealError: one cannot be opened.
        """
        with self.reader() as connection:
            return sealed.of_job(connection, self.keys, job_id)


_AS_TEXT = frozenset({"shape", "placement", "array_state", "tried"})
_JOBS = select(
    *[
        cast(column, Text).label(column.name) if column.name in _AS_TEXT else column
        for column in table_of(JobRow).columns
    ]
)


class _Statements:
    """What a commit writes, prepared for one kind of database."""

    def __init__(self, database: Database, keys: Keyring) -> None:
        dialect = database.writer.dialect
        self._keys = keys
        self.last = select(
            select(func.max(EventRow.seq)).scalar_subquery(),
            select(func.max(DecisionRow.seq)).scalar_subquery(),
            select(func.max(JobRow.id)).scalar_subquery(),
        )
        self._new_job = insert_bulk(dialect, JobRow, ("id", *JOB_STATIC, *JOB_MUTABLE), change=JOB_MUTABLE)
        self._job = update_bulk(
            dialect,
            JobRow,
            {name: given(f"new_{name}", JobRow, name) for name in JOB_MUTABLE},
            (table_of(JobRow).c.id == given("this", JobRow, "id"),),
            (*(f"new_{name}" for name in JOB_MUTABLE), "this"),
        )
        self._label = insert_bulk(dialect, JobLabelRow, ("job", "key", "value"), change=("value",))
        self._secret = insert_bulk(dialect, JobSecretRow, ("job", "name", "value", "key"), change=("value", "key"))
        self._event = insert_bulk(dialect, EventRow, ("seq", "time", "kind", "job", "attempt", "data"))
        self._attempts = Attempts(dialect)
        self._decision = insert_bulk(dialect, DecisionRow, [column.name for column in table_of(DecisionRow).columns])
        reason = [column.name for column in table_of(ShapeReasonRow).columns]
        self._reason = insert_bulk(dialect, ShapeReasonRow, reason, change=reason[1:])
        self._node = insert_bulk(
            dialect,
            NodeRow,
            ("id", "name", "node", "present", "first_seen", "changed"),
            change=("node", "present", "changed"),
        )

    def write_nodes(self, connection: Connection, nodes: Sequence[tuple[int, NodeChange]]) -> None:
        """Nodes as they are now; a name keeps its number."""
        self._node.run(
            connection,
            [
                (number, change.node.name, encode_node(change.node), not change.gone, change.time, change.time)
                for number, change in nodes
            ],
        )

    def write_jobs(
        self,
        connection: Connection,
        jobs: Sequence[Job],
        events: Sequence[Event],
        nodes: Mapping[int, Node],
        last: int,
    ) -> None:
        """New jobs whole; of known ones only what can change."""
        submitted = {event.job for event in events if event.kind is Kind.SUBMITTED}
        new: list[Job] = []
        known: list[Job] = []
        for job in jobs:
            (new if job.id > last or job.id in submitted else known).append(job)
        changed = [(*job_mutable(job, nodes), job.id) for job in known]
        if self._job.run(connection, changed) != len(known):
            new, known = [*new, *known], []  # some came late, under a lower number: written whole they are all right
        for job in new:
            if not job.uid:
                job.uid = ulid(job.submitted)
        self._new_job.run(connection, [(job.id, *job_static(job), *job_mutable(job, nodes)) for job in new])
        labels: list[tuple[Any, ...]] = []
        for job in new:
            if job.spec is not None:
                named = {**job.spec.labels, **job.spec.annotations}
                labels += [(job.id, text(key), text(value)) for key, value in named.items()]
        self._label.run(connection, labels)
        self._secret.run(connection, sealed.rows_of(self._keys, new))
        # An ended job never starts again: nobody needs its secrets any more.
        ended = [job.id for job in jobs if job.state in FINAL and job.spec is not None and job.spec.secrets]
        if ended:
            connection.execute(delete(JobSecretRow).where(JobSecretRow.job.in_(ended)))

    def write_events(
        self, connection: Connection, events: Sequence[Event], nodes: Mapping[int, Node], last: int
    ) -> None:
        """Lines of the journal, numbered on from the last, and what they mean for attempts."""
        self._event.run(
            connection,
            [
                (number, event.time, event.kind.value, event.job, event.attempt, encode_data(event, nodes))
                for number, event in enumerate(events, last + 1)
            ],
        )
        self._attempts.write(connection, events, nodes)

    def write_decisions(self, connection: Connection, decisions: Sequence[Decision], last: int) -> None:
        """Decisions, numbered on, and the latest reason of each line that they name."""
        self._decision.run(
            connection, [decision_row(number, decision) for number, decision in enumerate(decisions, last + 1)]
        )
        reasons = {
            encode_line(line): (number, decision.time, decision.policy, why.token.value, *why[1:])
            for number, decision in enumerate(decisions, last + 1)
            for line, why in decision.waiting
        }
        self._reason.run(connection, [(line, *why) for line, why in reasons.items()])
