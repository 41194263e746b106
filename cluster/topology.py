"""Which nodes lie together: the cluster's topology as a tree, read from the labels of its nodes.

The levels are node labels, from the widest to the narrowest, such as `pod`, `rail`, `rack`, `nvlink`; the machines are
the leaves below them, the level `node`. Labels that no node carries are no level. A domain is named by its path: rack 1
of pod a is another one than rack 1 of pod b. A node without a label lies in no domain of that level.

In a rail network GPU i of each node hangs on leaf switch i of its unit, so a gang inside one unit (label `rail`) needs
no spine as long as its pieces talk rail by rail. Which GPUs of a node a piece gets is not known when it is placed.
Hence a gang of whole nodes is sure to stay on its leaves inside a unit, and pieces of fewer GPUs may have to change
rails inside their nodes; across units all traffic crosses the spine. Fewest units is the best without GPU indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .backend import Node

LEVELS = ("pod", "rail", "rack", "nvlink")
"""Node labels that are levels unless a site says otherwise, the widest first."""

NODE = "node"
"""The level below all labels: each machine is a domain of its own."""


class Domain(NamedTuple):
    """A part of the cluster.

    Attributes:
        name: the values of the labels that lead to it, such as `a/r1`; of a machine its name.
        nodes: the nodes in it, a bit set.
    """

    name: str
    nodes: int


class Topology:
    """The tree over the nodes that are there, made anew for each layout of the pool.

    Args:
        nodes: by number.
        present: those that are there, a bit set.
        levels: labels, the widest first.

    Attributes:
        levels: of these labels the ones that a node carries, the widest first.
    """

    def __init__(self, nodes: Sequence[Node], present: int, levels: Sequence[str]) -> None:
        self._nodes = [(number, node) for number, node in enumerate(nodes) if present >> number & 1]
        self._count = len(nodes)
        self._asked = tuple(levels)
        self.levels = tuple(label for label in levels if any(label in node.labels for _, node in self._nodes))
        self._known: dict[str, tuple[tuple[Domain, ...], list[int], tuple[int, ...]]] = {}

    def domains(self, level: str) -> tuple[Domain, ...]:
        """The domains of a level (any label, or `node`), in the order of their first nodes; empty = no node has it."""
        return self._level(level)[0]

    def of(self, level: str) -> list[int]:
        """For each node by number the index of its domain in `domains`; -1 = it lies in none."""
        return self._level(level)[1]

    def parts(self, level: str) -> tuple[int, ...]:
        """The node sets of the domains, in their order, and last all nodes that lie in none of them."""
        return self._level(level)[2]

    def _level(self, level: str) -> tuple[tuple[Domain, ...], list[int], tuple[int, ...]]:
        found = self._known.get(level)
        if found is None:
            domains, of = self._made(level)
            sets = [domain.nodes for domain in domains]
            found = self._known[level] = (domains, of, (*sets, ~sum(sets)))
        return found

    def _made(self, level: str) -> tuple[tuple[Domain, ...], list[int]]:
        above = self.levels[: self.levels.index(level)] if level in self.levels else ()
        indices: dict[tuple[str, ...], int] = {}
        members: list[list[int]] = []
        of = [-1] * self._count
        for number, node in self._nodes:
            if level != NODE and level not in node.labels:
                continue
            path = (
                (node.name,)
                if level == NODE
                else (*(node.labels.get(label, "") for label in above), node.labels[level])
            )
            index = indices.setdefault(path, len(indices))
            if index == len(members):
                members.append([])
            members[index].append(number)
            of[number] = index
        domains = [
            Domain("/".join(filter(None, path)), sum(1 << number for number in numbers))
            for path, numbers in zip(indices, members, strict=True)
        ]
        return tuple(domains), of
