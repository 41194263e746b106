"""Where a job may go when that depends on more than its shape: how long it has waited, whose it is.

A placer that is asked so has a method `finder(now, queue, pool)`; the walk calls it once, asks what it returns for
every job, and tells it what starts. All that an answer depends on beside the pool, the walk has to be told: `alike` and
`until` keep right what the walk remembers of shapes that did not fit.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol, runtime_checkable

from ..cluster.pool import Pool
from ..jobs.job import Job, Placement
from .plan import Token
from .queue import Queue


class Finder(Protocol):
    """What a placer knows during one walk.

    Attributes:
        lacks: why a job waits that enough is free for, in as large pieces as it asks for or not.
    """

    lacks: Token

    def place(self, job: Job, nodes: int) -> Placement | None:
        """A placement of the job on `nodes` (a bit set), whole, or None when it does not fit now."""
        ...

    def alike(self, job: Job) -> Hashable:
        """What else than its shape the answer depends on.

        Of two jobs for which that is equal, and all of their shapes but the GPUs, the one that asks for more GPUs does
        not fit where the other did not.
        """
        ...

    def took(self, job: Job, placement: Placement) -> None:
        """The walk starts this job there, or has made room for it."""
        ...

    def until(self, job: Job) -> float:
        """The time at which the answer for a job that does not fit may be another although nothing happened."""
        ...


@runtime_checkable
class Finding(Protocol):
    """A placer that may look at the job."""

    def finder(self, now: float, queue: Queue, pool: Pool) -> Finder:
        """For one walk."""
        ...
