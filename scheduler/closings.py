"""Which waiting jobs could not be gone in time from nodes that will close: no policy may start them there.

A node that takes work now and closes later (a maintenance window is coming) is open to jobs that say how long they run
and could be gone before it, as in Slurm; to others until its lead. So what a job may use depends on its length and on
the time. That is told to policies in the job's shape (`Shape.closing`, a set of nodes that `Pool.allowed` leaves out):
placement, backfill, claims and reasons all go by the shape, and need no rule of their own. A shape changes only when a
node begins or ceases to close, and when a job's last moment for a window has passed. Without windows this is one look
at an empty list.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from heapq import heappop, heappush

from ..cluster.pool import Pool, bits
from ..jobs.job import Job, Shape


class Closings:
    """The nodes that take work now and close later.

    Args:
        pool: the nodes.
        grace: seconds that a job is given between SIGTERM and SIGKILL: it is told to go so long before the node closes.

    Attributes:
        active: whether there are any.
        next: when a job's last moment for a node passes; infinity = none does.
    """

    def __init__(self, pool: Pool, grace: Callable[[Job], float]) -> None:
        self._pool = pool
        self._grace = grace
        self._closing: dict[tuple[float, float], int] = {}  # (closes, lead) -> nodes, as a bit set
        self._timers: list[tuple[float, int]] = []  # (time, job)
        self._shapes: dict[tuple[Shape, int], Shape] = {}
        self.active = False
        self.next = math.inf

    def relaid(self) -> bool:
        """Nodes changed. True = others close now, or at other times: every waiting job has to be asked for anew."""
        pool = self._pool
        found: dict[tuple[float, float], int] = {}
        for number in bits(pool.present):  # also one that shrank under its jobs: it takes work again when they leave
            node = pool.nodes[number]
            if node.schedulable and node.closes is not None:
                found[node.closes, node.lead] = found.get((node.closes, node.lead), 0) | 1 << number
        if found == self._closing:
            return False
        self._closing = found
        self._shapes.clear()
        self._timers.clear()
        self.active = bool(found)
        self.next = math.inf
        return True

    def shape(self, job: Job, now: float) -> Shape:
        """What a waiting job asks for, without the nodes that close before it could be gone from there."""
        shape, change = self.foresee(job, now)
        if change < math.inf:
            heappush(self._timers, (change, job.id))
            self.next = self._timers[0][0]
        return shape

    def foresee(self, job: Job, now: float) -> tuple[Shape, float]:
        """(what it would ask for if it waited now, when that changes next). Leaves no trace."""
        length, grace = lasts(job), self._grace(job)
        closing, change = 0, math.inf
        for (closes, lead), nodes in self._closing.items():
            # From then on it would be told to go before it is done. Who says nothing would be told at once at the end.
            since = closes - max(lead, grace) if length is None else math.nextafter(closes - grace - length, math.inf)
            if now >= since:
                closing |= nodes
            else:
                change = min(change, since)
        if closing == job.shape.closing:
            return job.shape, change
        key = (job.shape, closing)
        found = self._shapes.get(key)
        if found is None:
            found = self._shapes[key] = replace(job.shape, closing=closing)
        return found, change

    def due(self, now: float) -> set[int]:
        """Jobs whose last moment for some node has passed; they have to be asked for anew."""
        found = set()
        while self._timers and self._timers[0][0] <= now:
            found.add(heappop(self._timers)[1])
        self.next = self._timers[0][0] if self._timers else math.inf
        return found


def bare(shape: Shape) -> Shape:
    """The shape without what is of the moment."""
    return replace(shape, closing=0) if shape.closing else shape


def lasts(job: Job) -> float | None:
    """Seconds that an attempt runs at most: by its time limit, or else by its estimate; None = nobody knows.

    Nor does anybody of a job that has run for longer than its estimate.
    """
    if job.limit is not None:
        return job.limit
    return None if job.estimate is None or job.estimate <= job.executed else job.estimate - job.executed
