"""The verbs, apart from any protocol: what the HTTP server calls, and whoever embeds the scheduler.

Answers are plain JSON values as docs/api.md describes them; errors are those of jobs/errors.py. Questions to the
database run in threads, requests to the engine are awaited; nothing here waits for the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from ..jobs.arrays import Tasks
from ..jobs.errors import ConflictError, GpuschedError
from ..jobs.events import Kind
from ..jobs.job import FINAL, WAITING, Job, State
from ..policies.plan import Why
from .access.asking import ASKING
from .access.model import Role
from .access.verbs import Access
from .admission import Feasibility, foresee, impossible
from .controller import Controller
from .engine import Engine
from .explain import DEEP, Eta, Explanation, estimate_start, explain, position_of
from .explain_view import settled_view, waiting_view
from .limits import TooManyError
from .once import Once
from .queue_verbs import QueueVerbs
from .queues.access import Submitter, check_submit
from .queues.admission import enter
from .snapshots import ANNOTATION, SnapshotStore
from .store import queries
from .store.queries import JobFilter, JobInfo
from .store.sql import SqlStore
from .store.usage import usage
from .views import JSON, accepted_view, attempt_view, event_view, job_view, known_view

if TYPE_CHECKING:
    from ..jobs.spec import JobSpec

LOOKED_AT = 20
"""Jobs of one submission up to which each is told its position and reason."""


@dataclass(frozen=True, slots=True)
class Request:
    """One job to submit: what is resolved, with its secrets' values, and which snapshot is its workdir."""

    spec: JobSpec
    snapshot: str | None = None


