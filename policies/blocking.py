"""What a job that does not fit withholds from those behind it: everything, nothing, or the nodes it waits for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from ..cluster.backend import Node
from ..cluster.holding import pieces_when_idle
from ..cluster.pool import Pool, bits, piece_needs
from ..jobs.job import Job, Piece, Shape
from .placers.gangs import largest


class Blocking(Protocol):
    """A blocking rule."""

    @property
    def name(self) -> str:
        """The rule and its numbers, as reports show it."""
        ...

    @property
    def by_class(self) -> bool:
        """Whether jobs of the blocked one's size class wait behind it, whatever is free."""
        ...

    def withheld(self, job: Job, now: float, pool: Pool, already: int) -> int:
        """Nodes (a bit set) that later jobs may not use because `job` waits; `already` are withheld by others."""
        ...

    def until(self, job: Job) -> float:
        """The time at which the answer for `job` may change although nothing happened; infinity = never."""
        ...


@dataclass(frozen=True, slots=True)
class Strict:
    """Nobody ever overtakes: the first job that does not fit blocks all behind it."""

    name: str = "strict"
    by_class: bool = False

    def withheld(self, job: Job, now: float, pool: Pool, already: int) -> int:  # noqa: ARG002 - the protocol's
        """Every node."""
        return pool.up

    def until(self, job: Job) -> float:  # noqa: ARG002 - the protocol's
        """Never changes."""
        return math.inf


@dataclass(frozen=True, slots=True)
class Skip:
    """Jobs that do not fit are passed over. After `age_limit` seconds in the queue one blocks all that compete with it.

    A job that competes is one that could use a node which the old one may use; so an old job for H100s holds up
    nobody who asks for other GPUs.
    """

    age_limit: float = math.inf
    by_class: bool = False

    @property
    def name(self) -> str:
        """With its limit, if there is one."""
        return "skip" if math.isinf(self.age_limit) else f"skip, {self.age_limit / 3600:g} h age limit"

    def withheld(self, job: Job, now: float, pool: Pool, already: int) -> int:  # noqa: ARG002 - the protocol's
        """Nothing while it is young, then every node that it may use."""
        if now < job.submitted + self.age_limit:
            return 0
        return pool.reach(job.shape)

    def until(self, job: Job) -> float:
        """When it gets old."""
        return job.submitted + self.age_limit


@dataclass(frozen=True, slots=True)
class Earmark:
    """A blocked gang earmarks the nodes closest to holding it; what comes later uses only the others.

    See `catalog.gang` for the rule as a whole and why no gang starves under it.
    """

    name: str = "strict in its size class, earmarks nodes"
    by_class: bool = True

    def withheld(self, job: Job, now: float, pool: Pool, already: int) -> int:  # noqa: ARG002 - the protocol's
        """As many nodes as an idle cluster would need for it: those with the most GPUs free, lowest number first."""
        shape = job.shape
        for allowed in pool.allowed(shape):
            nodes = allowed & ~already
            if shape.plain and shape.num_nodes <= 1 and shape.gpus <= largest(shape, pool, nodes):
                held = _roomiest(pool, nodes, shape.gpus)
            else:
                held = _closest(shape, pool, nodes, largest(shape, pool, nodes))
            if held:
                return held
        return 0

    def until(self, job: Job) -> float:  # noqa: ARG002 - the protocol's
        """Never changes."""
        return math.inf


def _roomiest(pool: Pool, nodes: int, gpus: int) -> int:
    """Of the nodes that have so many GPUs, the one with the most free, lowest number first, as a bit set."""
    for bucket in reversed(pool.buckets):
        for number in bits(bucket & nodes):
            if pool.nodes[number].gpus >= gpus:
                return 1 << number
    return 0


def _closest(shape: Shape, pool: Pool, nodes: int, size: int) -> int:
    """As many nodes as hold the gang when idle, those with the most GPUs free first; 0 = not even all of them do.

    A node that could take no piece of it when idle is passed over. `size` is that of the largest node it may use.
    """
    held = 0
    split = shape.num_nodes == 0 and shape.gpus > size > 0
    whole, rest = divmod(shape.gpus, size) if split else (0, 0)
    left = whole + (rest > 0) if split else max(shape.num_nodes, 1)
    for bucket in reversed(pool.buckets):
        for number in bits(bucket & nodes):
            node = pool.nodes[number]
            if not split:
                holds = pieces_when_idle(shape, node)
            elif whole and node.gpus == size and _holds(shape, node, Piece(number, size)):
                holds, whole = 1, whole - 1
            elif rest and node.gpus >= rest and _holds(shape, node, Piece(number, rest)):
                holds, rest = 1, 0
            else:
                holds = 0
            if holds:
                held |= 1 << number
                left -= holds
                if left <= 0:
                    return held
    return 0


def _holds(shape: Shape, node: Node, piece: Piece) -> bool:
    cpu, memory = piece_needs(shape, piece)
    return cpu <= node.cpu_milli and memory <= node.memory
