"""Nodes that fail and are repaired, each by a stream of chance of its own."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from math import inf

from .backend import Node, NodeChange
from .chance import exponential
from .profile import Failures


class NodeFaults:
    """When which node goes and comes back, from time 0 on.

    A node that is up fails after a time from the exponential distribution with its mean; repair takes a fixed time.
    What runs on it has no part in it.

    Attributes:
        down: names of the nodes that are being repaired.
    """

    def __init__(self, nodes: Sequence[Node], failures: Failures, seed: int) -> None:
        self.down: set[str] = set()
        self._nodes = nodes
        self._lives = [failures.life(node) for node in nodes]
        self._seed = seed
        self._counts = [0] * len(nodes)
        self._due = [
            (self._up_time(number), number) for number, life in enumerate(self._lives) if life.mtbf is not None
        ]
        heapify(self._due)

    @property
    def due(self) -> float:
        """When the next node goes or comes back; infinity = never."""
        return self._due[0][0] if self._due else inf

    def take(self) -> NodeChange:
        """The next change. Two at one time come in the order of the nodes."""
        time, number = self._due[0]
        node = self._nodes[number]
        gone = node.name not in self.down
        if gone:
            self.down.add(node.name)
            self._counts[number] += 1
            again = time + self._lives[number].repair
        else:
            self.down.remove(node.name)
            again = time + self._up_time(number)
        heapreplace(self._due, (again, number))
        return NodeChange(time, node, gone)

    def _up_time(self, number: int) -> float:
        mean = self._lives[number].mtbf
        assert mean is not None
        return exponential(mean, self._seed, "node", self._nodes[number].name, self._counts[number])
