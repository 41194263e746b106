"""The verbs, apart from any protocol: what the HTTP server calls, and whoever embeds the scheduler.

Answers are plain JSON values as docs/api.md describes them; errors are those of jobs/errors.py. Questions to the
database run in threads, requests to the engine are awaited; nothing here waits for the cluster.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

from sqlalchemy import Connection

from ..jobs.errors import ConflictError, GpuschedError, NotFoundError
from ..jobs.events import Kind
from ..jobs.job import FINAL, WAITING, Job, Shape, State
from ..policies.plan import Why
from . import queries
from .admission import Feasibility, foresee, impossible
from .controller import Controller
from .engine import Engine
from .explain import DEEP, Eta, Explanation, estimate_start, explain, position_of
from .queries import JobFilter, JobInfo
from .shortage import needs
from .snapshots import ANNOTATION, SnapshotStore
from .sql import SqlStore
from .sql_cluster import GpuNow, held_gpus, latest_gpus, latest_jobs, list_nodes
from .sql_usage import By, usage
from .views import JSON, accepted_view, attempt_view, event_view, iso, job_view, node_view, reason_view

if TYPE_CHECKING:
    from ..jobs.spec import JobSpec

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that an answer from the database waits for what only the engine knows; then it goes without."""
FRESH = 30.0
"""Seconds after which a sample is no picture of the present any more."""
LOOKED_AT = 20
"""Jobs of one submission up to which each is told its position and reason."""
MOST_LISTED = 10_000


class RequestError(GpuschedError):
    """What was asked is malformed: a wrong key, value or form."""

    code = "bad_request"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Request:
    """One job to submit: what is resolved, with its secrets' values, and which snapshot is its workdir."""

    spec: JobSpec
    snapshot: str | None = None


@dataclass(slots=True)
class Picture:
    """What the engine knows and the database does not, at one moment.

    Attributes:
        whys: the reason for which jobs of a shape wait. positions: by job id, unless the queue is very long.
        free: by node: (GPUs, thousandths of CPUs, bytes).
        commits: how many there had been.
    """

    commits: int
    whys: dict[Shape, Why]
    positions: dict[int, int]
    free: dict[str, tuple[float, int, int]]


def take_picture(engine: Engine, commits: int) -> Picture:
    """A copy, for other threads to look at."""
    queue, pool = engine.queue, engine.pool
    whys = {shape: group.why for shape, group in queue.groups.items() if group.count and group.why is not None}
    positions = {}
    if len(queue) <= DEEP:
        positions = {job.id: place for place, job in enumerate(queue.in_order(), 1)}
    free = {}
    for number, node in enumerate(pool.nodes):
        if pool.present >> number & 1:
            shared = sum(pool.open[number].values()) / 1000
            free[node.name] = (pool.free[number] + shared, pool.cpu[number], pool.memory[number])
    return Picture(commits, whys, positions, free)


