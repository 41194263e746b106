"""The tables of the store, as SQLAlchemy models. Migrations build them; tests hold the two equal.

Times are UTC seconds, durations are seconds, memory is bytes. 0 in a `job` column of the samples means nobody's.
Columns typed JSON hold compact JSON text on SQLite and `json` on PostgreSQL.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    false,
)
from sqlalchemy import text as sql_text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

APPLICATION = "gpusched"
"""What the row `application` of table meta says, so that another program's database is never written to."""

# As SQL: Alembic cannot tell an empty text from none.
EMPTY = sql_text("''")

# SQLite makes a column the row number only if it is declared INTEGER; PostgreSQL's INTEGER ends at 2 ** 31.
Number = BigInteger().with_variant(Integer, "sqlite")

# Compared byte by byte on both databases, so that a range on an index finds a prefix.
Word = Text().with_variant(Text(collation="C"), "postgresql")


class Base(DeclarativeBase):
    """Registry of the tables, with names for all constraints so that a migration can refer to them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        },
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        int: Number,
        float: Double,
        str: Text,
        bool: Boolean,
        bytes: LargeBinary,
    }


class MetaRow(Base):
    """Facts on the database itself: whose it is, when it was made and by which version."""

    __tablename__ = "meta"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str]


class JobRow(Base):
    """A job as last committed; all fields of `Job`, and what listings look for."""

    __tablename__ = "jobs"

    # Written once.
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    uid: Mapped[str] = mapped_column(Word)
    user: Mapped[str]
    spec: Mapped[str | None]  # as resolved
    source: Mapped[str | None]  # as the user wrote it
    submitted: Mapped[float]
    array_id: Mapped[int | None]  # the array that a task is of; an array's own is its id; NULL = neither
    array_index: Mapped[int | None]  # which task; NULL = the array itself
    # Written whenever the job changes.
    name: Mapped[str] = mapped_column(Word)
    queue: Mapped[str]
    priority: Mapped[int]
    state: Mapped[str]
    active: Mapped[bool]  # not in a final state: what `ps` asks for, and small however long the history is
    reason: Mapped[str]
    shape: Mapped[Any] = mapped_column(JSON)
    gpus: Mapped[float]  # of the whole gang
    queued: Mapped[float]
    not_before: Mapped[float]
    placed: Mapped[float]
    started: Mapped[float | None]
    first_start: Mapped[float | None]
    ended: Mapped[float | None]
    attempt: Mapped[int]
    failures: Mapped[int]
    placement: Mapped[Any | None] = mapped_column(JSON)
    stop_cause: Mapped[str]
    exit_code: Mapped[int | None]
    gpu_seconds: Mapped[float]
    estimate: Mapped[float | None]
    limit: Mapped[float | None]
    preemptible: Mapped[bool]
    min_runtime: Mapped[float] = mapped_column(server_default="0")
    executed: Mapped[float] = mapped_column(server_default="0")
    cause: Mapped[str] = mapped_column(server_default=EMPTY)  # why the last attempt failed, as a token; empty = not
    tried: Mapped[Any | None] = mapped_column(JSON)  # what its retries have used up
    array_state: Mapped[Any | None] = mapped_column(JSON)  # of an array: indices, limit, how many are made and ended

    __table_args__ = (
        Index(
            None,
            "array_id",
            "array_index",
            sqlite_where=sql_text("array_id IS NOT NULL"),
            postgresql_where=sql_text("array_id IS NOT NULL"),
        ),
        Index(
            None,
            "ended",
            sqlite_where=sql_text("ended IS NOT NULL"),
            postgresql_where=sql_text("ended IS NOT NULL"),
        ),
        Index(None, "uid", unique=True),
        Index(None, "name", "id"),
        Index(None, "state", "id"),
        Index(None, "state", "priority", "id"),
        Index(None, "user", "active", "id"),
        Index(None, "queue", "active", "id"),
        Index(None, "submitted"),
    )


class JobLabelRow(Base):
    """A label of a job, for `-l key=value`."""

    __tablename__ = "job_labels"

    job: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]

    __table_args__ = (Index(None, "key", "value", "job"),)


class JobSecretRow(Base):
    """A secret of a job, sealed. Apart from the spec, so that no listing can show one by mistake."""

    __tablename__ = "job_secrets"

    job: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[bytes]
    key: Mapped[str] = mapped_column(server_default="plain")  # id of the key that sealed it; of older versions: plain


class AttemptRow(Base):
    """One run of a job: where it was, and how it ended. Derived from the events in the commit that brings them."""

    __tablename__ = "attempts"

    job: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    gpus: Mapped[float]
    gpu_type: Mapped[str]
    placed: Mapped[float]
    pieces: Mapped[Any] = mapped_column(JSON)
    started: Mapped[float | None]
    stopping: Mapped[float | None]  # when it was told to end
    stop_cause: Mapped[str]  # kind of the event that told it to
    ended: Mapped[float | None]
    result: Mapped[str]  # kind of the event that ended it, or "preempted"; empty = it runs
    exit_code: Mapped[int | None]
    message: Mapped[str]
    ranks: Mapped[Any | None] = mapped_column(JSON)
    checkpoint: Mapped[str | None]
    lost_work: Mapped[float | None]  # GPU-seconds
    cause: Mapped[str] = mapped_column(server_default=EMPTY)  # as a token, such as `exit:3`; empty = it did not fail
    cause_detail: Mapped[str] = mapped_column(server_default=EMPTY)
    failed_node: Mapped[str] = mapped_column(server_default=EMPTY)  # of the rank that failed first

    __table_args__ = (Index(None, "ended"),)


class EventRow(Base):
    """One line of the journal."""

    __tablename__ = "events"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[float]
    kind: Mapped[str]
    job: Mapped[int]
    attempt: Mapped[int]
    data: Mapped[Any | None] = mapped_column(JSON)

    __table_args__ = (Index(None, "job", "seq"),)


class DecisionRow(Base):
    """What the policy decided at one moment."""

    __tablename__ = "decisions"

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[float]
    policy: Mapped[str]
    waiting_jobs: Mapped[int]
    free_gpus: Mapped[int]
    starts: Mapped[Any] = mapped_column(JSON)
    preemptions: Mapped[Any] = mapped_column(JSON)
    waiting: Mapped[Any] = mapped_column(JSON)
    promises: Mapped[Any | None] = mapped_column(JSON)


class ShapeReasonRow(Base):
    """The latest reason for which jobs of one line wait: an index into `decisions`, so that asking costs one row.

    shape: the line as `rows.encode_line` wrote it; of jobs that the policy tells apart by their shape alone, that.
    """

    __tablename__ = "shape_reasons"

    shape: Mapped[str] = mapped_column(primary_key=True)
    decision: Mapped[int]
    time: Mapped[float]
    policy: Mapped[str]
    token: Mapped[str]
    needs: Mapped[float]
    free: Mapped[float]
    largest: Mapped[int]
    behind: Mapped[int]


class NodeRow(Base):
    """A node ever seen, under its number in the pool, which it keeps after it left."""

    __tablename__ = "nodes"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    node: Mapped[Any] = mapped_column(JSON)
    present: Mapped[bool]
    first_seen: Mapped[float]
    changed: Mapped[float]

    __table_args__ = (Index(None, "name", unique=True),)


class MaintenanceRow(Base):
    """A maintenance window: a time in which some nodes are not for jobs."""

    __tablename__ = "maintenance"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    start: Mapped[float]
    end: Mapped[float]
    cancelled: Mapped[float | None]
    data: Mapped[Any] = mapped_column(JSON)  # which nodes, by whom, why


class GpuRow(Base):
    """What stays the same of a GPU from sample to sample."""

    __tablename__ = "gpus"

    node: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True, autoincrement=False)
    gpu: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    uuid: Mapped[str]
    name: Mapped[str]
    memory_total: Mapped[int | None]


class HostSampleRow(Base):
    """The latest figures of a node's host, as its agent sent them."""

    __tablename__ = "host_samples"

    node: Mapped[int] = mapped_column(ForeignKey("nodes.id"), primary_key=True, autoincrement=False)
    time: Mapped[float]
    data: Mapped[Any] = mapped_column(JSON)


