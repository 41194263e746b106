"""What a job that does not fit withholds from those behind it: everything, nothing, or the nodes it waits for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from ..cluster.pool import Pool, bits
from ..jobs.job import Job


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
        together = 0
        for nodes in pool.allowed(job.shape):
            together |= nodes
        return together

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
            held = missing = 0
            missing = max(int(shape.total_gpus + 0.999), 1)
            pieces = max(shape.num_nodes, 1) if shape.distinct else 1
            for free in range(len(pool.buckets) - 1, -1, -1):
                for number in bits(pool.buckets[free] & nodes):
                    if missing <= 0 and pieces <= 0:
                        return held
                    size = pool.nodes[number].gpus
                    usable = size // shape.gpus * shape.gpus if shape.num_nodes and shape.gpus else size
                    if usable == 0 and shape.gpus:
                        continue
                    held |= 1 << number
                    missing -= usable or 1
                    pieces -= 1
            if missing <= 0 and pieces <= 0:
                return held
        return 0

    def until(self, job: Job) -> float:  # noqa: ARG002 - the protocol's
        """Never changes."""
        return math.inf
