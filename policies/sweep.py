"""Time run ahead: a pool that running jobs leave one after another, and the number of free GPUs over time."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

from ..cluster.pool import Pool
from ..jobs.job import Placement, Shape
from .future import End


class Stay(NamedTuple):
    """A gang on its nodes: one that runs, or was started in this pass."""

    end: End
    shape: Shape
    placement: Placement


class Steps:
    """A number of GPUs over time, as the changes at each instant."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._changes: dict[float, int] = {}

    def add(self, time: float, change: int) -> None:
        """From this time on there are so many more."""
        changes = self._changes
        if time not in changes:
            changes[time] = change
            insort(self._times, time)
        else:
            changes[time] += change  # it stays an instant at which something may have happened

    def holes(self, now: float, level: int, needs: int, length: float, before: float) -> Iterator[float]:
        """Instants after `now` and before `before` from which on there are `needs` for so long; `level` is that of now.

        O(instants up to `before`, and as many as the last hole is long).
        """
        times, changes = self._times, self._changes
        run: list[float] = []  # instants since there have been enough
        for time in times:
            while run and run[0] + length <= time:
                yield run.pop(0)
            if time >= before and not run:
                return
            level += changes[time]
            if level < needs:
                run.clear()
            elif now < time < before:
                run.append(time)
        if level >= needs:
            yield from [time for time in run if time < math.inf]


class Sweep:
    """A pool that is moved through time as the running jobs leave it, and at the end is as it was."""

    def __init__(self, pool: Pool, stays: list[Stay]) -> None:
        self.pool = pool
        self.stays = stays
        self._times = [stay.end[0] for stay in stays]
        self._at = 0

    def __enter__(self) -> Self:
        self._outer = self.pool.begin()
        return self

    def __exit__(self, *raised: object) -> None:
        self.pool.rollback(self._outer)

    def to(self, instant: float) -> None:
        """Everybody whose end is no later has left."""
        self._move(bisect_right(self._times, instant))

    def _move(self, at: int) -> None:
        pool = self.pool
        while self._at < at:
            stay = self.stays[self._at]
            pool.leave(stay.shape, stay.placement)
            self._at += 1
        while self._at > at:
            self._at -= 1
            stay = self.stays[self._at]
            pool.stay(stay.shape, stay.placement)

    def search(self, fits: Callable[[Pool], object], shape: Shape) -> float | None:
        """The earliest end after which it fits, and there the pool stays; None = not even when all known have left.

        More and more leave and nobody comes, so what fits once fits later too: steps that double, then halving.
        """
        times = self._times
        steps = [at for at in range(1, len(times) + 1) if at == len(times) or times[at] > times[at - 1]]
        if steps and times[-1] == math.inf:
            steps.pop()
        if not steps:
            return None
        needs = int(shape.total_gpus) if not shape.gpu_milli else 0

        def works(at: int) -> bool:
            self._move(steps[at])
            return self.pool.free_gpus >= needs and fits(self.pool) is not None

        low, high, step = -1, 0, 1
        while not works(high):
            if high == len(steps) - 1:
                return None
            low, high, step = high, min(high + step, len(steps) - 1), 2 * step
        while high - low > 1:
            middle = (low + high) // 2
            if works(middle):
                high = middle
            else:
                low = middle
        self._move(steps[high])
        return times[steps[high] - 1]
