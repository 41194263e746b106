"""The decision loop, live and simulated: it cannot tell which.

A newcomer reads `tick`. Everything that happens to a job passes through the table of moves (jobs/events.py), is
written to the store together with the event that caused it, and only then done.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import Any

from ..cluster.backend import Backend, NodeChange
from ..cluster.clock import Clock
from ..cluster.pool import Pool
from ..cluster.topology import LEVELS
from ..jobs.errors import ConflictError, PlanError
from ..jobs.events import MOVES, NOTES, Event, Kind, Move, event_of
from ..jobs.job import FINAL, GRACE, HOLDING, Job, Placement, State
from ..jobs.outcome import Verdict
from ..policies.greedy import Policy, queue_for
from ..policies.plan import Decision, Plan, decision_of
from ..policies.quotas import Quotas
from ..policies.tree import Tree
from .arrays import Arrays
from .check import check_plan
from .closings import Closings, bare
from .drains import Drains
from .endings import Endings, said
from .requests import Inbox
from .store import Store

REFUSAL_PAUSE = 2.0
"""Seconds before a gang that the cluster could not place as planned is planned again; others go meanwhile."""

SLACK = 1_000
"""Timers of jobs that have ended, beyond twice the jobs, from which on they are cleared away."""

_ROOM = 1 << 60

_TOLD_TO_GO = frozenset({State.STOPPING, State.PREEMPTING})

# Looked up once here: as members of an Enum they cost the hot path more than what is done with them.
_SUBMITTED, _PLACED, _FINISHED, _VANISHED = Kind.SUBMITTED, Kind.PLACED, Kind.FINISHED, Kind.VANISHED
_QUEUED, _STARTING, _RUNNING = State.QUEUED, State.STARTING, State.RUNNING
_STOPPING, _PREEMPTING = State.STOPPING, State.PREEMPTING


def grace_of(job: Job) -> float:
    """Seconds that a job is given between SIGTERM and SIGKILL."""
    return GRACE if job.spec is None else job.spec.checkpoint.patience


class Engine:
    """Jobs, the pool and the queue in memory; the store as the truth; the backend as hands."""

    def __init__(self, *, store: Store, backend: Backend, policy: Policy, inbox: Inbox) -> None:
        self.store = store
        self.backend = backend
        self.policy = policy
        self.inbox = inbox
        self.pool = Pool()
        self.drains = Drains(self.pool, grace_of)
        self.closings = Closings(self.pool, grace_of)
        self.endings = Endings(self.pool)
        self.cordon: Callable[[str, str, float], None] | None = None  # how a poisoned node is taken out; None = none is
        self.quotas: Quotas | None = None  # the site's queues, if it has configured any
        self.queue = queue_for(policy)
        self.jobs: dict[int, Job] = {}  # all that are not finished
        self.finished = 0
        self._by = f"{policy.name}/{policy.version}"
        self._timed = getattr(policy, "timed", None) is not None  # keys of its queue change with time
        self._wake_at = math.inf
        self._stale = True  # something changed since the policy was last asked
        self._timers: list[tuple[float, int, int, Kind]] = []  # (time, job, attempt, what happens then)
        self._later: set[int] = set()  # jobs that are QUEUED and not in the queue: they wait for their time
        # Of the tick that is going on: what to write, and what to do once it is written.
        self._events: list[Event] = []
        self._changed: dict[int, Job] = {}
        self._decisions: list[Decision] = []
        self._nodes: list[tuple[int, NodeChange]] = []
        self._starts: list[Job] = []
        self._stops: list[Job] = []
        self.arrays = Arrays(self)

    # The loop -----------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:  # noqa: C901 - the five steps, in a row
        """One turn of the loop."""
        nodes, attempts = self.backend.poll(now)  # 1 take the events that came in, what ended before what arrives
        asked = self.inbox.poll(now)
        if nodes:  # 2 believe them: move states through the one table
            self._believe_nodes(nodes, now)
        if attempts:
            self._believe_attempts(attempts, now)
        refused = self._obey(asked) if asked else {}
        if self._timers:
            self._believe_timers(now)
        if now >= self.drains.next or now >= self.closings.next:
            self._empty_nodes(now)
        if self.arrays.due:
            self.arrays.turn(now)
        if self._stale or now >= self._wake_at:
            self._decide(now)  # 3 give the policy the cluster, the queue and now; 4 take its plan
            if self._timed:
                self._wake_at = min(self._wake_at, self.queue.changes_at())
        if self._events or self._decisions or self._nodes:
            self._write()  # 5 write all of it in one transaction, then do it
        if asked:
            self.inbox.settle(refused)
        if self._starts or self._stops:
            self._do(now)

    def run(self, clock: Clock) -> None:
        """Tick until nothing is left that could happen. For simulations; the live controller ticks for ever."""
        tick, now, wait, next_time = self.tick, clock.now, clock.wait, self.next_time
        while True:
            tick(now())
            due = next_time()
            if due is None:
                return
            wait(due)

    def next_time(self) -> float | None:
        """When the next tick is due if nothing comes in; None = never."""
        if self.arrays.due:
            return 0.0  # tasks wait to become jobs
        due = self._wake_at
        if self._timers and self._timers[0][0] < due:
            due = self._timers[0][0]
        due = min(due, self.drains.next, self.closings.next)
        news, asked = self.backend.next_time(), self.inbox.next_time()
        if news is not None and news < due:
            due = news
        if asked is not None and asked < due:
            due = asked
        return None if due == math.inf else due

    # Around the loop, when live ---------------------------------------------------------------------------------

    def recover(self, jobs: Sequence[Job], nodes: Sequence[tuple[int, NodeChange]], now: float) -> list[Job]:
        """Go on from what the store remembers, before the first tick. Nothing of it is written again.

        Args:
            jobs: every job that is not finished, by id.
            nodes: (number, last change) of every node ever seen. They count as away until the backend reports them.
            now: seconds on the engine's clock.

        Returns:
            The jobs that hold GPUs; the backend has to `adopt` them. Those that were being stopped are told so again.
        """
        pool = self.pool
        self.drains.remember([change for _, change in nodes])
        for number, change in nodes:
            node = change.node
            # Room for whatever it holds, also if it shrank under its jobs.
            roomy = replace(node, gpus=node.gpus + _ROOM, cpu_milli=node.cpu_milli + _ROOM, memory=node.memory + _ROOM)
            found = pool.put(replace(roomy, schedulable=False))
            assert found == number, f"node {node.name} had number {number}, not {found}"
        holding = []
        for job in jobs:
            if job.tasks is not None:
                self.arrays.add(job)
                continue
            self.jobs[job.id] = job
            if job.array_id:
                self.arrays.remember(job)
            if job.state in HOLDING:
                pool.take(job.shape, job.placement)
                self.queue.started(job)
                holding.append(job)
            elif job.state is State.QUEUED:
                self._enqueue(job, now)
            if job.state is State.RUNNING and job.limit is not None and job.started is not None:
                heappush(self._timers, (job.started + job.limit, job.id, job.attempt, Kind.EXPIRED))
            elif job.state is State.STOPPING or job.state is State.PREEMPTING:
                self.queue.running.told_to_go(job)
                self._stops.append(job)
        for _, change in nodes:
            pool.put(replace(change.node, schedulable=False))
            pool.drop(change.node.name)
        return holding

    def use(self, policy: Policy) -> None:
        """Decide by this policy from the next tick on. Between ticks only."""
        self.policy = policy
        self._by = f"{policy.name}/{policy.version}"
        self._timed = getattr(policy, "timed", None) is not None
        self._requeue()

    def use_tree(self, tree: Tree | None) -> None:
        """The site's queues are these from the next tick on; None = it has none. Between ticks only."""
        if tree is None and self.quotas is None:
            return  # as it was from the beginning: a hundred thousand jobs need not be queued anew
        self.pool.use_levels(LEVELS if tree is None else tree.topology or LEVELS)
        self.quotas = None if tree is None else Quotas(tree, self.pool)
        self._requeue()

    def _requeue(self, past: Sequence[tuple[Job, float]] = ()) -> None:
        """The same jobs in a queue as the policy and the tree want it now; its books begin with the past."""
        quotas = self.quotas
        if quotas is not None:
            quotas = self.quotas = Quotas(quotas.tree, self.pool)  # counted anew
        old, queue = self.queue, queue_for(self.policy, quotas)
        for book in queue.books.values():
            for job, ended in past:
                book.started(job)
                book.ended(job, ended)
        for group in old.all_groups():
            for _, job in group.waiting():
                queue.add(job)
        for job in old.running.jobs.values():
            queue.started(job)
        for job in old.running.vacating.values():
            queue.running.told_to_go(job)
        queue.claimants = old.claimants
        if queue.candidates is not None:
            queue.promised = old.promised
        self.queue = queue
        self._stale = True

    def remember(self, past: Sequence[tuple[Job, float]]) -> None:
        """Attempts that ended before this engine began, and when: for the books of the policy. The oldest first."""
        # Before what runs now: that may be later attempts of the same jobs.
        self._requeue(past)

    def rehearse(self, policy: Policy, now: float) -> Plan:
        """What another policy would answer now. Leaves no trace. Between ticks only."""
        queue = queue_for(policy, self.quotas)
        for job in self._waiting():
            queue.add(job)
        for job in self.queue.running.jobs.values():
            for book in queue.books.values():
                book.started(job)
            queue.running.add(job, queue.books)
        for job in self.queue.running.vacating.values():
            queue.running.told_to_go(job)
        with self.pool.trial():
            return policy.plan(now, queue, self.pool)

    def foresee(self, jobs: Sequence[Job], now: float, *, instead_of: Job | None = None) -> Plan:
        """What the policy would answer now if these jobs were in the queue too, or instead of one that is.

        Leaves no trace. Between ticks only.
        """
        queue = queue_for(self.policy, self.quotas)
        queue.share(self.queue)
        for job in (*self._waiting(), *jobs):
            if job is not instead_of:
                queue.add(job)
        with self.pool.trial():
            return self.policy.plan(now, queue, self.pool)

    def _waiting(self) -> Iterator[Job]:
        for group in self.queue.all_groups():
            for _, job in group.waiting():
                yield job

    # 2 Believe --------------------------------------------------------------------------------------------------

    def _believe_nodes(self, changes: Sequence[NodeChange], now: float) -> None:
        believed = []
        for change in changes:
            if change.gone:
                if self.pool.number(change.node.name) is None:
                    continue
                number = self.pool.drop(change.node.name)
            else:
                number = self.pool.put(change.node)
            believed.append((number, change))
        if not believed:
            return
        self._nodes += believed
        self._stale = True
        told = self.drains.believe(believed, self.queue.running.jobs.values())
        self._events += told
        self.endings.heard(told)
        self._suspect(now)
        if self.closings.relaid():
            self._reshape(list(self._waiting()), now)

    def _reshape(self, jobs: Sequence[Job], now: float) -> None:
        """Nodes close: what waiting jobs may use is another now."""
        for job in jobs:
            if job.state is not _QUEUED or job.id in self._later:
                continue
            shape = self.closings.shape(job, now)
            if shape is not job.shape:
                self.queue.remove(job)
                job.shape = shape
                self.queue.add(job)
                self._stale = True

    def _empty_nodes(self, now: float) -> None:
        """Nodes that close are kept free of what could not be gone by then."""
        if now >= self.drains.next:
            self._move_away(now)
        if now >= self.closings.next:
            self._reshape([one for one in map(self.jobs.get, self.closings.due(now)) if one is not None], now)

    def _move_away(self, now: float) -> None:
        """Jobs on nodes that close are told to go in time, whatever the policy thinks; they wait for another place."""
        for job, data in self.drains.due(now, self.jobs):
            move = MOVES[job.state].get(Kind.PREEMPTED)
            if move is not None:
                self.move(job, move, Event(now, Kind.PREEMPTED, job.id, job.attempt, data))
                job.reason = data["message"]

    def _believe_attempts(self, events: Sequence[Event], now: float) -> None:
        """News of attempts. News of an older attempt, or of what is settled already, changes nothing."""
        jobs = self.jobs
        for event in events:
            _, kind, job_id, attempt, _ = told = event
            job = jobs.get(job_id)
            if job is None or attempt != job.attempt:
                if kind is Kind.PLANE:
                    self._events.append(event)  # of no job: it moves nothing
                continue
            verdict = None
            if kind is _FINISHED or kind is _VANISHED or (kind is Kind.REFUSED and job.state in _TOLD_TO_GO):
                told, verdict = self.endings.judge(job, event)
                kind = told.kind  # from here on it is what the end means
            elif kind is Kind.REFUSED:
                self.endings.refused(job, event)
            move = MOVES[job.state].get(kind)
            if move is not None:
                self.move(job, move, told, verdict)
            elif kind in NOTES and job.state in HOLDING:
                self._note(job, told)
        self._suspect(now)

    def _suspect(self, now: float) -> None:
        """What the failures of late say of nodes."""
        if self.endings.poison.fresh and self.cordon is not None:
            self._events += self.endings.sentences(now)

    def _note(self, job: Job, event: Event) -> None:
        """What a job says of itself is written and remembered; nothing moves, and nobody is asked again for it."""
        self._events.append(event)
        if event.kind is Kind.CHECKPOINTED:
            job.saved = min(event.data["time"], event.time)

    def _obey(self, asked: Sequence[Event]) -> dict[int, ConflictError]:
        """Requests of users. One that the job's state does not allow is refused, and the asker told."""
        refused: dict[int, ConflictError] = {}
        for position, event in enumerate(asked):
            if event.kind is _SUBMITTED:
                self.enter(event.data, event.time)
                continue
            if event.kind is Kind.AUDIT:
                # It follows what it is about. What was refused is told apart from the journal's own lines.
                if position - 1 not in refused:
                    self._events.append(event)
                continue
            job = self.jobs.get(event.job)
            if job is None and event.job in self.arrays.jobs:
                refusal = self.arrays.obey(event)
                if refusal is not None:
                    refused[position] = refusal
                continue
            move = None if job is None else MOVES[job.state].get(event.kind)
            if job is None or move is None:
                state = "finished already" if job is None else f"is {job.state}"
                refused[position] = ConflictError(f"job {event.job} {state}: it cannot be {event.kind} now")
                continue
            self.move(job, move, event._replace(attempt=job.attempt))
        return refused

    def enter(self, job: Job, now: float) -> None:
        """A new job, or an array, which never waits in line itself. In the turn that writes it."""
        self._events.append(Event(now, _SUBMITTED, job.id, 0, job))
        self._changed[job.id] = job
        if job.tasks is not None:
            self.arrays.add(job)
            return
        self.jobs[job.id] = job
        if job.state is _QUEUED:
            self._enqueue(job, now)

    def changed(self, array: Job, event: Event | None = None) -> None:
        """An array is to be written with this turn, and what happened to it."""
        self._changed[array.id] = array
        if event is not None:
            self._events.append(event)

    def _enqueue(self, job: Job, now: float) -> None:
        if job.not_before > now:
            self._later.add(job.id)
            heappush(self._timers, (job.not_before, job.id, job.attempt, Kind.RELEASED))
            return
        self._line_up(job, now)

    def _line_up(self, job: Job, now: float) -> None:
        if self.closings.active or job.shape.closing:
            job.shape = self.closings.shape(job, now)
        self.queue.add(job)
        self._stale = True

    def _promise_anew(self, job: Job) -> None:
        """Its pause is over: a start promised meanwhile to a job behind it was promised as if it were not there."""
        queue = self.queue
        place = queue.key_of(job)
        for other in [self.jobs[number] for number in queue.promised]:
            if queue.key_of(other) > place:
                queue.remove(other)
                queue.add(other)

    def _drop_timers(self) -> None:
        """Forget the time limits of what has ended: a limit of a month would be kept for a month."""
        jobs = self.jobs
        kept = [one for one in self._timers if one[1] in jobs and jobs[one[1]].attempt == one[2]]
        heapify(kept)
        self._timers = kept

    def _believe_timers(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, job_id, attempt, kind = heappop(timers)
            job = self.jobs.get(job_id)
            if job is None or job.attempt != attempt:
                continue
            if kind is Kind.RELEASED:
                # Held and released again meanwhile, it has two timers.
                if job_id in self._later:
                    self._later.remove(job_id)
                    self._line_up(job, now)
                    self._promise_anew(job)
                continue
            move = MOVES[job.state].get(kind)
            if move is not None:
                self.move(job, move, Event(now, kind, job_id, attempt))

    def move(self, job: Job, move: Move, event: Event, verdict: Verdict | None = None) -> None:  # noqa: C901 - one edge
        """Take one edge of the table: the job's fields, the books, and the effect that the new state calls for."""
        old, (new, why) = job.state, move
        time, kind, job_id, attempt, data = event
        job.state = new
        if job.array_id:
            self.arrays.moved(job, old)
        self._events.append(event)
        self._changed[job_id] = job
        if new is _RUNNING:
            job.started = time
            if job.limit is not None:
                heappush(self._timers, (time + job.limit, job_id, attempt, Kind.EXPIRED))
                if len(self._timers) > 2 * len(self.jobs) + SLACK:
                    self._drop_timers()
            return
        job.reason = (data.get("message") or why) if kind is Kind.HELD and data else why
        if old in HOLDING and new not in HOLDING:
            self._release(job, time, data)
            if verdict is not None and verdict.end is not None and data and data.get("cause"):
                job.reason = said(verdict, why)
        if new in FINAL:
            if old is _QUEUED:
                self._leave_queue(job)
            job.ended = time
            del self.jobs[job_id]
            self.finished += 1
        elif new is _QUEUED:
            self._return(job, event, verdict)
        elif new is _STOPPING or new is _PREEMPTING:
            job.stop_cause = kind
            self.queue.running.told_to_go(job)
            self._stops.append(job)
        elif old is _QUEUED:
            self._leave_queue(job)

    def _return(self, job: Job, event: Event, verdict: Verdict | None) -> None:
        """Back to the queue; after a refusal or a failure not at once."""
        time, kind, _, _, data = event
        if kind is Kind.REFUSED:
            # Nothing ran: it has waited since it came, not since now.
            job.not_before = time + REFUSAL_PAUSE
        else:
            job.queued = time
        if verdict is not None and verdict.end is not None:
            self.endings.returns(job, verdict, time, data)
        self._enqueue(job, time)

    def _leave_queue(self, job: Job) -> None:
        if job.id in self._later:
            self._later.remove(job.id)
            return
        self.queue.remove(job)
        job.shape = bare(job.shape)
        self._stale = True

    def _release(self, job: Job, time: float, data: dict[str, Any] | None) -> None:
        """An attempt's last process is gone: what it held is free, and how it ended is known."""
        shape = job.shape
        self.pool.give(shape, job.placement)
        job.gpu_seconds += max(time - job.placed, 0.0) * shape.total_gpus  # a clock may have been set back
        self.queue.ended(job, time)
        if self.drains.watching:
            self._events += self.drains.left(job, time)
        self._stale = True
        if data is not None:
            job.executed += data.get("kept", 0.0) * data.get("rate", 1)
            job.exit_code = data.get("exit_code")
            job.reason = data.get("message") or job.reason
        elif job.exit_code is not None:
            job.exit_code = None  # of an earlier attempt

    # 3 and 4 Decide ---------------------------------------------------------------------------------------------

    def _decide(self, now: float) -> None:
        """Ask the policy; check its plan as it is applied. A bad one is refused whole, before anything is written."""
        self._stale = False
        self._wake_at = math.inf
        queue, pool = self.queue, self.pool
        if not queue.active:
            return
        waiting, free = len(queue), pool.free_gpus
        outer = pool.begin()
        try:
            plan = self.policy.plan(now, queue, pool)
        except BaseException:
            pool.rollback(outer)
            raise
        starts = plan.starts
        kept = pool.keep(outer, starts)
        if plan.wake_at is not None:
            self._wake_at = plan.wake_at
        if starts or plan.preemptions:
            try:
                check_plan(plan, self.jobs, pool, self._by, kept=kept)
            except PlanError:
                queue.memo.growth = -1
                raise
        if plan.reserved or plan.kept:
            queue.decided(plan)
        if not (starts or plan.waiting or plan.preemptions or plan.promises):
            return
        started = tuple([start[0].id for start in starts]) if starts else ()
        preempted = tuple([victim.id for victim, _ in plan.preemptions]) if plan.preemptions else ()
        reasons = tuple(plan.waiting.items()) if plan.waiting else ()
        promises = tuple(plan.promises.items()) if plan.promises else ()
        self._decisions.append(decision_of((now, self._by, waiting, free, started, preempted, reasons, promises)))
        for job, placement in starts:
            self._place(job, placement, now)
        for job, claimant in plan.preemptions:
            told = Event(now, Kind.PREEMPTED, job.id, job.attempt, {"claimant": claimant} if claimant else None)
            self.queue.claimants.setdefault(claimant, []).append(job.id)
            self.move(job, MOVES[job.state][Kind.PREEMPTED], told)

    def _place(self, job: Job, placement: Placement, now: float) -> None:
        """The PLACED edge: a new attempt, its books and its effect."""
        self.queue.left(job)
        if job.shape.closing:
            job.shape = bare(job.shape)
        job.state = _STARTING
        if job.array_id:
            self.arrays.moved(job, _QUEUED)
        job.placement = placement
        job.placed = now
        job.attempt = attempt = job.attempt + 1
        job.started = None
        if job.first_start is None:
            job.first_start = now
        self.queue.started(job)
        self._events.append(event_of((now, _PLACED, job.id, attempt, placement)))
        self._changed[job.id] = job
        self._starts.append(job)

    # 5 Write and do ---------------------------------------------------------------------------------------------

    def _write(self) -> None:
        self.store.commit(
            jobs=self._changed.values(), events=self._events, decisions=self._decisions, nodes=self._nodes
        )
        if self.endings.cordons and self.cordon is not None:
            for name, reason in self.endings.cordons:
                self.cordon(name, reason, self._events[-1].time)
            self.endings.cordons = []
        self._events, self._decisions, self._nodes = [], [], []
        self._changed = {}

    def _do(self, now: float) -> None:
        """Effects, each written before and named by (job, attempt), so that it may be done again after a crash."""
        if self._starts:
            nodes, start = self.pool.nodes, self.backend.start
            for job in self._starts:
                pieces = job.placement
                if len(pieces) == 1:  # nearly always, and a comprehension costs as much as the start
                    start(job, (nodes[pieces[0][0]].name,), now)
                else:
                    start(job, tuple([nodes[piece[0]].name for piece in pieces]), now)
            if self.drains.watching:
                for job in self._starts:
                    self.drains.placed(job)
            self._starts = []
        if self._stops:
            for job in self._stops:
                if job.state not in _TOLD_TO_GO:
                    continue  # told so before a restart, it ended meanwhile, and may have been started anew
                self.backend.stop(job, grace_of(job), now)
            self._stops = []
