"""The waiting jobs of each group by how long they will run: who is the next in order that ends in time?"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING

from ..cluster.pool import Pool
from ..jobs.job import Job

if TYPE_CHECKING:
    from .queue import Group, Key

_FULL = 128
_Entry = tuple["Key", float, Job]
"""(key, seconds it will run, the job)."""
_key_of = itemgetter(0)
_rank_of = itemgetter(0, 1)


class Line:
    """Jobs that ask for the same, in order, in chunks that each know their shortest job.

    Adding and removing cost O(sqrt n), as does `next`.
    """

    __slots__ = ("_chunks", "_firsts", "_shortest")

    def __init__(self) -> None:
        self._chunks: list[list[_Entry]] = []
        self._firsts: list[Key] = []
        self._shortest: list[float] = []

    def add(self, key: Key, length: float, job: Job) -> None:
        """Put a job in its place."""
        at = max(bisect_right(self._firsts, key) - 1, 0)
        if not self._chunks:
            self._chunks.append([])
            self._firsts.append(key)
            self._shortest.append(math.inf)
        chunk = self._chunks[at]
        if not chunk or key > chunk[-1][0]:
            chunk.append((key, length, job))
        else:
            insort(chunk, (key, length, job), key=_key_of)
        self._firsts[at] = chunk[0][0]
        self._shortest[at] = min(self._shortest[at], length)
        if len(chunk) > _FULL:
            self._split(at)

    def _split(self, at: int) -> None:
        chunk = self._chunks[at]
        half = len(chunk) // 2 if at < len(self._chunks) - 1 else len(chunk) - 1  # most come last
        self._chunks[at : at + 1] = [chunk[:half], chunk[half:]]
        self._firsts.insert(at + 1, chunk[half][0])
        self._shortest[at : at + 1] = [_least(chunk[:half]), _least(chunk[half:])]

    def leave(self, key: Key, length: float) -> None:
        """Take the job with this key out."""
        at = bisect_right(self._firsts, key) - 1
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, key, key=_key_of)]
        if not chunk:
            del self._chunks[at], self._firsts[at], self._shortest[at]
            return
        self._firsts[at] = chunk[0][0]
        if length <= self._shortest[at]:
            self._shortest[at] = _least(chunk)

    def next(self, after: Key, now: float, by: float, *, too: bool = False) -> tuple[Key, Job] | None:
        """The first in order after `after` (or there, `too`) that would end by `by` if it started now; None = none."""
        at = max(bisect_right(self._firsts, after) - 1, 0)
        for number in range(at, len(self._chunks)):
            if now + self._shortest[number] <= by:
                chunk = self._chunks[number]
                beyond = bisect_left if too else bisect_right
                first = beyond(chunk, after, key=_key_of) if number == at else 0
                for key, length, job in chunk[first:] if first else chunk:
                    if now + length <= by:
                        return key, job
        return None


def _least(chunk: list[_Entry]) -> float:
    return min([entry[1] for entry in chunk])


class Candidates:
    """Every waiting job of one queue by its group and by how long it will run.

    Args:
        length: seconds that a job will run, from its start; asked once, when the job joins.
        shortest_first: also keep each group in that order.
    """

    def __init__(self, length: Callable[[Job], float], *, shortest_first: bool = False) -> None:
        self._length = length
        self._lines: dict[Group, Line] = {}
        self._waiting: dict[int, tuple[Key, float, Job]] = {}
        self._ranked: dict[Group, list[tuple[float, Key, Job]]] | None = {} if shortest_first else None
        # What the last pass knew of surprises (see `Ends`), whether it has to be made anew in any case, the pools of
        # instants to come with the position in `Ends` that they are at. It saves work and never changes an answer.
        self.late = -1
        self.early = -1
        self.layout = -1
        self.unsure = False
        self.ahead: dict[float, tuple[Pool, int]] = {}

    def add(self, key: Key, job: Job, group: Group) -> None:
        """A job joins those that wait."""
        length = self._length(job)
        self._waiting[job.id] = (key, length, job)
        line = self._lines.get(group)
        if line is None:
            line = self._lines[group] = Line()
        line.add(key, length, job)
        if self._ranked is not None:
            insort(self._ranked.setdefault(group, []), (length, key, job), key=_rank_of)

    def leave(self, job: Job, group: Group) -> None:
        """It waits no more."""
        key, length, _ = self._waiting.pop(job.id)
        self._lines[group].leave(key, length)
        if self._ranked is not None:
            ranked = self._ranked[group]
            del ranked[bisect_left(ranked, (length, key), key=_rank_of)]

    def length(self, job: Job) -> float:
        """Seconds that a waiting job will run."""
        return self._waiting[job.id][1]

    def key(self, job_id: int) -> Key:
        """The key by which it waits."""
        return self._waiting[job_id][0]

    def job(self, job_id: int) -> Job | None:
        """A waiting job by its id; None = it does not wait here."""
        found = self._waiting.get(job_id)
        return None if found is None else found[2]

    def next(
        self, group: Group, after: Key, now: float = 0.0, by: float = math.inf, *, too: bool = False
    ) -> tuple[Key, Job] | None:
        """The first job of a group after `after` (or there, `too`) that would end by `by` if it started now."""
        return self._lines[group].next(after, now, by, too=too)

    def shortest_first(self, group: Group) -> Iterator[tuple[float, Key, Job]]:
        """(seconds, key, job) of a group, the shortest first, equals in order."""
        assert self._ranked is not None, "not kept in this order"
        return iter(self._ranked.get(group, ()))