class Service:
    """The verbs.

    Args:
        controller: the loop.
        store: the database that it writes to.
        snapshots: the workdirs.
        user: whose the jobs are that name nobody.
    """

    def __init__(self, controller: Controller, store: SqlStore, snapshots: SnapshotStore, *, user: str = "") -> None:
        self.controller = controller
        self.store = store
        self.snapshots = snapshots
        self.user = user
        self.facts: Callable[[], JSON] = dict
        self._inbox = controller.inbox
        self._feasible = Feasibility()
        self._picture: Picture | None = None

    def now(self) -> float:
        """UTC seconds."""
        return self.controller.clock.now()

    async def read(self, ask: Callable[[Connection], T]) -> T:
        """Ask the database, in a thread."""

        def asking() -> T:
            with self.store.reader() as connection:
                return ask(connection)

        return await asyncio.to_thread(asking)

    async def find(self, reference: str, user: str | None = None) -> JobInfo:
        """One job by its id, ULID, name or `@`.

        Raises:
            NotFoundError: there is none, or more than one is meant.
        """
        return await self.read(lambda connection: queries.find_job(connection, reference, user=user))

    # Submit -------------------------------------------------------------------------------------------------------

    async def submit(
        self, requests: Sequence[Request], *, hold: bool = False, queue_anyway: bool = False
    ) -> list[JSON]:
        """Queue jobs, all or none; when this returns they are on disk.

        Raises:
            InfeasibleError: one can never run on this cluster (unless `queue_anyway`).
            ConflictError: a snapshot is not here.
            StoreError: they could not be written.
        """
        for request in requests:
            self._check_snapshot(request)
        jobs = [self._job(request, hold=hold) for request in requests]
        if not queue_anyway:
            await self._admit(jobs)
        submitted = self._inbox.submit(jobs)
        looks: list[tuple[Why | None, int | None, Eta | None]] = [(None, None, None)] * len(jobs)
        if len(jobs) <= LOOKED_AT:
            asked = self._inbox.question(lambda engine: [_look(engine, job, self.now()) for job in jobs])
            await asyncio.wrap_future(submitted)
            looks = await asyncio.wrap_future(asked)
        else:
            await asyncio.wrap_future(submitted)
        now = self.now()
        return [
            accepted_view(job, now, why=why, position=position, eta=eta)
            for job, (why, position, eta) in zip(jobs, looks, strict=True)
        ]

    async def dry_run(self, requests: Sequence[Request]) -> list[JSON]:
        """What would become of these jobs if they were submitted now."""
        jobs = [self._job(request, hold=False) for request in requests]
        verdicts = await self._ask(lambda engine: foresee(engine, jobs, self.now()))
        return [
            {**asdict(verdict), "nodes": list(verdict.nodes), "spec": request.spec.to_document()}
            for verdict, request in zip(verdicts, requests, strict=True)
        ]

    def _job(self, request: Request, *, hold: bool) -> Job:
        spec = request.spec
        spec.secret_values()  # a job whose secrets are not at hand could never start
        if request.snapshot is not None:
            spec = _annotated(spec, ANNOTATION, request.snapshot)
        user = spec.user or self.user
        return Job(
            0,
            spec.shape(),
            0.0,
            name=spec.name,
            queue=spec.queue,
            user=user,
            priority=spec.priority,
            estimate=spec.estimated_duration,
            limit=spec.max_duration,
            preemptible=spec.preemptible,
            spec=spec,
            state=State.HELD if hold or spec.hold else State.QUEUED,
        )

    def _check_snapshot(self, request: Request) -> None:
        if request.snapshot is None:
            if request.spec.workdir is not None:
                raise ConflictError(
                    f"{request.spec.name}: its workdir {request.spec.workdir} did not come with it",
                    hint="upload a snapshot of it and name that with the job, or leave `workdir` out",
                )
        elif not self.snapshots.has(request.snapshot):
            raise ConflictError(f"snapshot {request.snapshot} is not here", hint="upload it, then submit again")

    async def _admit(self, jobs: list[Job]) -> None:
        layout = self.controller.layout
        missing = self._feasible.missing({job.shape for job in jobs}, layout)
        if missing:
            self._feasible.learn(await self._ask(lambda engine: impossible(engine, missing)))
        self._feasible.check(jobs)

    async def _ask(self, ask: Callable[[Engine], T]) -> T:
        return await asyncio.wrap_future(self._inbox.question(ask))

    # Look ---------------------------------------------------------------------------------------------------------

    async def picture(self) -> Picture:
        """What the engine knows now; empty when it does not answer in time (a locked database, say)."""
        commits = self.controller.changes.commits
        if self._picture is not None and self._picture.commits == commits:
            return self._picture
        try:
            asked = self._inbox.question(lambda engine: take_picture(engine, commits))
            self._picture = await asyncio.wait_for(asyncio.wrap_future(asked), PATIENCE)
        except (TimeoutError, GpuschedError):
            return Picture(commits, {}, {}, {})
        return self._picture

    async def jobs(self, wanted: JobFilter) -> tuple[list[JSON], int | None]:
        """Jobs, and the id to go on after (None = that was all)."""
        most = min(wanted.limit or MOST_LISTED, MOST_LISTED)
        found = await self.read(lambda connection: queries.list_jobs(connection, replace(wanted, limit=most + 1)))
        picture = await self.picture()
        now = self.now()
        rows = [
            job_view(job, now, why=picture.whys.get(job.shape), position=picture.positions.get(job.id))
            for job in found[:most]
        ]
        return rows, found[most - 1].id if len(found) > most else None

    async def describe(self, reference: str, user: str | None = None) -> JSON:
        """Everything that is known of one job."""
        now = self.now()

        def ask(connection: Connection) -> tuple[Any, ...]:
            job = queries.find_job(connection, reference, user=user)
            return (
                job,
                queries.job_spec(connection, job.id),
                queries.job_labels(connection, job.id),
                queries.job_attempts(connection, job.id),
                usage(connection, "job", job.submitted, now, job=job.id),
            )

        job, (spec, source), labels, attempts, used = await self.read(ask)
        picture = await self.picture()
        row = used[0] if used else None
        view = job_view(
            job,
            now,
            why=picture.whys.get(job.shape),
            position=picture.positions.get(job.id) or await self._position(job),
            labels=labels,
        )
        if spec is not None:
            document = _read_spec(spec).to_document()
            view |= {"kind": document["kind"], "spec": document, "source": source}
        else:
            view |= {"spec": None, "source": source}
        return {
            **view,
            "attempts": [attempt_view(attempt) for attempt in attempts],
            "links": self.facts().get("ray", {}).get("links", {}),
            "usage": {
                "gpu_hours_allocated": (row.allocated if row else 0.0) / 3600,
                "gpu_hours_used": None if row is None or row.used is None else row.used / 3600,
                "utilization": None if row is None or not row.measured else 100 * (row.used or 0.0) / row.measured,
            },
        }

    async def _position(self, job: JobInfo) -> int | None:
        if job.state is not State.QUEUED:
            return None

        def ask(engine: Engine) -> int | None:
            waiting = engine.jobs.get(job.id)
            return None if waiting is None else position_of(engine, waiting)

        try:
            return await self._ask(ask)
        except GpuschedError:
            return None

    async def events(self, reference: str, *, after: int = 0, limit: int = 1000, user: str | None = None) -> list[JSON]:
        """A job's journal."""
        job = await self.find(reference, user)
        found = await self.read(lambda connection: queries.job_events(connection, job.id, after=after, limit=limit))
        return [event_view(event) for event in found]

    async def all_events(self, *, after: int = 0, limit: int = 1000) -> list[JSON]:
        """The journal of all jobs."""
        found = await self.read(lambda connection: queries.job_events(connection, after=after, limit=limit))
        return [event_view(event) for event in found]

    async def explain(self, reference: str, user: str | None = None) -> JSON:
        """Why a job is where it is."""
        job = await self.find(reference, user)
        said: Explanation | None = None
        if job.state in WAITING:

            def ask(engine: Engine) -> Explanation | None:
                waiting = engine.jobs.get(job.id)
                return None if waiting is None or waiting.state not in WAITING else explain(engine, waiting, self.now())

            said = await self._ask(ask)
            if said is None:  # it started meanwhile
                job = await self.find(str(job.id))
        last, decided = await self.read(
            lambda connection: (
                queries.job_events(connection, job.id),
                queries.reason_for_job(connection, job),
            )
        )
        if said is None:
            return _settled(job, last[-1:], self.now())
        return _waiting(job, said, decided, last[-1:])

    # Change -------------------------------------------------------------------------------------------------------

    async def cancel(self, reference: str, user: str | None = None, *, by: str = "") -> JSON:
        """End a job, or take it out of the queue. One that is being stopped already is left to it."""
        job = await self._meant(reference, user)
        if job.state is State.STOPPING:
            return job_view(job, self.now())
        return await self._change(job, Kind.CANCELLED, by)

    async def hold(self, reference: str, user: str | None = None, *, by: str = "") -> JSON:
        """Keep a waiting job from starting."""
        job = await self._meant(reference, user)
        return job_view(job, self.now()) if job.state is State.HELD else await self._change(job, Kind.HELD, by)

    async def release(self, reference: str, user: str | None = None, *, by: str = "") -> JSON:
        """Let a held job wait in line again."""
        job = await self._meant(reference, user)
        return job_view(job, self.now()) if job.state is State.QUEUED else await self._change(job, Kind.RELEASED, by)

    async def requeue(self, reference: str, user: str | None = None, *, by: str = "") -> JSON:
        """Stop a running job, with its grace, and put it back in the queue."""
        job = await self._meant(reference, user)
        if job.state in {State.QUEUED, State.PREEMPTING}:
            return job_view(job, self.now())
        return await self._change(job, Kind.PREEMPTED, by)

    async def _meant(self, reference: str, user: str | None) -> JobInfo:
        """The one job to change; a name that several unfinished jobs have is not enough."""
        job = await self.find(reference, user)
        if job.name != reference:
            return job
        same = await self.read(
            lambda connection: queries.list_jobs(connection, JobFilter(name=reference, active=True, limit=6))
        )
        if len(same) > 1:
            raise ConflictError(
                f"{len(same) if len(same) < 6 else 'many'} unfinished jobs are named {reference!r}",  # noqa: PLR2004 - the limit above
                hint="give an id: " + ", ".join(str(one.id) for one in same[:5]),
            )
        return same[0] if same else job

    async def _change(self, job: JobInfo, kind: Kind, by: str) -> JSON:
        if job.state in FINAL:
            raise ConflictError(
                f"job {job.id} is {job.state} already", hint=f"`gpusched describe {job.id}` shows how it ended"
            )
        try:
            await asyncio.wrap_future(self._inbox.ask(kind, job.id, {"by": by} if by else None))
        except ConflictError as error:
            wanted = {Kind.PREEMPTED: "requeued", Kind.HELD: "held"}.get(kind, kind.value)
            now = await self.find(str(job.id))
            raise ConflictError(f"job {job.id} is {now.state}: it cannot be {wanted} now", hint=error.hint) from error
        return job_view(await self.find(str(job.id)), self.now())

    # The cluster --------------------------------------------------------------------------------------------------

    async def nodes(self, *, gone: bool = False) -> list[JSON]:
        """Every node, what is free of it, and who holds the rest."""
        infos, held, gpus = await self.read(
            lambda connection: (
                list_nodes(connection, gone=gone),
                held_gpus(connection),
                latest_gpus(connection, self.now() - FRESH),
            )
        )
        picture = await self.picture()
        return [
            node_view(
                info,
                [piece for piece in held if piece.node == info.node.name],
                picture.free.get(info.node.name) if info.present else None,
                _used([gpu for gpu in gpus if gpu.node == info.node.name]),
            )
            for info in infos
        ]

    async def cordon(self, name: str, reason: str) -> JSON:
        """No new work for a node; what runs there goes on."""
        return await self._mark(name, self.controller.cordon(name, reason))

    async def resume(self, name: str) -> JSON:
        """A node takes work again."""
        return await self._mark(name, self.controller.resume(name))

    async def _mark(self, name: str, marked: Future[None]) -> JSON:
        await asyncio.wrap_future(marked)
        await self._ask(lambda _engine: None)  # one turn of the loop: it is written
        self._picture = None
        found = next((node for node in await self.nodes() if node["name"] == name), None)
        if found is None:
            raise NotFoundError(f"node {name} has left the cluster")
        return found

    async def usage(self, by: str, since: float, until: float | None = None) -> JSON:
        """GPU-hours held and used, by user, queue, job or GPU type."""
        if by not in get_args(By):
            raise RequestError(f"usage by {by!r} is not known", hint=f"one of {', '.join(get_args(By))}")
        end = self.now() if until is None else until
        rows = await self.read(lambda connection: usage(connection, cast("By", by), since, end))
        return {
            "by": by,
            "since": iso(since),
            "until": iso(end),
            "rows": [
                {
                    "key": row.key,
                    "jobs": row.jobs,
                    "gpu_hours_allocated": row.allocated / 3600,
                    "gpu_hours_used": None if row.used is None else row.used / 3600,
                    "gpu_hours_idle": None if row.idle is None else row.idle / 3600,
                    "utilization": 100 * (row.used or 0.0) / row.measured if row.measured else None,
                }
                for row in rows
            ],
        }

    async def top(self) -> JSON:
        """Nodes, GPUs and jobs as they are now."""
        now = self.now()
        gpus, loads, counts = await self.read(
            lambda connection: (
                latest_gpus(connection, now - FRESH),
                latest_jobs(connection, now - FRESH),
                queries.count_by_state(connection, JobFilter(active=True)),
            )
        )
        nodes = await self.nodes()
        rows, _ = await self.jobs(JobFilter(active=True, descending=False))
        for row in rows:
            measured = [gpu.utilization for gpu in gpus if gpu.job == row["id"] and gpu.utilization is not None]
            load = [load for load in loads if (load.job, load.attempt) == (row["id"], row["attempt"])]
            cpus = [one.cpu for one in load if one.cpu is not None]
            memory = [one.memory for one in load if one.memory is not None]
            row["utilization"] = 100 * sum(measured) / len(measured) if measured else None
            row["cpu"] = sum(cpus) if cpus else None
            row["memory"] = sum(memory) if memory else None
        used = [gpu.utilization for gpu in gpus if gpu.utilization is not None]
        return {
            "time": iso(now),
            "gpus": {
                "total": sum(node["gpus"] for node in nodes),
                "allocated": sum(job["gpus"] for node in nodes for job in node["jobs"]),
                "used": sum(used) if used else None,
            },
            "queue": {state.value: number for state, number in counts.items()},
            "nodes": nodes,
            "gpu": [_gpu_view(gpu) for gpu in gpus],
            "jobs": rows,
        }

    async def status(self) -> JSON:
        """How the control plane is. It answers whatever else does not."""
        figures = self.controller.figures
        policy, wanted = self.controller.policy, self.controller.wanted
        counts: dict[State, int] | None = None
        error = figures.store_error
        try:
            counts = await self.read(lambda connection: queries.count_by_state(connection, JobFilter(active=True)))
            nodes = await self.read(list_nodes)
        except GpuschedError as trouble:
            nodes, error = [], error or str(trouble)
        picture = await self.picture()
        return {
            "time": iso(self.now()),
            "database": self.store.database.name,
            "leader": figures.leader,
            "standby": figures.standby,
            "policy": {
                "name": policy.name,
                "version": policy.version,
                "wanted": wanted.name,
                "error": figures.policy_fault,
            },
            "ready": bool(picture.free),
            "cluster": {
                "nodes": len(nodes),
                "gpus": sum(info.node.gpus for info in nodes),
                "free": sum(free[0] for free in picture.free.values()),
            },
            "jobs": None if counts is None else {s.value: counts.get(s, 0) for s in State if s not in FINAL},
            "engine": {
                "ticks": figures.ticks,
                "tick_ms": round(figures.tick_ms, 3),
                "worst_ms": round(figures.worst_ms, 3),
                "rebuilds": figures.rebuilds,
                "store_error": error,
            },
            **self.facts(),
        }


