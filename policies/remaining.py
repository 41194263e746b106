"""Shortest first: orders by the work that is left, or by the size of the gang."""

from __future__ import annotations

import math

from ..jobs.job import Job
from .order import Order
from .queue import Key, Queue


class Remaining(Order):
    """The least remaining run time first (SRTF), or the least remaining run time x GPUs (SRSF).

    What is left of a job is its estimate less the work that is kept of earlier attempts; of a running one, also less
    the time since it was placed. One that runs longer than was estimated counts as about to end. Jobs without an
    estimate come last, those that run before those that wait.

    Equals: what waited longer goes first. A running job that has come down to the remaining time of one that
    waits stays behind it, and goes before one that arrives at that instant; so a stable sort of all jobs at each event
    keeps them, as in the published results.

    Args:
        by_gpus: count GPU-seconds in place of seconds.
        margin: what a restart costs, in seconds. A running job gives way only to one that is ahead by more than this
            (hysteresis), so that no job is stopped for a gain that its restart eats up.
        aging: how many seconds (or GPU-seconds) of remaining time a second since the submission weighs. With any above
            0, a job is overtaken only by those that come within (its remaining time / aging), so none starves that
            fits beside others. It counts on while the job runs, else the job that took its place would lose it again.
    """

    steady = True

    def __init__(self, *, by_gpus: bool = False, margin: float = 0.0, aging: float = 0.0) -> None:
        self._by_gpus = by_gpus
        self._margin = margin
        self._aging = aging

    def key(self, job: Job) -> Key:
        """What is left at rest, the time since when it waits, whether it is new."""
        new = not job.attempt
        if job.estimate is None:
            return (math.inf, job.queued, new, 0)
        left = job.estimate - job.executed
        gpus = job.shape.total_gpus or 1  # one without GPUs counts by its time
        if self._by_gpus:
            left *= gpus
        if self._aging:
            left += self._aging * job.submitted
        return (left, job.queued, new, 0 if new else gpus)

    def inner(self, job: Job) -> Key:
        """The expected end."""
        if job.estimate is None:
            return (math.inf, job.placed)
        left = job.placed + job.estimate - job.executed
        if self._aging:
            left += self._aging * job.submitted / (job.shape.total_gpus or 1 if self._by_gpus else 1)
        return (left, job.placed)

    def running(self, job: Job, now: float, queue: Queue) -> Key:  # noqa: ARG002 - the frame's
        """What is left of it now, less what stopping it would cost."""
        if job.estimate is None:
            return (math.inf, -math.inf, False, 0, job.id)
        left = job.placed + job.estimate - job.executed - now - self._margin
        gpus = job.shape.total_gpus or 1
        if self._by_gpus:
            left *= gpus
        if self._aging:
            left += self._aging * job.submitted
        if job.placed == now:  # it stands where it waited
            new = job.attempt == 1
            return (left, job.queued, new, 0 if new else gpus, job.id)
        return (left, now, False, gpus, job.id)


def fewest_gpus(job: Job) -> Key:
    """The smallest gang first, by arrival among equals, whether they wait or run."""
    return (job.shape.total_gpus, job.submitted)
