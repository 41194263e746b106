"""The policies of Tiresias's published simulator as it plays them: lists that are sorted again at each event.

Source: the simulator that comes with Gu et al., "Tiresias: A GPU Cluster Manager for Distributed Deep Learning", NSDI
2019 (SymbioticLab/Tiresias). All jobs there are, waiting or running, stand in one list (or in a few queues). At each
event it is sorted anew, ties keeping their places, and gone through from an empty cluster: what fits by count of GPUs
runs, the rest waits. So what a job's place is depends on all sorts before, which no key of the job alone can say.

Skipping; exact run times, as far as a policy asks for any; a restart costs nothing; events are arrivals, ends, and what
`next` says. A yardstick to meet published results to the second: it looks at every job at every event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice

from ...cluster.pool import Pool
from ...jobs.job import FINAL, Job, Placement, Shape
from ...policies.place import PLACERS, Placer
from ...policies.plan import Plan, Preemption, Start
from ...policies.queue import Key, Queue
from .tiresias_index import DELTA, Index

BOOK = "tiresias-list"
LIMITS = (3250, 7200)
"""Attained service at which a job leaves the first and the second queue, in the published settings."""
QUIRKS = {
    "every-other": "lpjf: after each start of a pass the next job is missed, for the list shrinks while it is read",
    "late-demotion": "dlas-gpu: the wake-up for a demotion divides the wrong term, so some gangs are demoted late",
    "lowest-index-first": "gittins: sorted the wrong way round, the job least likely to end soon goes first",
    "waiting-by-seconds": "gittins: the index of a job that waits is looked up by its seconds, not its GPU-seconds",
}
"""What the simulator does that its authors do not say; each can be left out."""


class Turn:
    """A job as the lists know it. Attributes: executed: seconds in all; counted: those since it was last promoted;
    waited: since then, while it had any; level: its queue; since: when `executed` was last brought up to date.
    """  # noqa: D205 - one sentence

    __slots__ = ("counted", "executed", "gpus", "job", "level", "rank", "runs", "since", "waited")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.gpus = int(job.shape.total_gpus)
        self.executed = self.counted = self.waited = 0.0
        self.level = 0
        self.rank = 0.0
        self.runs = False
        self.since = job.submitted

    @property
    def left(self) -> float:
        """Seconds of run time to go."""
        assert self.job.estimate is not None, "the bench tells every run time"
        return self.job.estimate - self.executed


class Lists:
    """A book of all jobs there are, in the simulator's own order. It follows from what happened, whenever it is asked.

    Subclasses say how an event changes the order.
    """

    def __init__(self) -> None:
        self.there: dict[int, Turn] = {}
        self._event = -1.0  # the simulator's clock begins at 0
        self._pending = False  # whether the event at that time was not gone through yet

    # What happened, as the engine tells it --------------------------------------------------------------------------

    def joined(self, job: Job) -> None:
        """A job arrived, or waits again."""
        if job.id not in self.there:
            self._happens(job.queued)
            turn = self.there[job.id] = Turn(job)
            self.arrived(turn)

    def started(self, job: Job) -> None:
        """As the last pass decided."""
        turn = self.there[job.id]
        turn.runs, turn.since = True, job.placed

    def ended(self, job: Job, time: float) -> None:
        """Done, or stopped as the last pass decided."""
        turn = self.there[job.id]
        if job.state in FINAL:
            self._happens(time)
            del self.there[job.id]
            self.gone(turn)
        else:
            turn.executed += time - turn.since
            turn.counted += time - turn.since
            turn.runs, turn.since = False, time

    def _happens(self, time: float) -> None:
        """Something happens at `time`: all before it is over."""
        if time > self._event:
            self._catch_up(time)
            self._event, self._pending = time, True

    def _catch_up(self, time: float) -> None:
        """The events before `time` that nobody asked about: all ran then, and nobody waited."""
        if self._pending:
            self._go_through(self._event)
        while (due := self.wakes_at()) < time:
            self._go_through(due)

    def settle(self, now: float) -> None:
        """Go through the event at `now`, once."""
        if now > self._event:
            self._catch_up(now)
            self._event, self._pending = now, True
        if self._pending:
            self._go_through(now)

    def _go_through(self, time: float) -> None:
        self._event, self._pending = time, False
        for turn in self.there.values():
            passed = time - turn.since
            turn.since = time
            if turn.runs:
                turn.executed += passed
                turn.counted += passed
            elif turn.counted > 0:
                turn.waited += passed
            self.looked_at(turn)
        self.sort()

    def wakes_at(self, runs: Collection[int] | None = None) -> float:
        """The next event that is neither an arrival nor an end, if these jobs run from now on; infinity = none."""
        if runs is None:
            runs = {turn.job.id for turn in self.there.values() if turn.runs}
        return self._event + self.next(runs)

    # What differs from policy to policy -----------------------------------------------------------------------------

    def arrived(self, turn: Turn) -> None:
        """It is the last of all."""

    def gone(self, turn: Turn) -> None:
        """It is in no list any more."""

    def looked_at(self, turn: Turn) -> None:
        """At each event each job is looked at once, in the order of the list."""

    def sort(self) -> None:
        """Then the list is sorted."""

    def next(self, runs: Collection[int]) -> float:  # noqa: ARG002 - for those that need it
        """Seconds from the last event to the next that it causes itself, above 0; infinity = none."""
        return math.inf

    def in_order(self) -> Iterable[Turn]:
        """Who goes first."""
        return self.there.values()

    def passed(self, fits: Collection[int]) -> None:
        """The pass is over, these run."""


class Sorted(Lists):
    """One list, sorted by a key; equals keep their places."""

    def __init__(self, key: Callable[[Turn], float]) -> None:
        super().__init__()
        self._key = key

    def sort(self) -> None:
        """In place: the order of the dict is that of the list."""
        self.there = {turn.job.id: turn for turn in sorted(self.there.values(), key=self._key)}


class ByIndex(Sorted):
    """One list, by the Gittins index; besides arrivals and ends there are ticks.

    The next tick is never at a fixed distance: at each event the time of the event is added to it.

    Args:
        index: of what a job has had.
        quirks: those of QUIRKS that count.
    """

    def __init__(self, index: Index, quirks: Collection[str]) -> None:
        upward = "lowest-index-first" in quirks
        super().__init__(lambda turn: turn.rank if upward else -turn.rank)
        self._index = index
        self._by_seconds = "waiting-by-seconds" in quirks
        self._tick = float(DELTA)

    def looked_at(self, turn: Turn) -> None:
        """Its index now."""
        by_gpus = turn.runs or not self._by_seconds
        turn.rank = self._index.of(turn.counted * (turn.gpus if by_gpus else 1))

    def sort(self) -> None:
        """And the tick moves on."""
        super().sort()
        self._tick += self._event

    def next(self, runs: Collection[int]) -> float:  # noqa: ARG002 - it comes whoever runs
        """Until the tick."""
        return self._tick - self._event


class Queues(Lists):
    """Discretised least attained service: a few queues by what a job has had, each in order of coming.

    A job that runs is demoted at an event, by one queue, to its tail. After each pass those that wait in a queue move
    behind those of it that run.

    Args:
        by_gpus: what counts is GPU time, else time.
        limits: at which a job leaves each queue but the last.
        promote: a job that has waited so many times as long as it has run goes back to the first queue; 0 = none does.
        index: sorts each queue, the highest first, then by arrival; None = it is not sorted.
        quirks: those of QUIRKS that count.
    """

    def __init__(
        self,
        *,
        by_gpus: bool,
        limits: Sequence[float] = LIMITS,
        promote: float = 0.0,
        index: Index | None = None,
        quirks: Collection[str] = (),
    ) -> None:
        super().__init__()
        self._by_gpus = by_gpus
        self._limits = limits
        self._promote = promote
        self._index = index
        self._late = "late-demotion" in quirks
        self._queues: list[list[Turn]] = [[] for _ in range(len(limits) + 1)]

    def arrived(self, turn: Turn) -> None:
        """Behind all of the first queue."""
        self._queues[0].append(turn)

    def gone(self, turn: Turn) -> None:
        """Out of its queue."""
        self._queues[turn.level].remove(turn)

    def looked_at(self, turn: Turn) -> None:
        """Demote or promote it."""
        had = turn.counted * (turn.gpus if self._by_gpus else 1)
        if turn.runs:
            while turn.level < len(self._limits) and had >= self._limits[turn.level]:
                self._move(turn, turn.level + 1)
                if self._late:
                    break
        elif self._may_rise(turn) and turn.waited >= int(turn.counted * self._promote):
            turn.counted = turn.waited = had = 0.0
            self._move(turn, 0)
        if self._index is not None:
            turn.rank = self._index.of(had)

    def _may_rise(self, turn: Turn) -> bool:
        return self._promote > 0 and turn.level > 0 and turn.counted > 0

    def _move(self, turn: Turn, level: int) -> None:
        self._queues[turn.level].remove(turn)
        turn.level = level
        self._queues[level].append(turn)

    def sort(self) -> None:
        """By the index, where there is one."""
        if self._index is not None:
            for queue in self._queues:
                queue.sort(key=lambda turn: (-turn.rank, turn.job.submitted))

    def in_order(self) -> Iterable[Turn]:
        """Queue by queue."""
        for queue in self._queues:
            yield from queue

    def passed(self, fits: Collection[int]) -> None:
        """Those that wait go behind those that run."""
        for queue in self._queues:
            queue.sort(key=lambda turn: turn.job.id not in fits)

    def next(self, runs: Collection[int]) -> float:
        """Until the first demotion or promotion, as planned."""
        waits = [
            self._until_demoted(turn) if turn.job.id in runs else self._until_promoted(turn)
            for turn in self.there.values()
        ]
        return min((wait for wait in waits if wait > 0), default=math.inf)

    def _until_demoted(self, turn: Turn) -> float:
        if turn.level == len(self._limits):
            return math.inf
        limit = self._limits[turn.level]
        if not self._by_gpus:
            return limit - turn.counted
        if self._late:
            return (limit - turn.counted) // turn.gpus
        return math.ceil((limit - turn.counted * turn.gpus) / turn.gpus)

    def _until_promoted(self, turn: Turn) -> float:
        return int(turn.counted * self._promote - turn.waited) if self._may_rise(turn) else math.inf


class Listed:
    """A policy that goes through such a list at each event, from an empty cluster, skipping what does not fit."""

    version = "1"

    def __init__(self, name: str, lists: Callable[[], Lists]) -> None:
        self.name = name
        self._lists = lists

    def order(self, job: Job) -> Key:
        """The book knows the order; the queue is kept by arrival."""
        return (job.submitted,)

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """By count."""
        return PLACERS["count"](shape, pool, nodes)

    def books(self) -> dict[str, Lists]:
        """The list."""
        return {BOOK: self._lists()}

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        """Start what fits in the order of the list and stop the rest; what needs the room starts when it is there."""
        lists = queue.books[BOOK]
        assert isinstance(lists, Lists), "the queue was made for another policy"
        lists.settle(now)
        free = sum(node.gpus for node in pool.nodes)
        fits: set[int] = set()
        for turn in lists.in_order():
            if turn.gpus <= free:
                free -= turn.gpus
                fits.add(turn.job.id)
        plan = Plan()
        stopped = [turn.job for turn in lists.in_order() if turn.runs and turn.job.id not in fits]
        claimant = 0
        for turn in list(lists.in_order()):
            if turn.runs or turn.job.id not in fits:
                continue
            placement = self.place(turn.job.shape, pool, pool.up)
            if placement is None:
                claimant = claimant or turn.job.id
                continue
            pool.take(turn.job.shape, placement)
            plan.starts.append(Start(turn.job, placement))
        plan.preemptions = [Preemption(job, claimant) for job in stopped if job.id not in queue.running.vacating]
        if not stopped and not claimant:
            lists.passed(fits)
            wake = lists.wakes_at(fits)
            plan.wake_at = wake if wake < math.inf else None
        return plan


class EveryOther:
    """lpjf as it is played: by arrival, the first that does not fit ends the pass, and who follows a start is missed.

    The simulator starts jobs out of the list that it goes through, so that the list shrinks under it; that pending
    times are never counted makes its order that of arrival. Blocking, no estimates, nobody is stopped.

    Args:
        name: as it is called.
        place: where jobs go.
    """

    version = "1"

    def __init__(self, name: str, place: Placer) -> None:
        self.name = name
        self._place = place

    def order(self, job: Job) -> Key:
        """By arrival."""
        return (job.submitted,)

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """By the placer this was made with."""
        return self._place(shape, pool, nodes)

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:  # noqa: ARG002 - a Policy's
        """One pass."""
        plan = Plan()
        for job in islice(queue.in_order(), 0, None, 2):
            placement = self.place(job.shape, pool, pool.up)
            if placement is None:
                break
            pool.take(job.shape, placement)
            plan.starts.append(Start(job, placement))
        return plan
