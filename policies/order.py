"""Who goes first: each order is a sort key over a job; the smaller key goes first, equal keys by job id."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..jobs.job import Job
from .queue import Key

Order = Callable[[Job], Key]
"""A key that does not change while the job waits."""


def arrival(job: Job) -> Key:
    """First come, first served, by the time of submission. A requeued job keeps its place."""
    return (job.submitted,)


def priority(job: Job) -> Key:
    """The higher priority first; among equals, by arrival."""
    return (-job.priority, job.submitted)


def shortest(job: Job) -> Key:
    """SJF: the shortest estimated run first; jobs without an estimate last, by arrival."""
    return (math.inf if job.estimate is None else job.estimate, job.submitted)


ORDERS: dict[str, Order] = {"arrival": arrival, "priority": priority, "shortest": shortest}
"""The menu of orders by name."""
