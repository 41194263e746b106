"""What the faces ask about jobs: listings, one job by any of its names, its events and attempts, why it waits.

Each takes a connection of `SqlStore.reader`, costs what it returns, and answers in plain values: times in UTC seconds,
never a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, cast, func, select, true

from ...jobs.arrays import Tasks
from ...jobs.errors import NotFoundError
from ...jobs.job import FINAL, Job, Piece, Shape, State
from ...policies.plan import Lane, Line, Token, Why
from .rows import decode_shape, encode_line, encode_shape, text
from .tables import AttemptRow, EventRow, JobLabelRow, JobRow, ShapeReasonRow


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs, in which order, and how many. Everything that is given must hold.

    Attributes:
        states: any of these. active: not finished (True) or finished (False).
        name: its name. name_prefix: how it begins. ids: any of these numbers. array: the tasks of this one.
        folded: an array as one row, without its tasks.
        labels: labels or annotations of the job and their values.
        since, until: submitted then or later, and then or before.
        sort: one of SORTS; ties are broken by the number. descending: newest, highest or last first.
        limit: at most so many, after leaving out `offset`. before, after: with a lower or a higher number only: paging
            that stays right while jobs come in.
    """

    states: frozenset[State] = frozenset()
    active: bool | None = None
    user: str | None = None
    queue: str | None = None
    name: str | None = None
    name_prefix: str = ""
    folded: bool = False
    array: int | None = None
    ids: frozenset[int] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    since: float | None = None
    until: float | None = None
    before: int | None = None
    after: int | None = None
    sort: str = "id"
    descending: bool = True
    limit: int | None = None
    offset: int = 0


SORTS = (
    "id",
    "name",
    "user",
    "queue",
    "priority",
    "state",
    "gpus",
    "submitted",
    "started",
    "ended",
    "gpu_seconds",
)
"""What a listing can be sorted by."""