def _look(engine: Engine, job: Job, now: float) -> tuple[Why | None, int | None, Eta | None]:
    """(reason, position, estimated start) of a job that was just queued."""
    group = engine.queue.groups.get(job.shape)
    if group is None or job.state is not State.QUEUED or len(engine.queue) > DEEP:
        return None if group is None else group.why, None, None
    return group.why, position_of(engine, job), estimate_start(engine, job, now)


def _annotated(spec: JobSpec, key: str, value: str) -> JobSpec:
    return spec.model_copy(update={"annotations": {**spec.annotations, key: value}})


def _read_spec(text: str) -> JobSpec:
    from ..jobs.spec import JobSpec  # noqa: PLC0415 - pydantic is loaded by the first job

    return JobSpec.from_store(text)


def _waiting(job: JobInfo, said: Explanation, decided: queries.ShapeReason | None, last: list[Any]) -> JSON:
    reasons = [reason_view(reason) for reason in said.reasons]
    return {
        "job": job.id,
        "name": job.name,
        "state": job.state.value,
        "summary": said.reasons[0].message
        if said.reasons
        else "nothing is in its way: it starts with the next decision",
        "reasons": reasons,
        "position": said.position,
        "waiting": said.waiting,
        "waiting_ahead": None if said.position is None else said.position - 1,
        "ahead": [
            {"id": one.id, "name": one.name, "user": one.user, "request": needs(one.shape), "state": one.state.value}
            for one in said.ahead
        ],
        "decision": None
        if decided is None
        else {
            "reason": decided.why.token.value,
            "since": iso(max(decided.time, job.queued)),
            "policy": decided.policy,
            "behind": decided.why.behind or None,
        },
        "suggestions": [{"change": change, "effect": effect} for change, effect in said.suggestions],
        "eta": None if said.eta is None else {"time": iso(said.eta.time), "basis": said.eta.basis},
        "last_event": event_view(last[0]) if last else None,
        "exit_code": job.exit_code,
    }


