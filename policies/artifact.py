"""Discretised 2D-LAS exactly as the published simulator of Tiresias plays it, quirks and all.

Source: the simulator that comes with Gu et al., NSDI 2019 (SymbioticLab/Tiresias, `dlas-gpu`). What it does differently
from the paper, and from `attained.LeastAttained`:

- A job is demoted only at an event (an arrival, an end, a wake-up), by one queue at a time, and only while it runs.
- The wake-up for a demotion is planned at t + floor((limit - executed seconds) / GPUs): the wrong term is divided. A
  gang whose GPUs do not divide the limit is demoted late, at the next event after that.
- A demoted job goes to the tail of the next queue, behind those that wait there, though it runs. After each pass those
  that wait in a queue move behind those of it that run, so that what was stopped last waits first.

It is a yardstick, there to meet published results to the second: at each event it looks through all running jobs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..cluster.pool import Pool
from ..jobs.job import FINAL, Job
from .order import Changing
from .plan import Start
from .queue import Book, Key, Queue
from .timed import Until

BOOK = "tiresias-artifact"
LIMITS = (3250.0, 7200.0)
"""GPU-seconds of executed time at which a job leaves the first and the second queue, in the original."""

_RUNS, _WAS_STOPPED, _WAS_ADDED = range(3)  # the parts of a queue, the first to be served first


class Artifact(Changing):
    """Queues by executed GPU time, with the wake-ups of the published simulator.

    Args:
        limits: GPU-seconds at which a job leaves each queue but the last, rising.
    """

    scattered = True
    steady = False
    keeps = False

    def __init__(self, limits: Sequence[float] = LIMITS) -> None:
        self._limits = tuple(limits)

    def books(self) -> Mapping[str, Book]:
        """Which queue each job is in, and since when."""
        return {BOOK: Demotions(self._limits)}

    def ranks(self, now: float, queue: Queue, pool: Pool) -> None:  # noqa: ARG002 - the frame's
        """Nothing but its keys; before a pass, all demotions by now are made."""
        _book(queue.books).settle(now)

    def key_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:  # noqa: ARG002 - the frame's
        """Its queue, the part of it and the place there; it stays while the job waits."""
        return (_book(books).place(job) if BOOK in books else (0, _WAS_ADDED, job.queued, ())), math.inf

    def inner_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:  # noqa: ARG002 - the frame's
        """By id: jobs of one shape change places while they run."""
        return (job.id,), math.inf

    def running(self, job: Job, now: float, queue: Queue) -> Key:
        """Its queue and place at this event."""
        return (*_book(queue.books).running(job, now), job.id)

    def until(self, now: float, queue: Queue, starts: Sequence[Start] = ()) -> float:  # noqa: ARG002 - the book knows when
        """The next wake-up of those that run and of those that start now."""
        return _book(queue.books).wakes_at(starts)


def _book(books: Mapping[str, Book]) -> Demotions:
    book = books[BOOK]
    assert isinstance(book, Demotions), "the queue was made for another policy"
    return book


class _Turn:
    """One job as its queue knows it.

    Attributes:
        level: number of its queue. executed: seconds, of the attempts that ended. placed: start of the present one.
        order: its place among those of its queue that run. demoted: when it last was.
        stopped: when it last gave its GPUs back without being done.
    """

    __slots__ = ("demoted", "executed", "gpus", "level", "order", "placed", "stopped")

    def __init__(self, gpus: float) -> None:
        self.gpus = gpus
        self.level = 0
        self.executed = 0.0
        self.placed = 0.0
        self.order: tuple[float, ...] = ()
        self.demoted = -math.inf
        self.stopped = -math.inf


class Demotions:
    """A book of the queue that each job is in. It follows from what the book was told, whenever it is asked."""

    def __init__(self, limits: Sequence[float]) -> None:
        self._limits = limits
        self._turns: dict[int, _Turn] = {}
        self._running: dict[int, _Turn] = {}
        self._event = 0.0  # the last one
        self._settled = True  # whether the demotions at it are made
        self._started = 0

    # What happened ------------------------------------------------------------------------------------------------

    def joined(self, job: Job) -> None:
        """A job joined the queue: an event."""
        self._happens(job.queued)

    def started(self, job: Job) -> None:
        """It runs behind those of its queue that ran before it."""
        turn = self._turns.setdefault(job.id, _Turn(job.shape.total_gpus))
        self._started += 1
        turn.placed = job.placed
        turn.order = (job.placed, 0, self._started)
        self._running[job.id] = turn

    def ended(self, job: Job, time: float) -> None:
        """It holds nothing any more: an event."""
        self._happens(time)
        turn = self._running.pop(job.id)
        turn.executed += time - turn.placed
        turn.stopped = time
        if job.state in FINAL:
            del self._turns[job.id]

    def _happens(self, time: float) -> None:
        if time > self._event:
            self.settle(time, wakes=False)
            self._event, self._settled = time, False

    def settle(self, now: float, *, wakes: bool = True) -> None:
        """Make the demotions of all events by now. Without `wakes`, of those before now."""
        if not self._settled:
            self._demote(self._event)
        while (due := self.wakes_at()) < now or (wakes and due == now):
            self._demote(due)

    def _demote(self, time: float) -> None:
        self._event, self._settled = time, True
        limits = self._limits
        for number, turn in self._running.items():
            if turn.placed >= time or turn.level == len(limits):
                continue
            if turn.gpus * (turn.executed + time - turn.placed) >= limits[turn.level]:
                turn.level += 1
                turn.demoted = time
                turn.order = (time, 1, number)

    # What follows from it -----------------------------------------------------------------------------------------

    def wakes_at(self, starts: Sequence[Start] = ()) -> float:
        """The next wake-up, as planned at the last event; with those that start at it too."""
        starting = [self._turns.get(job.id) or _Turn(job.shape.total_gpus) for job, _ in starts]
        waits = [self._waits(turn, turn.executed + self._event - turn.placed) for turn in self._running.values()]
        waits += [self._waits(turn, turn.executed) for turn in starting]
        return self._event + min(waits, default=math.inf)

    def _waits(self, turn: _Turn, executed: float) -> float:
        """Seconds until the wake-up for one job, by the original's formula; infinity = none is planned."""
        if turn.level == len(self._limits) or not turn.gpus:
            return math.inf
        wait = (self._limits[turn.level] - executed) // turn.gpus
        return wait if wait > 0 else math.inf

    def place(self, job: Job) -> Key:
        """Where it waits: behind those that run, what was stopped last first, then those that were added."""
        turn = self._turns.get(job.id)
        if turn is None:
            return 0, _WAS_ADDED, job.queued, ()
        if turn.demoted == turn.stopped:
            return turn.level, _WAS_ADDED, turn.demoted, ()
        return turn.level, _WAS_STOPPED, -turn.stopped, turn.order

    def running(self, job: Job, now: float) -> Key:
        """Where it stands while it runs; for the event at which it is demoted, at the tail of its new queue."""
        turn = self._running[job.id]
        if turn.demoted == now:
            return turn.level, _WAS_ADDED, now, ()
        return turn.level, _RUNS, 0.0, turn.order
