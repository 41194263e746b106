"""Trying to make room: what leaves in a trial, and whether a job fits then, by the pool and by its queue's quota."""

from __future__ import annotations

from collections.abc import Callable

from ..cluster.pool import Pool
from ..jobs.job import Job, Placement
from .queue import Queue

Place = Callable[[Job, int], Placement | None]
"""A placement of a job on nodes that are not withheld (a bit set); None = it does not fit."""


class Room:
    """What a rule that makes room tries on. The pool is in a trial, and the quotas are marked.

    Args:
        queue: the jobs.
        pool: what is free.
        place: where a job would go.
    """

    __slots__ = ("_memo", "_place", "_pool", "_quotas")

    def __init__(self, queue: Queue, pool: Pool, place: Place) -> None:
        self._memo = queue.memo
        self._quotas = queue.quotas
        self._pool = pool
        self._place = place

    def _leave(self, job: Job) -> None:
        """As if it had given back what it holds."""
        self._pool.leave(job.shape, job.placement)
        if self._quotas is not None:
            self._quotas.gave(job)

    def _fits(self, job: Job) -> Placement | None:
        """Where it would go as things stand in this trial; None = nowhere, or its queue may not."""
        barred = 0
        if self._quotas is not None:
            if self._quotas.refuses(job) is not None:
                return None
            barred = self._quotas.barred(job)
        return self._place(job, self._memo.withheld | barred)
