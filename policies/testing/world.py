"""A small world in which a policy decides and every decision is judged. It has books of its own and no engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any

from ...cluster.backend import Node
from ...cluster.pool import Pool
from ...jobs.errors import PlanError
from ...jobs.events import Kind
from ...jobs.job import Job, Placement, Shape, State
from ..greedy import Policy, queue_for
from ..plan import Line, Plan, Why
from ..queue import Key, Queue
from ..reasons import never
from .books import fits_idle, forbidden, in_part, overbooked, pieces_on

MOST_TURNS = 100_000
"""Moments after which a world in which nothing more comes in has to have run out of work."""


class LawBrokenError(AssertionError):
    """A policy broke a law; `law` is its name."""

    def __init__(self, law: str, what: str) -> None:
        super().__init__(f"{law}: {what}")
        self.law = law


@dataclass(frozen=True, slots=True)
class Promises:
    """What a policy promises beyond the laws that hold for all.

    Attributes:
        strict: nobody ever overtakes: a job never starts while one before it in the policy's order waits, unless that
            one could not run on these nodes even if they were idle.
        never_splits: what fits one node is never cut over two.
        patience: seconds after which a job starts at the latest, however many others keep coming, plus what the jobs
            that ran or waited before it take; None = others may overtake it for ever.
        reasons: every waiting job has been given a reason.
        starts: who is promised a start starts by then, and the promise never moves later, while no run outlasts its
            estimate and no node goes. The jobs of such a world are said to run up to three times as long as they do.
    """

    strict: bool = False
    never_splits: bool = False
    patience: float | None = None
    reasons: bool = True
    starts: bool = False


def picture(pool: Pool) -> tuple[object, ...]:
    """All that a policy can see of a pool."""
    buckets = {free: nodes for free, nodes in enumerate(pool.buckets) if nodes}
    taken = (tuple(pool.free), tuple(pool.cpu), tuple(pool.memory), tuple(map(dict, pool.open)))
    return (*taken, buckets, pool.sharing, pool.up, pool.present, pool.free_gpus, pool.growth, pool.layout)


def answer(plan: Plan) -> tuple[object, ...]:
    """A plan as values that can be compared."""
    starts = [(start[0].id, tuple(start[1])) for start in plan.starts]
    return starts, list(plan.preemptions), list(plan.waiting.items()), plan.wake_at


class World:
    """Nodes, running jobs and a queue, on which a policy is asked again and again.

    Args:
        nodes: the cluster as it begins.
        factory: makes the policy; called often, since one that starts anew must decide alike.
        promises: what is judged beyond the laws that hold for all.
        judge_history: also ask a new policy at each step, with a new queue and pool.
    """

    def __init__(
        self, nodes: Sequence[Node], factory: Callable[[], Policy], promises: Promises, *, judge_history: bool = True
    ) -> None:
        self.nodes = list(nodes)
        self.present = [True] * len(self.nodes)
        self.factory = factory
        self.policy = factory()
        self.promises = promises
        self.judge_history = judge_history
        self.pool = Pool(nodes)
        self.queue = queue_for(self.policy)
        self.now = 0.0
        self.jobs: list[Job] = []
        self.waiting: dict[int, Job] = {}
        self.held: dict[int, Job] = {}
        self.running: dict[int, Job] = {}
        self.left: dict[int, float] = {}  # seconds of work still to do
        self.told: dict[Line, Why] = {}
        self.wake_at = math.inf
        self._unheard = False  # somebody ended since the policy was asked
        self.promised: dict[int, float] = {}  # the start that a waiting job was promised last
        self._ends: list[tuple[float, int, int]] = []

    # What happens -----------------------------------------------------------------------------------------------

    def submit(self, shape: Shape, lasts: float, priority: int = 50, *, known: bool = True) -> Job:
        """A job comes in; `known` says whether its run time is."""
        number = len(self.jobs) + 1
        said = lasts * (1, 2, 1, 3)[number % 4] if self.promises.starts else lasts
        job = Job(number, shape, self.now, priority=priority, estimate=said if known else None)
        job.preemptible = number % 4 != 0  # most may be stopped, and some only after a while
        job.min_runtime = 3.0 if number % 5 == 0 else 0.0
        self.jobs.append(job)
        self.left[job.id] = lasts
        self._wait(job)
        return job

    def _wait(self, job: Job) -> None:
        job.state = State.QUEUED
        self.waiting[job.id] = job
        self.queue.add(job)

    def withdraw(self, at: int, *, hold: bool) -> None:
        """A waiting job is cancelled or held; `at` picks it."""
        if self.waiting:
            job = self.waiting.pop(sorted(self.waiting)[at % len(self.waiting)])
            job.state = State.HELD if hold else State.CANCELLED
            self.queue.remove(job)
            self.promised.pop(job.id, None)
            if hold:
                self.held[job.id] = job

    def release(self, at: int) -> None:
        """A held job waits again."""
        if self.held:
            self._wait(self.held.pop(sorted(self.held)[at % len(self.held)]))

    def stop(self, at: int, *, requeue: bool) -> None:
        """A running job goes before its time, for good or back to the queue."""
        if self.running:
            self._end(self.running[sorted(self.running)[at % len(self.running)]], requeue=requeue)

    def cordon(self, at: int, *, schedulable: bool) -> None:
        """A node takes no new work, or does again."""
        number = at % len(self.nodes)
        if not schedulable:
            self.promised.clear()
        self.nodes[number] = replace(self.nodes[number], schedulable=schedulable, why="" if schedulable else "cordoned")
        if self.present[number]:
            self.pool.put(self.nodes[number])

    def lose(self, at: int) -> None:
        """A node goes, and what ran there goes back to the queue."""
        number = at % len(self.nodes)
        if self.present[number]:
            self.present[number] = False
            self.promised.clear()
            self.pool.drop(self.nodes[number].name)
            for job in list(self.running.values()):
                if any(piece.node == number for piece in job.placement):
                    self._end(job, requeue=True)

    def regain(self, at: int) -> None:
        """A node that went is back."""
        number = at % len(self.nodes)
        if not self.present[number]:
            self.present[number] = True
            self.pool.put(self.nodes[number])

    def _end(self, job: Job, *, requeue: bool) -> None:
        del self.running[job.id]
        self._unheard = True
        self.pool.give(job.shape, job.placement)
        job.gpu_seconds += (self.now - job.placed) * job.shape.total_gpus
        job.state = State.QUEUED if requeue else State.SUCCEEDED
        self.queue.ended(job, self.now)
        job.queued = self.now
        if requeue:
            self._wait(job)
        else:
            job.state = State.SUCCEEDED

    def advance(self) -> bool:
        """Go to the next moment at which something ends, or the policy asked to be woken. False = nothing is due."""
        while self._ends and not self._current(self._ends[0]):
            heappop(self._ends)
        due = min(self._ends[0][0] if self._ends else math.inf, self.wake_at, self.queue.changes_at())
        if due == math.inf:
            return False
        self._pass_time(max(self.now, due))
        while self._ends and self._ends[0][0] <= self.now:
            end = heappop(self._ends)
            if self._current(end):
                self._end(self.running[end[1]], requeue=False)
        return True

    def pause(self, seconds: float) -> None:
        """Time passes, at most until the next end."""
        ends = [end[0] for end in self._ends if self._current(end)]
        if ends and min(ends) <= self.now + seconds:
            self.advance()
        else:
            self._pass_time(self.now + seconds)

    def _pass_time(self, to: float) -> None:
        if self._unheard and to > self.now:
            self.promised.clear()  # nobody asked when somebody ended, so nobody could start then
        self.now = to

    def _current(self, end: tuple[float, int, int]) -> bool:
        job = self.running.get(end[1])
        return job is not None and job.attempt == end[2]

    def run_out(self) -> None:
        """Everything comes back, nothing more comes in, and all that could ever run must have run."""
        for number in range(len(self.nodes)):
            self.cordon(number, schedulable=True)
            self.regain(number)
        while self.held:
            self.release(0)
        for _ in range(MOST_TURNS):
            self.ask()
            if not self.advance():
                break
        for job in self.waiting.values():
            if self.could_run(job.shape):
                raise LawBrokenError("sooner or later", f"job {job.id} ({job.shape}) fits the idle cluster, and waits")

    def could_run(self, shape: Shape) -> bool:
        """Whether the nodes that take work now could hold it if nothing ran."""
        up = [node for node, there in zip(self.nodes, self.present, strict=True) if there and node.schedulable]
        if shape.num_nodes == 0 and shape.gpus > max((node.gpus for node in up), default=0):
            return never(shape, self.pool, self.policy.place) is None  # how a total is cut is the placer's own rule
        return fits_idle(shape, up)

    # What is decided and judged ---------------------------------------------------------------------------------

    def ask(self) -> Plan:
        """Ask the policy, judge its answer, and do it."""
        self.wake_at = math.inf
        self._unheard = False
        if not self.waiting:
            return Plan()
        anew = self._anew() if self.judge_history else None
        self._judge_place()
        plan = _asked(self.policy, self.now, self.queue, self.pool)
        self._judge(plan)
        if anew is not None and answer(plan)[:2] != answer(anew)[:2]:
            raise LawBrokenError(
                "its past changes nothing",
                f"asked step by step it answers {answer(plan)[:2]}, asked anew {answer(anew)[:2]}",
            )
        self._do(plan)
        return plan

    def _anew(self) -> Plan:
        """What a new policy answers to the same question, twice."""
        first, second = (self._from_nothing(), self._from_nothing())
        if answer(first) != answer(second):
            raise LawBrokenError("same input, same plan", f"{answer(first)}, then {answer(second)}")
        return first

    def _from_nothing(self) -> Plan:
        pool = Pool((replace(node, schedulable=True) for node in self.nodes), self.pool.levels)
        for job in self.running.values():
            pool.take(job.shape, job.placement)
        for node, there in zip(self.nodes, self.present, strict=True):
            pool.put(node)
            if not there:
                pool.drop(node.name)
        policy = self.factory()
        queue = queue_for(policy)
        queue.share(self.queue)
        for job in self.waiting.values():
            queue.add(job)
        return _asked(policy, self.now, queue, pool)

    def _judge_place(self) -> None:
        for shape in {job.shape: None for job in self.waiting.values()}:
            before = picture(self.pool)
            placements = [self.policy.place(shape, self.pool, nodes) for nodes in self.pool.allowed(shape)]
            if picture(self.pool) != before:
                raise LawBrokenError("leaves the pool as it found it", f"place() changed the pool for {shape}")
            for nodes, placement in zip(self.pool.allowed(shape), placements, strict=True):
                if placement is not None and self.promises.never_splits:
                    self._judge_split(shape, placement, nodes)

    def _judge_split(self, shape: Shape, placement: Placement, nodes: int) -> None:
        spreads = shape.topology is not None and shape.topology.mode == "balanced"
        if spreads or shape.distinct or len({piece.node for piece in placement}) == 1:
            return
        for number, node in enumerate(self.nodes):
            # What is left of it, as a node of that size. Shared GPUs are left out: they hold no whole piece.
            pool = self.pool
            left = replace(node, gpus=pool.free[number], cpu_milli=pool.cpu[number], memory=pool.memory[number])
            holds = pieces_on(shape, left)
            if nodes >> number & 1 and holds >= max(shape.num_nodes, 1) and not shape.gpu_milli:
                raise LawBrokenError(
                    "never splits what fits one node", f"{shape} fits {node.name}, and is on {placement}"
                )

    def _judge(self, plan: Plan) -> None:
        by = self.policy.name
        held = [(job.shape, job.placement) for job in self.running.values()]
        seen: set[int] = set()
        for job, placement in plan.starts:
            what = f"{by} starts job {job.id} ({job.shape}) on {placement}"
            if job.id in seen or self.waiting.get(job.id) is not job:
                raise LawBrokenError("starts what waits, once", what)
            seen.add(job.id)
            if wrong := in_part(job.shape, placement):
                raise LawBrokenError("no gang in part", f"{what}: {wrong}")
            held.append((job.shape, placement))
            if wrong := overbooked(self.nodes, held):
                raise LawBrokenError("no GPU is given twice", f"{what}: {wrong}")
            if wrong := forbidden(job.shape, placement, self.nodes, present=self.present):
                raise LawBrokenError("type, labels and nodes are honoured", f"{what}: {wrong}")
            if self.promises.never_splits and job.shape.num_nodes == 0 and len(placement) > 1:
                self._judge_total(job.shape, placement)
        if self.promises.strict:
            self._judge_order(seen)
        if self.promises.starts:
            self._judge_starts(plan, seen)
        self._judge_preemptions(plan)
        self._judge_reasons(plan, seen)

    def _judge_starts(self, plan: Plan, started: set[int]) -> None:
        """Nobody waits beyond the start that it was promised, and no promise moves to a later one."""
        for number, start in self.promised.items():
            if number in self.waiting and number not in started and start <= self.now:
                raise LawBrokenError(
                    "promises are kept", f"job {number} waits at {self.now:g}, promised to start by {start:g}"
                )
            if number in self.waiting and number in started and start < self.now:
                raise LawBrokenError(
                    "promises are kept", f"job {number} starts at {self.now:g}, promised to by {start:g}"
                )
        for number, start in plan.promises.items():
            if number in started or number not in self.waiting:
                raise LawBrokenError("promises are kept", f"job {number} is promised a start and does not wait for one")
            if start > self.promised.get(number, math.inf):
                raise LawBrokenError(
                    "promises are kept", f"job {number} was promised {self.promised[number]:g}, and now {start:g}"
                )
        self.promised |= plan.promises

    def _judge_preemptions(self, plan: Plan) -> None:
        for job, _ in plan.preemptions:
            if self.running.get(job.id) is not job:
                raise LawBrokenError(
                    "preempts what runs", f"{self.policy.name} preempts job {job.id}, which is {job.state}"
                )
            if not job.preemptible or self.now < job.placed + job.min_runtime:
                raise LawBrokenError(
                    "preempts what may be", f"{self.policy.name} preempts job {job.id}, which may not be preempted now"
                )

    def _judge_reasons(self, plan: Plan, started: set[int]) -> None:
        self.told |= plan.waiting
        for number, job in self.waiting.items():
            if self.promises.reasons and number not in started and self._line(job) not in self.told:
                raise LawBrokenError("who waits knows why", f"job {number} ({job.shape}) was given no reason")

    def _line(self, job: Job) -> Line:
        lane = self.queue.lane
        return Line(() if lane is None else lane(job), job.shape)

    def _judge_total(self, shape: Shape, placement: Placement) -> None:
        for nodes in self.pool.allowed(shape):
            if nodes >> placement[0].node & 1 and shape.gpus <= self.pool.node_size(nodes):
                raise LawBrokenError("never splits what fits one node", f"{shape} is cut over {placement}")

    def _judge_order(self, started: set[int]) -> None:
        def key(number: int) -> Key:
            return self.queue.key_of(self.waiting[number])

        for number in started:
            for other in self.waiting.keys() - started:
                if key(other) < key(number) and self.could_run(self.waiting[other].shape):
                    raise LawBrokenError("nobody overtakes", f"job {number} starts while job {other} waits before it")

    def _do(self, plan: Plan) -> None:
        self.queue.decided(plan)
        for job, placement in plan.starts:
            del self.waiting[job.id]
            self.promised.pop(job.id, None)
            self.queue.left(job)
            job.state = State.STARTING
            job.placement = placement
            job.placed = self.now
            job.attempt += 1
            if job.first_start is None:
                job.first_start = self.now
            self.pool.take(job.shape, placement)
            self.queue.started(job)
            self.running[job.id] = job
            heappush(self._ends, (self.now + self.left[job.id], job.id, job.attempt))
        for job, claimant in plan.preemptions:
            self.queue.claimants.setdefault(claimant, []).append(job.id)
            self.left[job.id] -= self.now - job.placed
            job.executed += self.now - job.placed
            job.stop_cause = Kind.PREEMPTED
            self._end(job, requeue=True)
        self.wake_at = math.inf if plan.wake_at is None else plan.wake_at
        if plan.preemptions:
            self.wake_at = self.now  # they are gone, which is news


def _asked(policy: Policy, now: float, queue: Queue, pool: Pool) -> Plan:
    """Ask as the engine does: the policy may try on the pool, and what it took is given back."""
    before = picture(pool)
    outer = pool.begin()
    try:
        plan: Any = policy.plan(now, queue, pool)
    except PlanError as error:
        raise LawBrokenError("no GPU is given twice", str(error)) from error
    try:
        pool.rollback(outer)
    except Exception as error:  # what was given back and never taken may break the books in any way
        raise LawBrokenError("leaves the pool as it found it", f"the pool is broken: {error!r}") from error
    if picture(pool) != before:
        raise LawBrokenError("leaves the pool as it found it", "plan() changed the pool by more than take()")
    if not isinstance(plan, Plan):
        raise LawBrokenError("answers with a plan", f"{policy.name} answered {plan!r}")
    return plan
