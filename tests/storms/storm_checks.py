"""What holds after every step: the journal meets the tables, the engine's books both, and all of them the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from storm_cluster import LIVE, Cluster, Key
from storm_machines import BrokenError
from storm_plan import BEGINS, LIMIT

from gpusched.cluster.pool import Pool
from gpusched.jobs.events import MOVES, NOTES, Event, Kind
from gpusched.jobs.job import FINAL, HOLDING, Job, Placement, State
from gpusched.policies.quotas import Quotas
from gpusched.scheduler.engine import Engine, grace_of
from gpusched.scheduler.store import Store
from gpusched.scheduler.store.sql import SqlStore


def demand(holds: bool, what: str) -> None:  # noqa: FBT001 - reads like `assert`
    """Break the storm off unless it holds."""
    if not holds:
        raise BrokenError(what)


@dataclass(slots=True)
class Folded:
    """A job as the journal tells it."""

    state: State
    gpus: float
    attempt: int = 0
    placed: float = 0.0
    placement: Placement = ()
    gpu_seconds: float = 0.0
    failures: int = 0
    runs: bool = False  # the present attempt holds GPUs
    why: Kind = Kind.SUBMITTED


@dataclass(slots=True)
class Ledger:
    """The journal, folded as it grows.

    Attributes:
        asked: by ULID, jobs that users handed in, the states in which they did, and their seconds of work. known: which
            number each got, once it is written. accepted: those of which the user was told so.
        cancelled: jobs whose cancellation was acknowledged.
        jobs: by id. ended: attempts that are over by the journal.
        read: how many lines of the journal were read. say: told each of them.
    """

    asked: dict[str, tuple[Job, State, float]] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    jobs: dict[int, Folded] = field(default_factory=dict)
    ended: dict[Key, Kind] = field(default_factory=dict)
    read: int = 0
    say: Callable[[str], None] = lambda _line: None

    def follow(self, store: Store, cluster: Cluster) -> None:
        """Read what was committed since."""
        for number, event in store.events(after=self.read):
            demand(number == self.read + 1, f"line {self.read + 1} of the journal is missing")
            self.read = number
            data = "" if event.kind is Kind.SUBMITTED else event.data or ""
            self.say(f"          {event.time - BEGINS:.2f} job {event.job}.{event.attempt} {event.kind} {data}")
            self._fold(event, cluster)

    def _fold(self, event: Event, cluster: Cluster) -> None:
        job, kind = event.job, event.kind
        if not job:
            self._fold_cluster(event)
            return
        if kind is Kind.SUBMITTED:
            uid = event.data.uid
            demand(job not in self.jobs and uid not in self.known, f"job {job} was submitted twice")
            self.known[uid] = job
            found, state, _ = self.asked[uid]
            self.jobs[job] = Folded(state, gpus=found.shape.total_gpus)
            return
        demand(job in self.jobs, f"the journal has {kind} of job {job} and not its submission")
        one = self.jobs[job]
        if kind in NOTES:
            demand(
                one.runs and event.attempt == one.attempt, f"{kind} of attempt {event.attempt}, job {job} is at {one}"
            )
            demand(
                event.data.get("attempt", one.attempt) == one.attempt,
                f"attempt {one.attempt} of job {job} took over {kind}",
            )
            return
        move = MOVES[one.state].get(kind)
        if move is None:
            raise BrokenError(f"job {job} was {one.state} when it was {kind}")
        if kind is Kind.PLACED:
            demand(not one.runs, f"job {job} was placed while attempt {one.attempt} held GPUs")
            demand(event.attempt == one.attempt + 1, f"attempt {event.attempt} of job {job} follows {one.attempt}")
            one.attempt, one.placed, one.placement, one.runs = event.attempt, event.time, event.data, True
        elif one.runs:
            demand(event.attempt == one.attempt, f"{kind} of attempt {event.attempt} moved attempt {one.attempt}")
        one.state, one.why = move.to, kind
        if kind is Kind.RETRIED:
            one.failures += 1
            demand(one.failures <= LIMIT, f"job {job} is tried again for the {one.failures}th time, and it may {LIMIT}")
        if one.runs and move.to not in HOLDING:
            one.runs = False
            one.gpu_seconds += max(event.time - one.placed, 0.0) * one.gpus
            self.ended[job, one.attempt] = kind
            self._justify(job, one, cluster)

    def _fold_cluster(self, event: Event) -> None:
        """A clock that was set: what runs keeps the time that it has left."""
        if event.kind is Kind.PLANE and "by" in event.data:
            for one in self.jobs.values():
                one.placed += event.data["by"] if one.runs else 0.0

    def _justify(self, job: int, one: Folded, cluster: Cluster) -> None:
        """An attempt that ended by the journal ended in truth, and so."""
        really = cluster.attempts.get((job, one.attempt))
        kind = one.why
        told = f"attempt {one.attempt} of job {job} is {kind}, and the job {one.state}, by the journal"
        if really is None:
            fine = kind in {Kind.REFUSED, Kind.REQUEUED, Kind.STOPPED, Kind.TIMED_OUT}
            demand(fine, f"{told}, and it was never started")
            return
        demand(really.how not in LIVE, f"{told}, and it lives")
        ends = {end for end in really.said if end[0] is not Kind.STARTED}
        if one.state is State.SUCCEEDED:
            fine = (Kind.FINISHED, 0) in ends
        elif one.state is State.FAILED:
            fine = any(how is Kind.FINISHED and code for how, code in ends)
        else:
            proof = Kind.VANISHED if one.state is State.LOST else Kind.REFUSED if kind is Kind.REFUSED else None
            fine = proof is None or any(how is proof for how, _ in ends)
        demand(fine, f"{told}; in truth it was {sorted(ends)}")

    # Tables -------------------------------------------------------------------------------------------------------

    def meet(self, store: Store, *, whole: bool) -> None:
        """The tables say what the journal says."""
        active = {job.id: job for job in store.unfinished()}
        unfinished = {number for number, one in self.jobs.items() if one.state not in FINAL}
        demand(active.keys() == unfinished, f"unfinished are {sorted(active)}, by the journal {sorted(unfinished)}")
        lost = self.accepted - self.jobs.keys()
        demand(not lost, f"jobs {sorted(lost)} were accepted, and the journal knows nothing of them")
        for number, one in self.jobs.items():
            job = active.get(number)
            if job is None:
                if not whole:
                    continue
                job = store.job(number)
            assert job is not None, "it was submitted"
            self._meet(job, one)
        if whole and isinstance(store, SqlStore):
            self._meet_attempts(store)

    def _meet(self, job: Job, one: Folded) -> None:
        said = f"the table has job {job.id} as"
        demand(job.state is one.state, f"{said} {job.state}, the journal {one.state}")
        demand(job.attempt == one.attempt, f"{said} at attempt {job.attempt}, the journal {one.attempt}")
        demand(job.failures == one.failures, f"{said} failed {job.failures} times, the journal {one.failures}")
        if one.runs:
            demand(tuple(job.placement) == one.placement, f"{said} on {job.placement}, the journal {one.placement}")
        near = abs(job.gpu_seconds - one.gpu_seconds) <= 1e-6 * max(1.0, one.gpu_seconds)
        demand(near, f"{said} having held {job.gpu_seconds} GPU-seconds, the journal {one.gpu_seconds}")
        demand((job.ended is not None) == (job.state in FINAL), f"{said} {job.state}, ended at {job.ended}")

    def _meet_attempts(self, store: SqlStore) -> None:
        with store.reader() as connection:
            rows = connection.exec_driver_sql("SELECT job, attempt, ended, result FROM attempts").all()
        open_ = {(job, attempt) for job, attempt, ended, _ in rows if ended is None}
        expected = {(number, one.attempt) for number, one in self.jobs.items() if one.runs}
        demand(open_ == expected, f"attempts that run are {open_} by the table, {expected} by the journal")
        over = {(job, attempt) for job, attempt, ended, _ in rows if ended is not None}
        demand(over == self.ended.keys(), "attempts that are over differ between the table and the journal")


def check_truth(ledger: Ledger, cluster: Cluster) -> None:
    """Only what holds GPUs by the journal runs, once."""
    for one in cluster.live():
        job, attempt = one.key
        folded = ledger.jobs.get(job)
        if folded is None or not folded.runs or folded.attempt != attempt:
            state = "unknown" if folded is None else f"{folded.state} at attempt {folded.attempt}"
            raise BrokenError(f"attempt {attempt} of job {job} runs, and the job is {state}")


def check_engine(engine: Engine, ledger: Ledger) -> None:
    """Between two turns what the engine believes is what is written, and its books add up."""
    jobs = engine.jobs
    states = {number: one.state for number, one in ledger.jobs.items() if one.state not in FINAL}
    demand({number: job.state for number, job in jobs.items()} == states, "the engine believes what is not written")
    holding = [job for job in jobs.values() if job.state in HOLDING]
    running = engine.queue.running
    demand(running.jobs.keys() == {job.id for job in holding}, "the queue's running jobs are not those that hold GPUs")
    going = {job.id for job in holding if job.state in {State.STOPPING, State.PREEMPTING}}
    demand(running.vacating.keys() == going, f"told to go are {running.vacating.keys()}, in truth {going}")
    waiting = {job.id for job in jobs.values() if job.state is State.QUEUED}
    queued = {job.id for job in engine.queue.in_order()}
    demand(queued | engine._later == waiting, f"in the queue {queued}, later {engine._later}, waiting {waiting}")
    demand(not queued & engine._later, "a job is in the queue and waits for its time")
    demand(len(engine.queue) == len(queued), "the queue miscounts")
    _check_pool(engine.pool, holding)
    quotas = engine.quotas
    if quotas is not None:
        _check_quotas(quotas, engine.pool, holding)


def check_nodes(engine: Engine, store: Store, ticked: float) -> None:
    """The nodes in the books are those of the table, and who has to be gone from a node was told to go in time."""
    pool = engine.pool
    stored = dict(store.known_nodes())
    for number, node in enumerate(pool.nodes):
        if pool.present >> number & 1:  # after a restart it is away until it is reported
            change = stored.get(number)
            same = change is not None and change.node == node and not change.gone
            demand(same, f"node {number} is {change} by the table, {node} by the books")
    for job in engine.jobs.values():
        if job.state not in {State.STARTING, State.RUNNING}:
            continue
        for piece in job.placement:
            node = pool.nodes[piece.node]
            if node.closes is None or not pool.present >> piece.node & 1:
                continue
            late = node.closes - grace_of(job) <= ticked
            demand(not late, f"job {job.id} stays on {node.name} beyond {node.closes}, and it is {ticked}")
            demand(job.placed != ticked or node.schedulable, f"job {job.id} starts on {node.name}, which is closed")


def _check_pool(pool: Pool, holding: list[Job]) -> None:
    room = 1 << 50  # so that whatever is away may be taken from
    anew = Pool(
        replace(node, gpus=node.gpus + room, cpu_milli=room, memory=room, schedulable=False) for node in pool.nodes
    )
    for job in holding:
        anew.take(job.shape, job.placement)
    demand([free - room for free in anew.free] == pool.free, f"free are {pool.free} by the pool")
    demand(
        [cpu - room + node.cpu_milli for cpu, node in zip(anew.cpu, pool.nodes, strict=True)] == pool.cpu
        and [left - room + node.memory for left, node in zip(anew.memory, pool.nodes, strict=True)] == pool.memory,
        "CPUs or memory do not add up",
    )
    demand(anew.open == pool.open, f"shared GPUs are {pool.open} by the pool, {anew.open} by the jobs")
    room_less = [len(node.fenced) for node in pool.nodes]  # a GPU may be fenced under the job that has it
    demand(
        all(free >= -less for free, less in zip(pool.free, room_less, strict=True)), f"a node is overfull: {pool.free}"
    )
    shown = [number for number in range(len(pool.nodes)) if pool.up >> number & 1]
    demand(pool.free_gpus == sum(pool.free[number] for number in shown), "free GPUs do not add up")


def _check_quotas(quotas: Quotas, pool: Pool, holding: list[Job]) -> None:
    anew = Quotas(quotas.tree, pool)
    for job in holding:
        anew.started(job)
    for node in quotas.tree:
        for flavour in quotas.tree.flavours:
            held, counted = quotas.usage.of(node.name, flavour), anew.usage.of(node.name, flavour)
            demand(held == counted, f"queue {node.name} holds {counted} {flavour}, by its books {held}")
        demand(quotas.running(node.name) == anew.running(node.name), f"running jobs of {node.name} are miscounted")
    demand(
        (quotas._counted, _stoppable(quotas)) == (anew._counted, _stoppable(anew)),
        "the jobs of a queue are not those that hold GPUs",
    )


def _stoppable(quotas: Quotas) -> dict[str, set[int]]:
    return {name: {job.id for job in jobs.all()} for name, jobs in quotas.stoppable.items() if jobs}