class GpuSampleRow(Base):
    """One look at one GPU. NULL utilization = it was held, but there was nothing to measure it by."""

    __tablename__ = "gpu_samples"

    time: Mapped[float] = mapped_column(primary_key=True)
    node: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    gpu: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job: Mapped[int]
    attempt: Mapped[int]
    seconds: Mapped[float]  # of time that this look stands for: since the one before, capped
    utilization: Mapped[float | None]  # 0 to 1
    memory_used: Mapped[int | None]
    power: Mapped[float | None]  # watts
    temperature: Mapped[float | None]  # degrees Celsius
    processes: Mapped[Any | None] = mapped_column(JSON)

    # Written in order of time: without a row number the rows themselves are the index.
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it from the class


class JobSampleRow(Base):
    """One look at the process tree of one job on one node."""

    __tablename__ = "job_samples"

    time: Mapped[float] = mapped_column(primary_key=True)
    node: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seconds: Mapped[float]
    cpu: Mapped[float | None]  # CPUs kept busy
    memory: Mapped[int | None]
    processes: Mapped[int | None]

    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy reads it from the class


class GpuRollupRow(Base):
    """Samples of one GPU under one holder, rolled up to a minute (period 60) or an hour (period 3600)."""

    __tablename__ = "gpu_rollups"

    period: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    start: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    node: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    gpu: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    samples: Mapped[int]
    measured: Mapped[int]  # samples with a utilization
    utilization_mean: Mapped[float | None]
    utilization_max: Mapped[float | None]
    memory_mean: Mapped[float | None]
    memory_max: Mapped[int | None]
    power_mean: Mapped[float | None]
    temperature_max: Mapped[float | None]
    seconds: Mapped[float]  # that the samples stand for
    measured_seconds: Mapped[float]  # the same of those with a utilization
    used_seconds: Mapped[float]  # the same times the utilization: GPU-seconds of work

    __table_args__ = (Index(None, "job", "period", "start"), {"sqlite_with_rowid": False})


