"""The machines of a storm as they are: there, dead, cut off with their processes alive, ill, or with a GPU that is not
well. What is told of them is another matter (storm_link.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from gpusched.cluster.backend import Node
from gpusched.jobs.job import Placement


class BrokenError(AssertionError):
    """Something happened that never may."""


class Held(Protocol):
    """What holds GPUs: an attempt that lives, also on a machine that is cut off."""

    placement: Placement
    nodes: tuple[str, ...]


@dataclass(slots=True)
class Machine:
    """One machine.

    Attributes:
        node: as it was built.
        away: the cluster does not see it; cut: it is well all the same, and what runs there goes on.
        dirty: GPUs that are not well, or that processes hold which nobody can end. ill: why it takes no work.
    """

    node: Node
    away: bool = False
    cut: bool = False
    dirty: int = 0
    ill: str = ""

    def seen(self) -> Node:
        """As its agent reports it."""
        node = self.node
        if self.dirty:
            fenced = tuple((node.gpus - 1 - gpu, "memory in use by nobody") for gpu in reversed(range(self.dirty)))
            node = replace(node, gpus=node.gpus - self.dirty, fenced=fenced)
        return replace(node, schedulable=False, why=self.ill) if self.ill else node


@dataclass(slots=True)
class Machines:
    """All of them, by name."""

    all: dict[str, Machine] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> Machines:
        """As built."""
        return cls({node.name: Machine(node) for node in nodes})

    def reachable(self, names: Iterable[str]) -> bool:
        """Whether the cluster sees all of these."""
        return not any(self.all[name].away for name in names)

    def crowded(self, held: Iterable[Held]) -> str:
        """Which node gives more than it has now; empty = none does.

        Raises:
            BrokenError: a node gives more GPUs than were ever built into it, or a shared GPU more than all of itself.
        """
        whole: dict[str, int] = {}
        shared: dict[tuple[str, int], int] = {}
        for one in held:
            for piece, name in zip(one.placement, one.nodes, strict=True):
                whole[name] = whole.get(name, 0) + piece.gpus
                if piece.gpu_milli:
                    slot = (name, piece.slot)
                    shared[slot] = shared.get(slot, 0) + piece.gpu_milli
        for (name, slot), milli in shared.items():
            whole[name] = whole.get(name, 0) + 1
            if milli > 1000:
                raise BrokenError(f"GPU {slot} of {name} has owners for {milli} thousandths of it")
        crowded = ""
        for name, gpus in whole.items():
            machine = self.all[name]
            if gpus > machine.node.gpus:
                raise BrokenError(f"{gpus} GPUs of {name} have owners, and it has {machine.node.gpus}")
            if gpus > machine.node.gpus - machine.dirty:
                crowded = name
        return crowded
