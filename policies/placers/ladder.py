"""The consolidation ladder: close together at first, wider apart the longer a gang has waited."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ...cluster.pool import Pool
from ...jobs.errors import PolicyError
from ...jobs.job import Job, Placement, Shape, TopologyWish
from ..options import Duration
from ..plan import Token
from .gangs import largest
from .levels import Inner, Smallest, choices, hopeless, machine

if TYPE_CHECKING:
    from ..queue import Queue

MINUTE = 60.0


class Ladder:
    """One node; after some patience one rack; after more patience anywhere (Philly, Jeon et al., USENIX ATC 2019).

    The patience counts from when the job last joined the queue, and is given by the gang's size: for gangs of up to
    `sizes[0]` GPUs, of up to `sizes[1]`, ..., and of more. Rungs that the idle cluster could never give are skipped, so
    a gang wider than any node asks for one rack at once. On the last rung it goes into the smallest subtree that holds
    it. Of jobs that ask for the same the first in the order counts for all: those behind it do not overtake it.

    The policy is asked again when a patience ends: nothing polls.

    Args:
        inner: puts the pieces on the nodes of the rung.
        node: seconds for which only one node will do, by size class (the last holds for all further ones).
        rack: seconds after these for which only one domain of `level` will do.
        sizes: GPUs of the largest gang of each size class but the last.
        level: the node label of the second rung, or such as `rail`.
    """

    def __init__(
        self,
        inner: Inner,
        *,
        node: tuple[Duration, ...] = (2 * MINUTE, 10 * MINUTE),
        rack: tuple[Duration, ...] = (10 * MINUTE, 30 * MINUTE),
        sizes: tuple[int, ...] = (8,),
        level: str = "rack",
    ) -> None:
        if list(sizes) != sorted(set(sizes)) or not all(sizes):
            raise PolicyError(f"sizes are {sizes}", hint="give rising numbers of GPUs, such as sizes=8,32")
        for name, patience in (("node", node), ("rack", rack)):
            if len(patience) > len(sizes) + 1:
                raise PolicyError(
                    f"{name} has {len(patience)} times for {len(sizes) + 1} sizes", hint="at most one more than sizes"
                )
        self.inner = inner
        self.level = level
        self._smallest = Smallest(inner)
        self._sizes = sizes
        self._node, self._rack = node, rack
        self._close: dict[Shape, Shape] = {}
        self._firsts: WeakKeyDictionary[Pool, tuple[int, dict[Shape, int]]] = WeakKeyDictionary()

    def varied(
        self,
        *,
        node: tuple[Duration, ...] = (2 * MINUTE, 10 * MINUTE),
        rack: tuple[Duration, ...] = (10 * MINUTE, 30 * MINUTE),
        sizes: tuple[int, ...] = (8,),
    ) -> Ladder:
        """The same with other patience."""
        return Ladder(self.inner, node=node, rack=rack, sizes=sizes, level=self.level)

    def __call__(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """Without patience: the smallest subtree that holds it."""
        return self._smallest(shape, pool, nodes)

    def finder(self, now: float, queue: Queue, pool: Pool) -> LadderFinder:  # noqa: ARG002 - other placers need it
        """For one walk."""
        return LadderFinder(self, now, pool)

    def patience(self, shape: Shape) -> tuple[float, float]:
        """Seconds of waiting after which a gang steps to the second and to the last rung."""
        size = bisect_left(self._sizes, shape.total_gpus)
        first = self._node[min(size, len(self._node) - 1)]
        return first, first + self._rack[min(size, len(self._rack) - 1)]

    def first(self, shape: Shape, pool: Pool) -> int:
        """The first rung that the idle cluster could give this shape: 0, 1 or 2."""
        layout, known = self._firsts.get(pool, (-1, {}))
        if layout != pool.layout:
            known = {}
            self._firsts[pool] = (pool.layout, known)
        if shape not in known:
            idle = pool.idle(closed=False)
            nodes = idle.reach(shape)
            known[shape] = next((rung for rung in (0, 1) if self.on(rung, shape, idle, nodes) is not None), 2)
        return known[shape]

    def on(self, rung: int, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """A placement on a rung: 0 = one node, 1 = one domain of the level, 2 = anywhere."""
        if rung > 1 or shape.num_nodes == 1:
            return self._smallest(shape, pool, nodes)
        if hopeless(shape, pool, nodes):
            return None
        if not rung:
            if not shape.num_nodes:
                return self.inner(shape, pool, nodes) if shape.gpus <= largest(shape, pool, nodes) else None
            number = machine(shape, pool, nodes)
            return None if number < 0 else self.inner(shape, pool, 1 << number)
        close = self._close.get(shape)
        if close is None:
            close = self._close[shape] = replace(shape, topology=TopologyWish("required", self.level))
        for allowed in choices(close, pool):
            if allowed & nodes:
                placement = self._smallest(close, pool, allowed & nodes)
                if placement is not None:
                    return placement
        return None


class LadderFinder:
    """The ladder at one moment."""

    lacks = Token.TOPOLOGY_UNSATISFIED

    def __init__(self, ladder: Ladder, now: float, pool: Pool) -> None:
        self._ladder = ladder
        self._now = now
        self._pool = pool

    def place(self, job: Job, nodes: int) -> Placement | None:
        """On the rung that the job has come to."""
        return self._ladder.on(self.alike(job), job.shape, self._pool, nodes)

    def alike(self, job: Job) -> int:
        """The rung."""
        rack, anywhere = self._ladder.patience(job.shape)
        reached = (self._now >= job.queued + rack) + (self._now >= job.queued + anywhere)
        return max(reached, self._ladder.first(job.shape, self._pool))

    def took(self, job: Job, placement: Placement) -> None:
        """Changes nothing."""

    def until(self, job: Job) -> float:
        """When its patience ends."""
        ends = [job.queued + wait for wait in self._ladder.patience(job.shape)]
        return min([end for end in ends if end > self._now], default=math.inf)