@dataclass(frozen=True, slots=True)
class PieceInfo:
    """One piece of a gang, its node by name."""

    node: str
    piece: Piece


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as listings show it. The attributes are those of `Job`; `gpus` counts the whole gang.

    cause: token of why its last attempt failed; empty = it did not. pieces: where its current or last attempt is.
    """

    id: int
    uid: str
    name: str
    user: str
    queue: str
    priority: int
    state: State
    reason: str
    shape: Shape
    gpus: float
    submitted: float
    queued: float
    not_before: float
    placed: float
    started: float | None
    first_start: float | None
    ended: float | None
    attempt: int
    failures: int
    pieces: tuple[PieceInfo, ...]
    stop_cause: str
    exit_code: int | None
    gpu_seconds: float
    estimate: float | None
    limit: float | None
    preemptible: bool
    min_runtime: float
    executed: float
    cause: str
    array_id: int | None
    array_index: int | None
    array_state: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class AttemptInfo:
    """One attempt of a job.

    Attributes:
        gpus: GPUs held, a shared one in part. pieces: where.
        stopping, stop_cause: when it was told to end, and by what kind of event.
        result: kind of the event that ended it, or "preempted"; empty while it runs.
        ranks: as the cluster reported them: rank, node, address, gpus (indices), pid, log; None before the start.
        lost_work: GPU-seconds since the last checkpoint, if that is known.
        cause, cause_detail: why it ended, as a token and in words, and failed_node, where; empty = it did not fail, or
            nobody knows.
    """

    job: int
    attempt: int
    gpus: float
    gpu_type: str
    placed: float
    pieces: tuple[PieceInfo, ...]
    started: float | None
    stopping: float | None
    stop_cause: str
    ended: float | None
    result: str
    exit_code: int | None
    message: str
    ranks: list[dict[str, Any]] | None
    checkpoint: str | None
    lost_work: float | None
    cause: str
    cause_detail: str
    failed_node: str


@dataclass(frozen=True, slots=True)
class EventInfo:
    """A line of the journal as plain data (a placement as {"pieces": [[node, number, gpus, gpu_milli, slot], ...]})."""

    seq: int
    time: float
    kind: str
    job: int
    attempt: int
    data: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ShapeReason:
    """Why jobs of one line wait, as last decided. `decision`: its number in the journal."""

    decision: int
    time: float
    policy: str
    why: Why


@dataclass(frozen=True, slots=True)
class Ahead:
    """How many queued jobs there are, and how many come first by each rule.

    Attributes:
        waiting: all in QUEUED.
        arrived: with a lower number.
        priority: of a higher priority, or of the same and a lower number.
        same_shape: of the same shape and a lower number.
    """

    waiting: int
    arrived: int
    priority: int
    same_shape: int


_INFO = [JobRow.__table__.c[item.name] for item in fields(JobInfo) if item.name not in {"shape", "pieces"}]
_LISTED = select(*_INFO, cast(JobRow.shape, Text).label("shape"), JobRow.placement)


# Listings -------------------------------------------------------------------------------------------------------


def list_jobs(connection: Connection, wanted: JobFilter) -> list[JobInfo]:
    """The jobs that fit, sorted and cut as asked."""
    assert wanted.sort in SORTS, f"cannot sort by {wanted.sort}"
    query = _LISTED.where(*_conditions(wanted))
    if wanted.sort != "id":
        query = _sorted(query, wanted).limit(wanted.limit).offset(wanted.offset or None)
        return [_info(row) for row in connection.execute(query)]
    most = None if wanted.limit is None else wanted.offset + wanted.limit
    # Without a limit the number is no help: what was submitted since is found by its own index, and then sorted.
    number = JobRow.id if wanted.since is None or most is not None else JobRow.id + 0
    query = query.order_by(number.desc() if wanted.descending else number).limit(most)
    looks = _looks(wanted)
    found = [row for look in looks for row in connection.execute(query.where(look))]
    if len(looks) > 1:
        found.sort(key=lambda row: row.id, reverse=wanted.descending)
    return [_info(row) for row in found[wanted.offset : most]]


def _looks(wanted: JobFilter) -> list[ColumnElement[bool]]:
    """The same jobs as disjoint sets, each in the order of an index: short looks, no sorting of all that ever was."""
    active = _active(wanted)
    if wanted.ids:
        return [true()]
    if wanted.user is not None or wanted.queue is not None:
        return [JobRow.active.is_(half) for half in ((True, False) if active is None else (active,))]
    if wanted.states or active is not None:
        states = wanted.states or (frozenset(State) - FINAL if active else FINAL)
        return [JobRow.state == state.value for state in sorted(states)]
    return [true()]


def count_jobs(connection: Connection, wanted: JobFilter) -> int:
    """How many jobs fit, whatever the limit."""
    return connection.scalar(select(func.count()).select_from(JobRow).where(*_conditions(wanted))) or 0


def count_by_state(connection: Connection, wanted: JobFilter | None = None) -> dict[State, int]:
    """How many jobs are in each state; states without any are left out."""
    query = select(JobRow.state, func.count()).where(*_conditions(wanted or JobFilter())).group_by(JobRow.state)
    return {State(state): number for state, number in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """How many unfinished jobs of one state are in a queue, and the GPUs of their gangs."""

    queue: str
    state: State
    jobs: int
    gpus: float


def load_by_queue(connection: Connection) -> list[QueueLoad]:
    """What is in each queue that an unfinished job names."""
    query = (
        select(JobRow.queue, JobRow.state, func.count(), func.sum(JobRow.gpus))
        .where(*_conditions(JobFilter(active=True)))
        .group_by(JobRow.queue, JobRow.state)
        .order_by(JobRow.queue, JobRow.state)
    )
    return [QueueLoad(queue, State(state), jobs, gpus) for queue, state, jobs, gpus in connection.execute(query)]


def _conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    active = _active(wanted)
    owned = (
        wanted.user is not None or wanted.queue is not None
    )  # then an index leads with `active`, else with the state
    states = wanted.states
    if not states and active is not None and not owned:
        states = frozenset(State) - FINAL if active else FINAL
    given = (
        (states, JobRow.state.in_(sorted(states))),
        (active is not None and owned, JobRow.active.is_(active)),
        (wanted.user is not None, JobRow.user == text(wanted.user)),
        (wanted.queue is not None, JobRow.queue == text(wanted.queue)),
        (wanted.name is not None, JobRow.name == text(wanted.name)),
        (wanted.name_prefix, _begins(JobRow.name, text(wanted.name_prefix))),
        (wanted.ids, JobRow.id.in_(sorted(wanted.ids))),
        (wanted.folded, JobRow.array_index.is_(None)),
        (wanted.array is not None, (JobRow.array_id == wanted.array) & JobRow.array_index.is_not(None)),
        (wanted.since is not None, JobRow.submitted >= (wanted.since or 0)),
        (wanted.until is not None, JobRow.submitted <= (wanted.until or 0)),
        (wanted.before is not None, JobRow.id < (wanted.before or 0)),
        (wanted.after is not None, JobRow.id > (wanted.after or 0)),
    )
    labelled = [
        JobRow.id.in_(select(JobLabelRow.job).where(JobLabelRow.key == text(key), JobLabelRow.value == text(value)))
        for key, value in wanted.labels.items()
    ]
    return [condition for asked, condition in given if asked] + labelled


def _active(wanted: JobFilter) -> bool | None:
    """Whether only unfinished (True) or finished jobs are wanted, by what is said or by the states."""
    if wanted.active is None and wanted.states:
        return True if not wanted.states & FINAL else False if wanted.states <= FINAL else None
    return wanted.active


def _begins(column: Any, prefix: str) -> ColumnElement[bool]:  # noqa: ANN401 - a mapped text column
    """A range instead of LIKE: it uses the index, and needs no escapes."""
    return and_(column >= prefix, column < prefix + "\U0010ffff")


def _sorted(query: Select[Any], wanted: JobFilter) -> Select[Any]:
    column = JobRow.__table__.c[wanted.sort]
    if wanted.descending:
        return query.order_by(column.desc().nulls_last(), JobRow.id.desc())
    return query.order_by(column.nulls_last(), JobRow.id)


def _info(row: Any) -> JobInfo:  # noqa: ANN401 - a row of _LISTED
    values = row._asdict()
    values["state"] = State(values["state"])
    values["shape"] = decode_shape(values["shape"])
    values["pieces"] = _pieces(values.pop("placement"))
    return JobInfo(**values)


def _pieces(found: Sequence[Sequence[Any]] | None) -> tuple[PieceInfo, ...]:
    return tuple(PieceInfo(name, Piece(*piece)) for name, *piece in found or ())


# One job --------------------------------------------------------------------------------------------------------


def find_job(connection: Connection, reference: str, *, user: str | None = None) -> JobInfo:
    """One job by what a user types.

    That is its number; `@`, the newest (of `user`), or `@~2`, the second before it; its ULID; its name (the newest so
    called); or the beginning of a ULID or of a name, if only one job has it.

    Raises:
        NotFoundError: no job, or more than one, is meant.
    """
    reference = text(reference)
    back = re.fullmatch(r"@(?:~(\d{1,9}))?", reference)
    if back:
        newest = list_jobs(connection, JobFilter(user=user, folded=True, limit=1, offset=int(back[1] or 0)))
        return _only(newest, reference)
    task = re.fullmatch(r"(\d{1,18})(?:_(\d{1,9})|\[(\d{1,9})\])", reference)
    if task:
        return _task(connection, int(task[1]), int(task[2] or task[3]))
    if re.fullmatch(r"\d{1,18}", reference):
        found = list_jobs(connection, JobFilter(ids=frozenset({int(reference)})))
        if found:
            return found[0]
    for condition, most in (
        (JobRow.uid == reference.upper(), 1),
        ((JobRow.name == reference) & JobRow.array_index.is_(None), 1),
        (_begins(JobRow.uid, reference.upper()), 4),
        (_begins(JobRow.name, reference) & JobRow.array_index.is_(None), 4),
    ):
        rows = connection.execute(_LISTED.where(condition).order_by(JobRow.id.desc()).limit(most)).all()
        if rows:
            return _only([_info(row) for row in rows], reference)
    raise _missing(reference)


def _task(connection: Connection, array: int, index: int) -> JobInfo:
    """A task by its array and its index."""
    rows = connection.execute(_LISTED.where(JobRow.array_id == array, JobRow.array_index == index)).all()
    if rows:
        return _info(rows[0])
    whole = connection.execute(_LISTED.where(JobRow.id == array)).first()
    if whole is None or whole.array_state is None:
        raise NotFoundError(f"there is no array {array}", hint="`gpusched ps -a` lists all jobs")
    tasks = Tasks.of(whole.array_state)
    if not tasks.indices.has(index):
        raise NotFoundError(f"array {array} has no task {index}: it is {tasks.text}")
    raise NotFoundError(
        f"task {index} of array {array} is not in line yet: {tasks.made:,} of {tasks.count:,} tasks are",
        hint=f"it comes as those before it start; `gpusched explain {array}` says what they wait for",
    )


def _only(found: list[JobInfo], reference: str) -> JobInfo:
    if not found:
        raise _missing(reference)
    if len(found) > 1:
        some = ", ".join(f"{job.id} ({job.name or job.uid})" for job in found[:3])
        more = ", ..." if len(found) > 3 else ""  # noqa: PLR2004 - as many as are shown
        raise NotFoundError(f"{reference!r} can mean more than one job: {some}{more}", hint="give its number")
    return found[0]


def _missing(reference: str) -> NotFoundError:
    return NotFoundError(f"there is no job {reference!r}", hint="`gpusched ps -a` lists all jobs")


def job_spec(connection: Connection, job_id: int) -> tuple[str | None, str | None]:
    """(as resolved: what `JobSpec.to_store` wrote, as the user wrote it); None for a job without a spec."""
    row = connection.execute(select(JobRow.spec, JobRow.source).where(JobRow.id == job_id)).first()
    return (None, None) if row is None else (row.spec, row.source)


def job_labels(connection: Connection, job_id: int) -> dict[str, str]:
    """The labels and annotations that a job is found by."""
    query = select(JobLabelRow.key, JobLabelRow.value).where(JobLabelRow.job == job_id).order_by(JobLabelRow.key)
    return {key: value for key, value in connection.execute(query)}  # noqa: C416 - rows are not pairs to a type checker


def job_events(
    connection: Connection, job_id: int | None = None, *, after: int = 0, limit: int | None = None
) -> list[EventInfo]:
    """The journal after a sequence number, of one job or of all, oldest first."""
    query = select(*EventRow.__table__.columns).where(EventRow.seq > after).order_by(EventRow.seq).limit(limit)
    if job_id is not None:
        query = query.where(EventRow.job == job_id)
    return [EventInfo(**row._asdict()) for row in connection.execute(query)]


def job_attempts(connection: Connection, job_id: int) -> list[AttemptInfo]:
    """A job's attempts, the first one first."""
    query = select(*AttemptRow.__table__.columns).where(AttemptRow.job == job_id).order_by(AttemptRow.attempt)
    return [AttemptInfo(**{**row._asdict(), "pieces": _pieces(row.pieces)}) for row in connection.execute(query)]