class JobRollupRow(Base):
    """Samples of one job's process tree on one node, rolled up to a minute or an hour."""

    __tablename__ = "job_rollups"

    period: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    start: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    node: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    job: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    samples: Mapped[int]
    cpu_mean: Mapped[float | None]
    cpu_max: Mapped[float | None]
    memory_mean: Mapped[float | None]
    memory_max: Mapped[int | None]
    processes_max: Mapped[int | None]
    seconds: Mapped[float]

    __table_args__ = (Index(None, "job", "period", "start"), {"sqlite_with_rowid": False})


class QueueVersionRow(Base):
    """One version of the queue file, as it was applied. The highest number holds; an empty text = no queues."""

    __tablename__ = "queue_versions"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    time: Mapped[float]
    user: Mapped[str]
    note: Mapped[str]  # what it was applied for: empty, or "rollback to N"
    file: Mapped[str]  # its name, for messages
    text: Mapped[str]


class ArchiveRow(Base):
    """A part of the history that lies in Parquet files: what is in it, and whether the tables have let go of it.

    From the moment that this row is there, its files count. Rows that are still in the tables as well are the same.
    """

    __tablename__ = "archives"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str]  # moving = the tables may still have rows of it; moved = they have none
    made: Mapped[float]
    folder: Mapped[str]
    first: Mapped[float]  # submission of its first job, or time of its first line of the journal
    last: Mapped[float]  # end of its last job, or time of its last line
    first_job: Mapped[int]  # 0 = it has none
    last_job: Mapped[int]
    rows: Mapped[Any] = mapped_column(JSON)  # table -> how many
    files: Mapped[Any] = mapped_column(JSON)  # table -> [file name, bytes, SHA-256]


class UserRow(Base):
    """Who may ask for what."""

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(primary_key=True)
    settings: Mapped[Any] = mapped_column(JSON)
    changed: Mapped[float]
    role: Mapped[str] = mapped_column(server_default="user")
    groups: Mapped[Any | None] = mapped_column(JSON)  # none = of no group
    disabled: Mapped[bool] = mapped_column(server_default=false())
    created: Mapped[float] = mapped_column(server_default="0")


class TokenRow(Base):
    """A token that somebody was given. Only its hash: the token itself is known to its owner alone."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(primary_key=True)
    user: Mapped[str]
    digest: Mapped[str]  # SHA-256 of the whole token, in hexadecimal digits
    role: Mapped[str]  # it carries no more than this; empty = all that its user may
    note: Mapped[str]
    created: Mapped[float]
    expires: Mapped[float | None]
    revoked: Mapped[float | None]
    last_used: Mapped[float | None]
    last_from: Mapped[str]  # address

    __table_args__ = (Index(None, "user"),)


class LeaseRow(Base):
    """Who may write: one control plane at a time."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    since: Mapped[float]
    expires: Mapped[float]
    term: Mapped[int]  # rises with every new holder
    url: Mapped[str] = mapped_column(server_default=EMPTY)  # where the holder answers
    ttl: Mapped[float] = mapped_column(server_default="15")  # seconds without a beat after which another may take it
    beat: Mapped[int] = mapped_column(server_default="0")  # rises with every renewal
    cluster: Mapped[str] = mapped_column(server_default=EMPTY)  # name of this database's jobs on a Ray; for good
    # At the last renewal: the start of the holder's machine, the seconds since then, and the time.
    boot: Mapped[str] = mapped_column(server_default=EMPTY)
    uptime: Mapped[float] = mapped_column(server_default="0")
    seen: Mapped[float] = mapped_column(server_default="0")


class SnapshotRow(Base):
    """A part of a packed workdir, where control planes on several machines share one database."""

    __tablename__ = "snapshots"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True)
    parts: Mapped[int]
    touched: Mapped[float]
    data: Mapped[bytes]
