"""A cluster and a queue from a few words, so that a test reads like a sentence.

    world = World(cluster("2x8:H100 1x4:A100"), "fifo")
    world.submit(job("4 GPUs for 10 s"), job("2x8 H100 GPUs for 5 s, 8 CPUs, 64 GB, apart"))

Clusters: COUNTxGPUS[:TYPE][@key=value,...][+CPUS][+MEMORYgb], separated by spaces; nodes are n0, n1, ... in that order.

Jobs: parts separated by commas. The first says how many GPUs: `4 GPUs` in one piece, `2x8 H100|A100 GPUs` a gang of
two pieces, `0.5 GPU` a part of one, `12 GPUs in total` a total that the placer may cut, `no GPU`. Any part may end in
`for 10 s`, the true run time. Others: `8 CPUs`, `64 GB`, `rack=a`, `apart` (each piece on a node of its own),
`limit 5 s`, `estimate 20 s`, `priority 80`, `held`, `queue lab`, `user ann`, `stoppable` (it may be preempted),
`at least 60 s` (and then not before).
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpusched.cluster.backend import News, Node, NodeChange
from gpusched.cluster.clock import VirtualClock
from gpusched.cluster.pool import Pool
from gpusched.jobs.errors import ConflictError
from gpusched.jobs.events import MOVES, NOTES, Event, Kind
from gpusched.jobs.job import FINAL, HOLDING, Job, Shape, State
from gpusched.jobs.spec import JobSpec
from gpusched.jobs.traces.trace import Trace, TraceJob
from gpusched.policies.catalog import load
from gpusched.policies.greedy import Policy
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.store import MemoryStore

GB = 1 << 30

_NODES = re.compile(r"(\d+)x(\d+)(?::([\w.-]+))?(?:@([\w=,.-]+))?(?:\+(\d+)cpu)?(?:\+(\d+)gb)?")
_GPUS = re.compile(r"(?:(\d+)x)?(\d*\.?\d+)(?: ([\w|.-]+))? GPUs?( in total)?")


def cluster(words: str) -> list[Node]:
    """Nodes n0, n1, ... from words such as `2x8:H100@rack=a+64cpu+512gb 1x4`."""
    nodes: list[Node] = []
    for word in words.split():
        found = _NODES.fullmatch(word)
        assert found, f"not understood: {word}"
        count, gpus, kind, labels, cpus, memory = found.groups()
        for _ in range(int(count)):
            marks = dict(pair.split("=") for pair in labels.split(",")) if labels else {}
            room = {"cpu_milli": 1000 * int(cpus or 0), "memory": GB * int(memory or 0)}
            nodes.append(Node(f"n{len(nodes)}", int(gpus), kind or "", labels=marks, **room))
    return nodes


@dataclass(frozen=True, slots=True)
class Ask:
    """A job to be: its shape and what else the words said. `at` is when it is submitted."""

    shape: Shape
    lasts: float = 10.0
    at: float = 0.0
    limit: float | None = None
    estimate: float | None = None
    priority: int = 50
    held: bool = False
    retry: tuple[str, ...] = ()
    retries: int = 0
    name: str = ""
    queue: str = "default"
    user: str = ""
    stoppable: bool = False
    min_runtime: float = 0.0


def job(words: str, *, at: float = 0.0, retry: Iterable[str] = (), retries: int = 3, name: str = "") -> Ask:
    """A job from words such as `2x8 H100 GPUs for 10 s, 8 CPUs, rack=a`; `retry` is what its rule covers."""
    ask = Ask(Shape(), at=at, retry=tuple(retry), retries=retries, name=name)
    for number, part in enumerate(words.split(", ")):
        said, _, lasts = part.partition(" for ")
        if lasts:
            ask = replace(ask, lasts=_number(lasts.removesuffix(" s")))
        ask = _gpus(ask, said) if number == 0 else _part(ask, said)
    return ask


def _number(word: str) -> float:
    """Whole numbers stay whole, as in traces."""
    return int(word) if word.isdigit() else float(word)


def _gpus(ask: Ask, said: str) -> Ask:
    if said == "no GPU":
        return ask
    found = _GPUS.fullmatch(said)
    assert found, f"not understood: {said}"
    pieces, gpus, kinds, total = found.groups()
    size = float(gpus)
    part = round(size * 1000) if size < 1 else 0
    types = tuple(kinds.split("|")) if kinds else ()
    return replace(ask, shape=Shape(0 if total else int(pieces or 1), 0 if part else int(size), part, gpu_types=types))


def _part(ask: Ask, said: str) -> Ask:  # noqa: PLR0911 - one return a word of the little language
    shape = ask.shape
    first, _, rest = said.partition(" ")
    if rest == "CPUs":
        return replace(ask, shape=replace(shape, cpu_milli=round(1000 * float(first))))
    if rest == "GB":
        return replace(ask, shape=replace(shape, memory=int(first) * GB))
    if "=" in said:
        key, _, value = said.partition("=")
        return replace(ask, shape=replace(shape, labels=tuple(sorted((*shape.labels, (key, value))))))
    if said == "apart":
        return replace(ask, shape=replace(shape, distinct=True))
    if said in {"held", "stoppable"}:
        return replace(ask, **{said: True})
    if first in {"queue", "user"}:
        return replace(ask, **{first: rest})
    if first == "at":
        return replace(ask, min_runtime=_number(rest.removeprefix("least ").removesuffix(" s")))
    if first in {"limit", "estimate"}:
        return replace(ask, **{first: _number(rest.removesuffix(" s"))})
    assert first == "priority", f"not understood: {said}"
    return replace(ask, priority=int(rest))


def trace(*asks: Ask, name: str = "by hand") -> Trace:
    """A trace of these jobs, in order of submission."""
    jobs = [
        TraceJob(
            number,
            ask.name or f"job-{number + 1}",
            ask.at,
            ask.lasts,
            ask.shape,
            priority=ask.priority,
            estimate=ask.estimate,
            limit=ask.limit,
            queue=ask.queue,
            user=ask.user,
        )
        for number, ask in enumerate(sorted(asks, key=lambda ask: ask.at))
    ]
    return Trace(jobs, name, "by hand")


def after(seconds: float, *asks: Ask) -> list[Ask]:
    """The same jobs, submitted so much later."""
    return [replace(ask, at=ask.at + seconds) for ask in asks]


def waiting(*asks: Ask) -> list[Job]:
    """Jobs 1, 2, ... as they stand in the queue, for tests of policies without an engine."""
    return [made(number, ask) for number, ask in enumerate(asks, 1)]


def made(number: int, ask: Ask) -> Job:
    """The job of an ask. One with a retry rule has a whole JobSpec."""
    spec = None
    if ask.retry:
        spec = JobSpec.model_validate(
            {"run": "true", "retry": {"limit": ask.retries, "on": list(ask.retry)}, "checkpoint": {"grace": "30s"}}
        )
    one = Job(
        number,
        ask.shape,
        ask.at,
        name=ask.name,
        queue=ask.queue,
        user=ask.user,
        preemptible=ask.stoppable,
        priority=ask.priority,
        estimate=ask.lasts if ask.estimate is None else ask.estimate,
        limit=ask.limit,
        spec=spec,
        state=State.HELD if ask.held else State.QUEUED,
    )
    one.min_runtime = ask.min_runtime
    return one


class HandBackend:
    """A cluster whose every word the test says: it keeps what it was told, and reports only what it is given."""

    def __init__(self, nodes: Sequence[Node] = ()) -> None:
        self.changes: list[NodeChange] = [NodeChange(0.0, node) for node in nodes]
        self.events: list[Event] = []
        self.started: list[tuple[int, int, tuple[str, ...]]] = []
        self.stopped: list[tuple[int, int, float]] = []
        self.adopted: list[int] = []

    def poll(self, now: float) -> News:  # noqa: ARG002 - the protocol's
        news = News(tuple(self.changes), tuple(self.events))
        self.changes, self.events = [], []
        return news

    def next_time(self) -> float | None:
        return None

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:  # noqa: ARG002 - the protocol's
        self.started.append((job.id, job.attempt, nodes))

    def stop(self, job: Job, grace: float, now: float) -> None:  # noqa: ARG002 - the protocol's
        self.stopped.append((job.id, job.attempt, grace))

    def adopt(self, jobs: list[Job], now: float) -> None:  # noqa: ARG002 - the protocol's
        self.adopted += [job.id for job in jobs]

    def close(self) -> None:
        pass


class HandInbox:
    """Requests that the test makes."""

    def __init__(self) -> None:
        self.asked: deque[Event] = deque()
        self.refused: dict[int, ConflictError] = {}

    def poll(self, now: float) -> list[Event]:  # noqa: ARG002 - the protocol's
        asked = list(self.asked)
        self.asked.clear()
        return asked

    def next_time(self) -> float | None:
        return None

    def settle(self, refused: dict[int, ConflictError]) -> None:
        self.refused = refused


class World:
    """The real engine with a memory store, and a cluster and users that the test speaks for.

    Every verb acts at once: it hands the engine the news and ticks. `at` moves the clock first.
    """

    def __init__(self, nodes: Sequence[Node], policy: str | Policy = "fifo", *, store: Any = None) -> None:
        self.store = MemoryStore() if store is None else store
        self.backend = HandBackend(nodes)
        self.inbox = HandInbox()
        self.policy = load(policy) if isinstance(policy, str) else policy
        self.engine = Engine(store=self.store, backend=self.backend, policy=self.policy, inbox=self.inbox)
        self.clock = VirtualClock()
        self.jobs: dict[int, Job] = {}
        self.born: dict[int, State] = {}  # as they were submitted
        self.nodes = {node.name: node for node in nodes}
        self._ids = itertools.count(1)
        self.tick()

    @property
    def now(self) -> float:
        return self.clock.now()

    def tick(self, *, at: float | None = None) -> World:
        self.clock.wait(self.now if at is None else at)
        self.engine.tick(self.now)
        return self

    # Users ------------------------------------------------------------------------------------------------------

    def submit(self, *asks: Ask) -> list[Job]:
        came = []
        for ask in asks:
            new = made(next(self._ids), replace(ask, at=max(ask.at, self.now)))
            self.jobs[new.id] = new
            self.born[new.id] = new.state
            self.inbox.asked.append(Event(new.submitted, Kind.SUBMITTED, new.id, 0, new))
            came.append(new)
        self.tick()
        return came

    def ask(self, kind: Kind, job_id: int) -> ConflictError | None:
        """A user's verb; the refusal, if it was refused."""
        self.inbox.asked.append(Event(self.now, kind, job_id))
        self.tick()
        return self.inbox.refused.get(0)

    def cancel(self, job_id: int) -> ConflictError | None:
        return self.ask(Kind.CANCELLED, job_id)

    def hold(self, job_id: int) -> ConflictError | None:
        return self.ask(Kind.HELD, job_id)

    def release(self, job_id: int) -> ConflictError | None:
        return self.ask(Kind.RELEASED, job_id)

    # The cluster ------------------------------------------------------------------------------------------------

    def report(
        self, kind: Kind, job_id: int, *, attempt: int | None = None, data: dict[str, Any] | None = None
    ) -> None:
        """News of an attempt, by default of the present one."""
        attempt = self.jobs[job_id].attempt if attempt is None else attempt
        self.backend.events.append(Event(self.now, kind, job_id, attempt, data))
        self.tick()

    def started(self, job_id: int, *, attempt: int | None = None) -> None:
        self.report(Kind.STARTED, job_id, attempt=attempt)

    def finished(self, job_id: int, exit_code: int = 0, *, attempt: int | None = None) -> None:
        self.report(Kind.FINISHED, job_id, attempt=attempt, data={"exit_code": exit_code})

    def vanished(self, job_id: int, *, attempt: int | None = None) -> None:
        self.report(Kind.VANISHED, job_id, attempt=attempt, data={"message": "node n0 went away"})

    def refused(self, job_id: int) -> None:
        self.report(Kind.REFUSED, job_id, data={"message": "the placement group could not be made"})

    def change(self, name: str, *, gone: bool = False, **fields: Any) -> None:
        """A node goes, comes back or changes."""
        self.nodes[name] = replace(self.nodes[name], **fields)
        self.backend.changes.append(NodeChange(self.now, self.nodes[name], gone))
        self.tick()

    # What to look at --------------------------------------------------------------------------------------------

    def states(self) -> dict[int, str]:
        return {number: str(job.state) for number, job in self.jobs.items()}

    def events(self, job_id: int) -> list[str]:
        return [str(event.kind) for _, event in self.store.events(job_id)]

    def running(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.state in HOLDING]

    def check(self) -> None:
        """The books agree with the jobs: the invariants that hold between any two ticks."""
        self.check_pool()
        self.check_queue()
        self.check_journal()

    def check_pool(self) -> None:
        """What the pool says is free is what the jobs that hold GPUs leave."""
        pool, holding = self.engine.pool, self.running()
        room = 1 << 50  # nodes may have shrunk under their jobs
        anew = Pool(
            replace(node, gpus=node.gpus + room, cpu_milli=room, memory=room, schedulable=False) for node in pool.nodes
        )
        for job in holding:
            anew.take(job.shape, job.placement)
        assert [free - room for free in anew.free] == pool.free
        assert [cpu - room + node.cpu_milli for cpu, node in zip(anew.cpu, pool.nodes, strict=True)] == pool.cpu
        assert [left - room + node.memory for left, node in zip(anew.memory, pool.nodes, strict=True)] == pool.memory
        assert anew.open == pool.open
        shown = [
            number
            for number, node in enumerate(pool.nodes)
            if node.schedulable and pool.present >> number & 1 and pool.free[number] >= 0
        ]
        assert pool.up == sum(1 << number for number in shown)
        assert pool.free_gpus == sum(pool.free[number] for number in shown)
        for free, bucket in enumerate(pool.buckets):
            assert bucket == sum(1 << number for number in shown if pool.free[number] == free), free
        assert pool.sharing == sum(1 << number for number in shown if pool.open[number])

    def check_queue(self) -> None:
        """Who is in the queue is who is QUEUED and due."""
        due = sorted(job.id for job in self.jobs.values() if job.state is State.QUEUED and job.not_before <= self.now)
        in_order = list(self.engine.queue.in_order())
        assert sorted(job.id for job in in_order) == due
        assert len(self.engine.queue) == len(due)
        # An order that learns keeps the key that a job joined with; all others make it anew here.
        keys = [self.engine.queue.key_of(job) for job in in_order]
        assert keys == sorted(keys)
        unfinished = {job.id for job in self.jobs.values() if job.state not in FINAL}
        assert self.engine.jobs.keys() == unfinished
        assert self.engine.finished == len(self.jobs) - len(unfinished)

    def check_journal(self) -> None:
        """The journal, folded through the table of moves, gives each job's state."""
        journal = [event for _, event in self.store.events()]
        assert fold(journal, self.born) == {number: job.state for number, job in self.jobs.items()}


def fold(events: Iterable[Event], born: dict[int, State]) -> dict[int, State]:
    """The state of every job, from the journal and the states in which they were submitted."""
    states: dict[int, State] = {}
    for event in events:
        if not event.job:
            continue  # a line about the cluster
        if event.kind is Kind.SUBMITTED:
            assert event.job not in states, f"job {event.job} was submitted twice"
            states[event.job] = born[event.job]
        elif event.kind not in NOTES:
            move = MOVES[states[event.job]].get(event.kind)
            assert move is not None, f"job {event.job} was {states[event.job]} when it was {event.kind}"
            states[event.job] = move.to
    return states
