"""What will be free when: the running jobs by the time at which they are said to end."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from itertools import islice
from typing import NamedTuple

from ..jobs.job import Job, Placement, Shape
from .estimates import Estimates

OVERRUN = 0.1
"""A job that outlasts its estimate is taken to run this part of it longer, and again until it ends."""
SHORTEST = 1.0
"""Seconds of which that part is taken at least."""

End = tuple[float, float, int]
"""(seconds on the engine's clock, when it was placed, job): by this running jobs are told to leave, in order."""

_KEPT = 1024
"""Changes that are remembered for whoever looks again."""


class Change(NamedTuple):
    """A gang came to its nodes, or left them."""

    end: End
    shape: Shape
    placement: Placement
    came: bool


class Ends:
    """The running jobs in order of their estimated ends, kept as they come and go. A book of the queue.

    Jobs of which nothing is known come last (they end at infinity), the longest running first.

    Attributes:
        order: (end, placed, id) of every running job, ascending. jobs: the same by id.
        on: for each node its jobs, by id.
        late: how often a job outlasted its estimate. early: how many ended before it.
    """

    def __init__(self, estimates: Estimates, overrun: float = OVERRUN) -> None:
        self._estimates = estimates
        self._overrun = overrun
        self._end: dict[int, End] = {}
        self.order: list[End] = []
        self.jobs: dict[int, Job] = {}
        self.on: dict[int, dict[int, Job]] = {}
        self.late = 0
        self.early = 0
        self._log: list[Change] = []
        self._dropped = 0
        self._early: deque[float] = deque(maxlen=_KEPT)

    def end(self, job_id: int) -> End:
        """When a running job is said to end."""
        return self._end[job_id]

    def started(self, job: Job) -> None:
        """It runs."""
        end = (job.placed + self._estimates.length(job), job.placed, job.id)
        self._note(Change(end, job.shape, job.placement, came=True))
        self._end[job.id] = end
        self.jobs[job.id] = job
        insort(self.order, end)
        on = self.on
        for piece in job.placement:
            on.setdefault(piece.node, {})[job.id] = job

    def ended(self, job: Job, time: float) -> None:
        """Its GPUs are free."""
        end = self._end.pop(job.id, None)
        if end is None:
            return
        self._note(Change(end, job.shape, job.placement, came=False))
        del self.order[bisect_left(self.order, end)], self.jobs[job.id]
        for piece in job.placement:
            self.on[piece.node].pop(job.id, None)
        if end[0] > time:
            self.early += 1
            self._early.append(end[0])

    def _note(self, change: Change) -> None:
        self._log.append(change)
        if len(self._log) > _KEPT:
            self._dropped += len(self._log)
            self._log.clear()

    @property
    def position(self) -> int:
        """How many starts and ends there have been."""
        return self._dropped + len(self._log)

    def since(self, position: int) -> list[Change] | None:
        """The starts and ends after so many of them, in order; None = not all are remembered."""
        return None if position < self._dropped else self._log[position - self._dropped :]

    def latest_of(self, since: int) -> float:
        """The latest estimated end among those that ended early since `early` was `since`; -infinity = none did."""
        count = self.early - since
        if since < 0 or count > len(self._early):
            return math.inf
        return max(islice(reversed(self._early), count), default=-math.inf)

    def extend(self, now: float) -> None:
        """Those that have outlasted their estimate get a later end, which is beyond now."""
        order = self.order
        while order and order[0][0] <= now:
            end, placed, job_id = order.pop(0)
            length = end - placed
            while end <= now:
                length += max(length, SHORTEST) * self._overrun
                end = placed + length
            self._end[job_id] = later = (end, placed, job_id)
            insort(order, later)
            self.late += 1

    def next(self) -> float:
        """The next estimated end; infinity = none is known."""
        return self.order[0][0] if self.order else math.inf
