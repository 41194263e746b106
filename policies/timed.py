"""Keys that hold until a known time: kept as they were made, and made anew when their time has come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..jobs.job import Job
    from .queue import Book, Key

Until = tuple[tuple[Any, ...], float]
"""A key and the time in seconds up to which it holds; infinity = as long as the job stays where it is."""


class Timed(Protocol):
    """What an order says whose keys change with time, or are made from what its books know at one moment."""

    def key_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:
        """The key of a waiting job, made at `now`: when it joins the queue, or when the key before has had its time."""
        ...

    def inner_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:
        """The key of a running job, made at `now`: when it is placed, or when the key before has had its time."""
        ...


class Keys:
    """The keys of the jobs in one place, such as the queue, each with the time up to which it holds.

    Args:
        make: `Timed.key_at` or `Timed.inner_at`.
    """

    def __init__(self, make: Callable[[Job, float, Mapping[str, Book]], Until]) -> None:
        self._make = make
        self._kept: dict[int, tuple[Key, float, Job]] = {}
        self._due: list[tuple[float, int, tuple[Key, float, Job]]] = []
        self._tie = count()

    def __contains__(self, job_id: int) -> bool:
        return job_id in self._kept

    def add(self, job: Job, now: float, books: Mapping[str, Book], *, known: Keys | None = None) -> Key:
        """A job joins: its key, with its id as the last tie-break. `known` has the keys of the same jobs elsewhere."""
        kept = None if known is None else known._kept.get(job.id)  # noqa: SLF001 - of this class
        if kept is None or kept[2] is not job:
            key, until = self._make(job, now, books)
            kept = ((*key, job.id), until, job)
        self._kept[job.id] = kept
        if kept[1] < math.inf:
            heappush(self._due, (kept[1], next(self._tie), kept))
        return kept[0]

    def of(self, job: Job) -> Key:
        """Its key."""
        return self._kept[job.id][0]

    def leave(self, job: Job) -> Key:
        """It leaves: the key that it had."""
        return self._kept.pop(job.id)[0]

    def next(self) -> float:
        """When the next key has had its time; infinity = none ever has."""
        due = self._due
        while due and self._kept.get(due[0][2][2].id) is not due[0][2]:
            heappop(due)
        return due[0][0] if due else math.inf

    def advance(self, now: float, books: Mapping[str, Book]) -> list[tuple[Job, Key, Key]]:
        """(job, old key, new key) of those whose keys have had their time by now, in the order in which they did."""
        moved: list[tuple[Job, Key, Key]] = []
        while self.next() <= now:
            time, _, (old, _, job) = heappop(self._due)
            new = self.add(job, time, books)
            if new != old:
                moved.append((job, old, new))
        return moved