def _settled(job: JobInfo, last: list[Any], now: float) -> JSON:
    """A job that does not wait: where it runs, or how it ended."""
    nodes = Counter(piece.node for piece in job.pieces)
    where = ", ".join(nodes)
    if job.state in FINAL:
        code = "" if job.exit_code is None else f" with exit code {job.exit_code}"
        ran = "" if job.started is None or job.ended is None else f" after {job.ended - job.started:.0f} s on {where}"
        summary = f"{job.state} since {iso(job.ended)}{code}{ran}: {job.reason}"
    elif job.started is not None:
        summary = f"{job.state} on {where}, for {now - job.started:.0f} s"
    else:
        summary = f"{job.state} on {where}: its processes are being started"
    return {
        "job": job.id,
        "name": job.name,
        "state": job.state.value,
        "summary": summary,
        "reasons": [],
        "position": None,
        "waiting": None,
        "waiting_ahead": None,
        "ahead": [],
        "decision": None,
        "suggestions": [],
        "eta": None,
        "last_event": event_view(last[0]) if last else None,
        "exit_code": job.exit_code,
    }


def _used(gpus: list[GpuNow]) -> JSON:
    """What was measured of a node's GPUs."""
    if not gpus:
        return {}
    busy = [gpu.utilization for gpu in gpus if gpu.utilization is not None]
    memory = [gpu.memory_used for gpu in gpus if gpu.memory_used is not None]
    return {
        "utilization": 100 * sum(busy) / len(busy) if busy else None,
        "memory_used": sum(memory) if memory else None,
        "sampled": iso(max(gpu.time for gpu in gpus)) if busy else None,
    }


def _gpu_view(gpu: GpuNow) -> JSON:
    return {
        "node": gpu.node,
        "gpu": gpu.gpu,
        "model": gpu.model,
        "job": gpu.job or None,
        "utilization": None if gpu.utilization is None else 100 * gpu.utilization,
        "memory_used": gpu.memory_used,
        "memory_total": gpu.memory_total,
        "power": gpu.power,
        "temperature": gpu.temperature,
        "sampled": iso(gpu.time),
    }
