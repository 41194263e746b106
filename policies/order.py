"""Who goes first: an order is a sort key over a job; the smaller key goes first, equal keys by job id.

Most orders are one function of the job, whose value does not change while it waits. Those that also weigh waiting jobs
against running ones, or whose keys move with time or with what others hold, are objects: see `Order`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ..cluster.pool import Pool
from ..jobs.job import Job
from .plan import Lane, Start
from .queue import Book, Group, Key, Queue
from .timed import Until

POINT = 3600.0
"""Seconds of waiting that a point of priority is worth under `aged_priority`."""

KeyOf = Callable[[Job], Key]
"""A key that does not change while the job waits."""


class Ranks(Protocol):
    """How the groups stand to each other during one pass, when the keys of their heads do not say it all."""

    def of(self, group: Group, job: Job) -> Key:
        """The rank of a group by its first job now; the smaller goes first. It may only grow as others start."""
        ...

    def took(self, job: Job) -> None:
        """The pass starts this job, or has made room for it."""
        ...


class Order:
    """An order with all that one may say. The simplest says `key` alone.

    Attributes:
        lane: what else than its shape tells a job from others, such as its queue and user; None = nothing.
        scattered: whether running jobs of one shape may change places while they run, so that `inner` says nothing of
            who gives way first. All of them are then looked at for each claim.
        steady: whether the key of a running job never gets larger while nothing happens, except as `Changing` says. So
            who could not displace it need not try again.
        keeps: whether `running` says what `inner` said and the queue keeps, for jobs that may be stopped.
    """

    scattered = False
    steady = False
    keeps = False
    lane: Callable[[Job], Lane] | None = None

    def key(self, job: Job) -> Key:
        """Its place among those that wait: by arrival, unless an order says otherwise. Fixed while the job waits."""
        return (job.submitted,)

    def ranks(self, now: float, queue: Queue, pool: Pool) -> Ranks | None:  # noqa: ARG002 - for those that need it
        """How groups stand to each other in the pass that begins now; None = as the keys of their first jobs do."""
        return None

    def inner(self, job: Job) -> Key:
        """Its place among the running jobs of its shape, the last to give way first. Fixed while it runs."""
        return self.key(job)

    def running(self, job: Job, now: float, queue: Queue) -> Key:  # noqa: ARG002 - for those that need it
        """The key of a running job at this moment, to be compared with the keys (or ranks) of those that wait."""
        return (*self.key(job), job.id)

    def until(self, now: float, queue: Queue, starts: Sequence[Start] = ()) -> float:  # noqa: ARG002 - for those that need it
        """The time at which the order may be another although nothing happened; infinity = never.

        `starts` are those of the pass that ends now; they do not count as running yet.
        """
        return math.inf

    def books(self) -> Mapping[str, Book]:
        """What it needs to have recorded, by name; new books, empty."""
        return {}


class Changing(Order):
    """An order whose keys change at known times, or are made from what its books know at one moment.

    A key holds until the time that is told with it. What is in the queue keeps its key until then, whatever the books
    learn meanwhile.
    """

    steady = True
    keeps = True

    def key_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:  # noqa: ARG002 - for those that need it
        """The key of a waiting job, made at `now`: when it joins the queue, or when the key before has had its time."""
        return (job.submitted,), math.inf

    def inner_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:
        """The key of a running job, made at `now`; it is compared with those of waiting jobs as it is.

        Made at its start it may not be behind the key by which the job waited: others would displace it at once.
        """
        return self.key_at(job, now, books)

    def key(self, job: Job) -> Key:
        """As it joins the queue, for who knows nothing of the past."""
        return self.key_at(job, job.queued, {})[0]

    def inner(self, job: Job) -> Key:
        """As it is placed, for who knows nothing of the past."""
        return self.inner_at(job, job.placed, {})[0]

    def running(self, job: Job, now: float, queue: Queue) -> Key:
        """The key that is kept for it; one that nobody may stop has none."""
        kept = queue.running.keys.get(job.id)
        return (*self.inner_at(job, now, queue.books)[0], job.id) if kept is None else kept


class Fixed(Order):
    """An order that is one function of the job and changes neither with time nor with what others hold."""

    steady = True

    def __init__(self, key: KeyOf) -> None:
        self.key = key  # type: ignore[method-assign,assignment] # a function in place of a method saves a call a job


def arrival(job: Job) -> Key:
    """First come, first served, by the time of submission. A requeued job keeps its place."""
    return (job.submitted,)


def priority(job: Job) -> Key:
    """The higher priority first; among equals, by arrival."""
    return (-job.priority, job.submitted)


def aged_priority(job: Job) -> Key:
    """The higher priority first, where each point is worth an hour of waiting; equals by arrival.

    Age and priority weigh against each other as in Slurm's multifactor priority. All that wait age at the same pace, so
    the order of two jobs never changes: one of priority 0 is overtaken by those of priority 100 that come within 100
    hours of it, and by none that come later.
    """
    return (job.submitted - job.priority * POINT,)


def shortest(job: Job) -> Key:
    """SJF: the shortest estimated run first; jobs without an estimate last, by arrival."""
    return (math.inf if job.estimate is None else job.estimate, job.submitted)


ORDERS: dict[str, KeyOf] = {
    "arrival": arrival,
    "priority": priority,
    "aged_priority": aged_priority,
    "shortest": shortest,
}
"""The menu of orders by name."""
