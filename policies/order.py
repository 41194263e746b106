"""Who goes first: each order is a sort key over a job; the smaller key goes first, equal keys by job id."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..jobs.job import Job
from .queue import Key

POINT = 3600.0
"""Seconds of waiting that a point of priority is worth under `aged_priority`."""

Order = Callable[[Job], Key]
"""A key that does not change while the job waits."""


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


ORDERS: dict[str, Order] = {
    "arrival": arrival,
    "priority": priority,
    "aged_priority": aged_priority,
    "shortest": shortest,
}
"""The menu of orders by name."""