# Why it waits ---------------------------------------------------------------------------------------------------


def reason_for_shape(connection: Connection, shape: Shape, lane: Lane = ()) -> ShapeReason | None:
    """Why jobs of this shape wait, of this lane where the policy has lanes, as last decided; None = none had to."""
    line = encode_line(Line(lane, shape))
    row = connection.execute(select(*ShapeReasonRow.__table__.columns).where(ShapeReasonRow.shape == line)).first()
    if row is None:
        return None
    why = Why(Token(row.token), row.needs, row.free, row.largest, row.behind)
    return ShapeReason(row.decision, row.time, row.policy, why)


def reason_for_job(connection: Connection, job: JobInfo | Job, lane: Lane = ()) -> ShapeReason | None:
    """Why a job waits: the reason of its line, if it is queued."""
    return reason_for_shape(connection, job.shape, lane) if job.state is State.QUEUED else None


def waiting_ahead(connection: Connection, job: JobInfo | Job) -> Ahead:
    """What a position in the queue is made of. Which of the numbers counts is the policy's to say."""
    queued = JobRow.state == State.QUEUED.value
    before = JobRow.id < job.id
    count = select(func.count()).select_from(JobRow).where(queued)
    higher = select(func.count()).select_from(JobRow).where(queued, JobRow.priority > job.priority)
    level = select(func.count()).select_from(JobRow).where(queued, JobRow.priority == job.priority, before)
    shape = cast(JobRow.shape, Text) == encode_shape(job.shape)
    return Ahead(
        waiting=connection.scalar(count) or 0,
        arrived=connection.scalar(count.where(before)) or 0,
        priority=(connection.scalar(higher) or 0) + (connection.scalar(level) or 0),
        same_shape=connection.scalar(count.where(before, shape)) or 0,
    )