class Service(QueueVerbs):
    """The verbs.

    Args:
        controller: the loop.
        store: the database that it writes to.
        snapshots: the workdirs.
        user: whose control plane this is, and whose the jobs are that name nobody.

    Attributes:
        access: users, tokens and the audit trail.
    """

    def __init__(self, controller: Controller, store: SqlStore, snapshots: SnapshotStore, *, user: str = "") -> None:
        super().__init__(controller, store)
        self.snapshots = snapshots
        self.user = user
        self.access = Access(controller, store, user)
        self._feasible = Feasibility()
        self._once = Once(self)

    # Submit -------------------------------------------------------------------------------------------------------

    async def submit(
        self, requests: Sequence[Request], *, hold: bool = False, queue_anyway: bool = False, key: str = ""
    ) -> list[JSON]:
        """Queue jobs, all or none; when this returns they are on disk.

        A submission with a `key` that was queued before is not queued again: the answer is what became of it.

        Raises:
            BusyError: as much waits as may, or more; it says when to ask again.
            NotFoundError: there is no such queue.
            ForbiddenError: its access list does not have whose jobs these are.
            InfeasibleError: one can never run on this cluster or in its queue (unless `queue_anyway`).
            ConflictError: a snapshot is not here.
            StoreError: they could not be written.
        """
        if any(request.snapshot or request.spec.workdir for request in requests):
            await asyncio.to_thread(self._check_snapshots, requests)
        if any(request.spec.secrets for request in requests):
            await asyncio.to_thread(self.store.keys.ready)
        jobs = [self._job(request, hold=hold) for request in requests]
        self._enter(jobs, anyway=queue_anyway)
        await self._check_access(jobs)
        if key:
            return await self._once.submit(
                key,
                jobs,
                lambda: self._submit(jobs, anyway=queue_anyway),
                lambda job: known_view(job, self.now()),
            )
        return await self._submit(jobs, anyway=queue_anyway)

    async def _submit(self, jobs: list[Job], *, anyway: bool) -> list[JSON]:
        if not anyway:
            await self._admit(jobs)
        with self.controller.changes.census.admitted(jobs):
            return await self._queue(jobs)

    async def _queue(self, jobs: list[Job]) -> list[JSON]:
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
        self._enter(jobs, anyway=True)
        await self._check_access(jobs)
        verdicts = await self.ask(lambda engine: foresee(engine, jobs, self.now()))
        return [
            {**asdict(verdict), "nodes": list(verdict.nodes), "spec": request.spec.to_document()}
            for verdict, request in zip(verdicts, requests, strict=True)
        ]

    def _job(self, request: Request, *, hold: bool) -> Job:
        spec = request.spec
        spec.secret_values()  # a job whose secrets are not at hand could never start
        if request.snapshot is not None:
            spec = _annotated(spec, ANNOTATION, request.snapshot)
        asking = ASKING.get()
        # Who is let in by a token is who they are, whatever their job file says.
        user = spec.user or self.user if asking is None else asking.name(spec.user or "")
        if spec.user not in {None, user}:
            spec = spec.model_copy(update={"user": user})
        job = Job(
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
        job.min_runtime = spec.min_runtime or 0.0
        if spec.array is not None:
            job.tasks = Tasks(spec.array)
            if self.limits.array and job.tasks.count > self.limits.array:
                raise TooManyError(
                    f"{spec.name}: {job.tasks.count:,} tasks are more than {self.limits.array:,}",
                    hint="make arrays of fewer; the limit is `limits.array` of the control plane's settings.yaml",
                )
        return job

    def _check_snapshots(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._check_snapshot(request)

    def _check_snapshot(self, request: Request) -> None:
        if request.snapshot is None:
            if request.spec.workdir is not None:
                raise ConflictError(
                    f"{request.spec.name}: its workdir {request.spec.workdir} did not come with it",
                    hint="upload a snapshot of it and name that with the job, or leave `workdir` out",
                )
        elif not self.snapshots.has(request.snapshot):
            raise ConflictError(f"snapshot {request.snapshot} is not here", hint="upload it, then submit again")

    def _enter(self, jobs: list[Job], *, anyway: bool) -> None:
        """Put jobs into the queues that they mean; without configured queues any name will do."""
        tree = self.controller.queues.tree
        if tree is not None:
            enter(tree, jobs, anyway=anyway)

    async def _check_access(self, jobs: Sequence[Job] | Sequence[JobInfo]) -> None:
        """That those whose jobs these are may submit to their queues. An admin may on anybody's behalf."""
        asking, tree = ASKING.get(), self.controller.queues.tree
        if asking is None or tree is None or asking.caller.role is Role.ADMIN:
            return
        caller = asking.caller
        queues: dict[str, set[str]] = {}
        for job in jobs:
            if home := tree.home(job.queue):
                queues.setdefault(job.user, set()).add(home)
        for user, named in queues.items():
            who = Submitter(user, caller.role, caller.groups)
            if user != caller.user:
                await self.access.directory.refresh()
                who = Submitter(user, *self.access.directory.groups_of(user))
            check_submit(tree, sorted(named), who)

    async def _admit(self, jobs: list[Job]) -> None:
        layout = self.controller.layout
        missing = self._feasible.missing({job.shape for job in jobs}, layout)
        if missing:
            self._feasible.learn(await self.ask(lambda engine: impossible(engine, missing)))
        self._feasible.check(jobs)

    # Look ---------------------------------------------------------------------------------------------------------

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

        job, (spec, source), labels, attempts, used = await self.read_job(reference, ask)
        picture = await self.picture()
        row = used[0] if used else None
        view = job_view(
            job,
            now,
            why=picture.why(job),
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
            return await self.ask(ask)
        except GpuschedError:
            return None

    async def events(self, reference: str, *, after: int = 0, limit: int = 1000, user: str | None = None) -> list[JSON]:
        """A job's journal."""
        found = await self.read_job(
            reference,
            lambda connection: queries.job_events(
                connection, queries.find_job(connection, reference, user=user).id, after=after, limit=limit
            ),
        )
        return [event_view(event) for event in found]

    async def all_events(self, *, after: int = 0, limit: int = 1000) -> list[JSON]:
        """The journal of all jobs."""
        found = await self.read(lambda connection: queries.job_events(connection, after=after, limit=limit))
        return [event_view(event) for event in found]

    async def explain(self, reference: str, user: str | None = None) -> JSON:
        """Why a job is where it is."""
        job = await self.find(reference, user)
        if job.array_state is not None:
            array = job.id
            first = await self.ask(lambda engine: engine.arrays.first_waiting(array))
            if first is not None:  # what holds up an array is what holds up its next task
                job = await self.find(str(first.id))
        said: Explanation | None = None
        if job.state in WAITING:

            def ask(engine: Engine) -> Explanation | None:
                waiting = engine.jobs.get(job.id)
                return None if waiting is None or waiting.state not in WAITING else explain(engine, waiting, self.now())

            said = await self.ask(ask)
            if said is None:  # it started meanwhile
                job = await self.find(str(job.id))
        picture = await self.picture()
        lane = () if picture.lane is None else picture.lane(job)
        last, decided = await self.read_job(
            str(job.id),
            lambda connection: (
                queries.job_events(connection, queries.find_job(connection, str(job.id)).id),
                queries.reason_for_job(connection, job, lane),
            ),
        )
        if said is None or job.array_state is not None:
            return settled_view(job, last[-1:], self.now())
        return waiting_view(job, said, decided, last[-1:])

    # Change -------------------------------------------------------------------------------------------------------

    async def cancel(self, reference: str, user: str | None = None, *, by: str = "") -> JSON:
        """End a job, or take it out of the queue. One that is being stopped already is left to it."""
        job = await self.meant(reference, user)
        if job.state is State.STOPPING:
            return job_view(job, self.now())
        return await self._change(job, Kind.CANCELLED, by)

    async def hold(self, reference: str, user: str | None = None, *, by: str = "") -> JSON:
        """Keep a waiting job from starting."""
        job = await self.meant(reference, user)
        return job_view(job, self.now()) if job.state is State.HELD else await self._change(job, Kind.HELD, by)

    async def release(self, reference: str, user: str | None = None, *, by: str = "") -> JSON:
        """Let a held job wait in line again."""
        job = await self.meant(reference, user)
        return job_view(job, self.now()) if job.state is State.QUEUED else await self._change(job, Kind.RELEASED, by)

    async def requeue(self, reference: str, user: str | None = None, *, by: str = "") -> JSON:
        """Stop a running job, with its grace, and put it back in the queue.

        Raises:
            ForbiddenError: it is the caller's, who may not submit to its queue any more.
        """
        job = await self.meant(reference, user)
        if job.state in {State.QUEUED, State.PREEMPTING}:
            return job_view(job, self.now())
        asking = ASKING.get()
        if asking is not None and asking.caller.user == job.user:
            await self._check_access([job])
        return await self._change(job, Kind.PREEMPTED, by)

    async def meant(self, reference: str, user: str | None = None) -> JobInfo:
        """The one job to change; a name that several unfinished jobs have is not enough.

        Raises:
            NotFoundError: there is none.
            ConflictError: the name is that of several.
        """
        job = await self.find(reference, user)
        if job.name != reference:
            return job
        same = await self.read(
            lambda connection: queries.list_jobs(
                connection, JobFilter(name=reference, active=True, folded=True, limit=6)
            )
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


def _look(engine: Engine, job: Job, now: float) -> tuple[Why | None, int | None, Eta | None]:
    """(reason, position, estimated start) of a job that was just queued; an array has none of its own."""
    if job.tasks is not None:
        return None, None, None
    group = engine.queue.group_of(job)
    if group is None or job.state is not State.QUEUED or len(engine.queue) > DEEP:
        return None if group is None else group.why, None, None
    return group.why, position_of(engine, job), estimate_start(engine, job, now)


def _annotated(spec: JobSpec, key: str, value: str) -> JobSpec:
    return spec.model_copy(update={"annotations": {**spec.annotations, key: value}})


def _read_spec(text: str) -> JobSpec:
    from ..jobs.spec import JobSpec  # noqa: PLC0415 - pydantic is loaded by the first job

    return JobSpec.from_store(text)
