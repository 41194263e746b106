"""Who gives way to whom: the running jobs that a job which does not fit may displace.

A reclaim rule only names candidates. `Greedy` tries them as one transaction: as many as it takes to fit the claimant,
none if all together would not do, and those that turn out not to be needed stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

from ..jobs.job import Job, State
from .order import Order
from .queue import Key, Queue


class Reclaim(Protocol):
    """A rule for who gives way."""

    @property
    def name(self) -> str:
        """The rule and its numbers, as reports show it."""
        ...

    def candidates(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:
        """Running jobs that may be told to go so that `job`, whose key is `key`, can start; who goes first comes first.

        Not among them: jobs that are not preemptible, that have not had their minimum run time, or that were told to
        go already.
        """
        ...

    def until(self, now: float, queue: Queue) -> float:
        """The time at which there may be more candidates although nothing happened; infinity = never."""
        ...


def may_go(job: Job, now: float) -> bool:
    """Whether a running job may be preempted at all now."""
    return job.preemptible and now >= job.placed + job.min_runtime and job.state in {State.STARTING, State.RUNNING}


class ByOrder:
    """Whoever goes first may displace whoever goes later in the same order, the last one first.

    Args:
        margin: by how much, in the order's own unit, the claimant must be ahead. With the cost of a restart as margin
            no job is stopped for a gain that its restart would eat up (hysteresis).
    """

    def __init__(self, margin: float = 0.0) -> None:
        self.margin = margin

    @property
    def name(self) -> str:
        """With its margin, if it has one."""
        return "preempt" if not self.margin else f"preempt, margin {self.margin:g}"

    def candidates(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:  # noqa: ARG002 - the protocol's
        """Running jobs later in the order, the last one first. O(shapes) a candidate."""
        lines = [alike for alike in queue.running.by_shape.values() if alike]
        at = [len(alike) - 1 for alike in lines]
        worst = [order.running(alike[-1][1], now, queue) for alike in lines]
        bar = (key[0] + self.margin, *key[1:]) if self.margin else key
        while worst:
            last = max(range(len(worst)), key=worst.__getitem__)
            if worst[last] <= bar:
                return
            candidate = lines[last][at[last]][1]
            at[last] -= 1
            if at[last] < 0:
                del lines[last], at[last], worst[last]
            else:
                worst[last] = order.running(lines[last][at[last]][1], now, queue)
            if may_go(candidate, now):
                yield candidate

    def until(self, now: float, queue: Queue) -> float:
        """The next minimum run time that ends."""
        ends = (job.placed + job.min_runtime for job in queue.running.guarded.values())
        return min((end for end in ends if end > now), default=math.inf)
