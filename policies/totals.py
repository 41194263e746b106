"""Reservations where only the total of free GPUs counts: the textbook's step function, for the placer `count`."""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate

from ..jobs.job import Placement, Shape
from .reservation import Someday, Table
from .sweep import Stay


class Totals(Table):
    """A table without nodes: a gang fits when as many GPUs are free, wherever. A reservation has no placement."""

    _times: list[float] | None = None
    _sums: list[int]

    def took(self, job_id: int, shape: Shape, placement: Placement, length: float) -> None:
        """The pass starts this job; the pool has it already."""
        super().took(job_id, shape, placement, length)
        self._times = None

    def against(
        self,
        shape: Shape,
        placement: Placement,  # noqa: ARG002 - the table's
        start: float,
        length: float,
        *,
        at_start: bool = False,
    ) -> int:
        """Every node if the total would be overfilled at some instant, else none."""
        end = start + length
        there = [other for other in self.held.values() if other.start < end and start < other.end]
        instants = {max(other.start, start) for other in there}
        if at_start:
            instants.add(start)
        for instant in instants:
            active = sum([other.shape.gpus for other in there if other.start <= instant < other.end])
            if self._free_at(instant) - active < shape.gpus:
                return -1
        someday = self.someday
        if someday is not None and self._free_after(someday.last) - someday.shape.gpus < shape.gpus:
            return -1
        return 0

    def _gives_way(self, shape: Shape, placement: Placement, length: float) -> bool:  # noqa: ARG002 - the table's
        """There is no elsewhere."""
        return False

    def earliest(self, shape: Shape, length: float, before: float = math.inf) -> tuple[float, Placement] | None:
        """The first hole after now that is as long and as high. O(n log n) in running jobs and reservations."""
        now, gpus = self._now, shape.gpus
        steps: dict[float, int] = {}
        level = self._pool.free_gpus
        for stay in self._running():
            steps[stay.end[0]] = steps.get(stay.end[0], 0) + self._gpus(stay)
        for other in self.held.values():
            if other.start <= now:
                level -= other.shape.gpus
            else:
                steps[other.start] = steps.get(other.start, 0) - other.shape.gpus
            steps[other.end] = steps.get(other.end, 0) + other.shape.gpus
        start: float | None = None
        for time in sorted(steps):
            if start is not None and time - start >= length:
                break
            if time == math.inf or (start is None and time >= before):
                break
            level += steps[time]
            if level < gpus:
                start = None
            elif start is None:
                start = time
        return None if start is None else (start, ())

    def room_at(self, shape: Shape, start: float, length: float) -> Placement | None:
        """Whether as many are free then; nowhere in particular."""
        return None if self.against(shape, (), start, length, at_start=True) else ()

    def wait_for(self, job_id: int, shape: Shape) -> bool:
        """Keep room for a job whose start cannot be told."""
        free = self._pool.free_gpus
        for stay in sorted(self._running(), key=lambda stay: stay.end[1:]):
            free += self._gpus(stay)
            if free >= shape.gpus:
                self.someday = Someday(job_id, shape, (), stay.end[1:])
                return True
        return False

    def _gpus(self, stay: Stay) -> int:
        """What is free when it leaves: GPUs on nodes that take work."""
        up = self._pool.up
        return sum([piece.gpus for piece in stay.placement if up >> piece.node & 1])

    def _free_at(self, instant: float) -> int:
        if self._times is None:
            stays = list(self._running())
            self._times = [stay.end[0] for stay in stays]
            self._sums = [0, *accumulate([self._gpus(stay) for stay in stays])]
        return self._pool.free_gpus + self._sums[bisect_right(self._times, instant)]

    def _free_after(self, last: tuple[float, int]) -> int:
        return self._pool.free_gpus + sum([self._gpus(stay) for stay in self._running() if stay.end[1:] <= last])
