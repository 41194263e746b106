"""What placements by score remember of a pool: its nodes as scores see them, and each shape's ranking of the nodes.

A score looks at one node at a time, so a decision changes the rank of the nodes that it touched and of no other. The
pool says which they are (`Pool.trail`); a ranking catches up when it is next asked for. All of it follows from the pool
as it is: a memory that starts anew ranks alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ...cluster.pool import WHOLE, Pool
from ...jobs.job import Shape

_RANKINGS = 2_000
"""Rankings kept of one pool; with more shapes than that all are made anew now and then."""


class Room:
    """One node as a score sees it.

    Attributes:
        name: the node's name; gpus, cpu_milli, memory_bytes: what it has; gpu_type as it is written.
        free: whole GPUs free.
        parts: thousandths free of each shared GPU, least first.
        slots: the number of each of these GPUs, in the same order.
        idle: thousandths of GPUs free, whole ones and parts.
        cpu: thousandths of a CPU free; memory: bytes free.
        held: the sizes of the whole-GPU pieces that are there, in order.
    """

    __slots__ = (
        "cpu",
        "cpu_milli",
        "free",
        "gpu_type",
        "gpus",
        "held",
        "idle",
        "memory",
        "memory_bytes",
        "name",
        "parts",
        "slots",
    )

    def __init__(self, pool: Pool, number: int) -> None:
        node = pool.nodes[number]
        self.name = node.name
        self.gpus, self.cpu_milli, self.memory_bytes = node.gpus, node.cpu_milli, node.memory
        self.gpu_type = node.gpu_type
        self.free = pool.free[number]
        self.cpu = pool.cpu[number]
        self.memory = pool.memory[number]
        self.held = tuple([size for size, pieces in enumerate(pool.sizes_held[number]) if pieces and size])
        shared = sorted((left, slot) for slot, left in pool.open[number].items())
        self.parts = tuple([left for left, _ in shared])
        self.slots = tuple([slot for _, slot in shared])
        self.idle = self.free * WHOLE + sum(self.parts)

    def state(self) -> tuple[object, ...]:
        """What may change while the node stays as it is laid out; numbers only."""
        return self.free, self.cpu, self.memory, self.held, self.parts, self.slots

    def holds(self, shape: Shape) -> bool:
        """Whether one piece of the shape fits here now."""
        if shape.cpu_milli > self.cpu or shape.memory > self.memory:
            return False
        if shape.gpu_milli:
            return self.free > 0 or bool(self.parts and self.parts[-1] >= shape.gpu_milli)
        return shape.gpus <= self.free

    def unused_slot(self) -> int:
        """The number that a GPU gets that is shared from now on: the lowest that none has."""
        slot = 0
        while slot in self.slots:
            slot += 1
        return slot


class Largest(NamedTuple):
    """The most that one node of the pool has: what scores divide by, so that dimensions compare. 0 = nothing of it."""

    cpu_milli: int
    gpu_milli: int
    memory: int


Score = Callable[[Room, Shape, Largest], int]
"""(node, one piece's shape, largest node) -> the higher the better, of a node that holds the piece."""


class Ranking:
    """The nodes that hold one piece of a shape, by score."""

    __slots__ = ("by_node", "by_score", "seen")

    def __init__(self) -> None:
        self.by_node: list[int | None] = []
        self.by_score: dict[int, int] = {}
        self.seen = -1

    def put(self, number: int, score: int | None) -> None:
        """A node's score changed; None = it does not hold the piece."""
        old = self.by_node[number]
        if old == score:
            return
        bit = 1 << number
        if old is not None:
            left = self.by_score[old] ^ bit
            if left:
                self.by_score[old] = left
            else:
                del self.by_score[old]
        if score is not None:
            self.by_score[score] = self.by_score.get(score, 0) | bit
        self.by_node[number] = score

    def best(self, nodes: int) -> int:
        """Those of `nodes` with the highest score (a bit set); 0 = none of them holds the piece."""
        for score in sorted(self.by_score, reverse=True):
            found = self.by_score[score] & nodes
            if found:
                return found
        return 0


class Rooms:
    """The nodes of one pool and their rankings, kept up with it."""

    def __init__(self) -> None:
        self.rooms: list[Room] = []
        self.largest = Largest(0, 0, 0)
        self.in_name_order = True
        self.digest = 0
        self._layout = -1
        self._there = 0
        self._clock = 0
        self._touched: dict[int, int] = {}  # node -> when it changed, the latest last
        self._rankings: dict[tuple[Score, Shape], Ranking] = {}

    def catch_up(self, pool: Pool) -> None:
        """Look again at the nodes that were touched; at all of them when one came, went or changed."""
        trail = pool.trail
        if trail is None or self._layout != pool.layout:
            pool.trail = []
            self._lay_out(pool)
        elif trail:
            numbers = {piece.node for placement in trail for piece in placement}
            trail.clear()
            for number in sorted(numbers):
                self._look(pool, number)

    def _lay_out(self, pool: Pool) -> None:
        self._layout = pool.layout
        self._rankings.clear()
        self._touched.clear()
        self.rooms = [Room(pool, number) for number in range(len(pool.nodes))]
        self._there = pool.present
        there = [room for number, room in enumerate(self.rooms) if pool.present >> number & 1]
        self.largest = Largest(
            max((room.cpu_milli for room in there), default=0),
            max((room.gpus for room in there), default=0) * WHOLE,
            max((room.memory_bytes for room in there), default=0),
        )
        names = [room.name for room in self.rooms]
        self.in_name_order = names == sorted(names)
        self.digest = 0
        for number, room in enumerate(self.rooms):
            self.digest ^= hash((number, room.state()))

    def _look(self, pool: Pool, number: int) -> None:
        old, new = self.rooms[number], Room(pool, number)
        before, after = old.state(), new.state()
        if before == after:
            return  # tried and taken back
        self.rooms[number] = new
        self.digest ^= hash((number, before)) ^ hash((number, after))
        self._clock += 1
        self._touched.pop(number, None)
        self._touched[number] = self._clock

    def ranking(self, score: Score, shape: Shape) -> Ranking:
        """The nodes by this score for one piece of this shape, as they are now."""
        found = self._rankings.get((score, shape))
        if found is None:
            if len(self._rankings) >= _RANKINGS:
                self._rankings.clear()
            found = self._rankings[score, shape] = Ranking()
            found.by_node = [None] * len(self.rooms)
            self._rank(found, range(len(self.rooms)), score, shape)
        elif found.seen != self._clock:
            changed: list[int] = []
            for number in reversed(self._touched):
                if self._touched[number] <= found.seen:
                    break
                changed.append(number)
            self._rank(found, changed, score, shape)
        found.seen = self._clock
        return found

    def _rank(self, ranking: Ranking, numbers: range | list[int], score: Score, shape: Shape) -> None:
        rooms, largest = self.rooms, self.largest
        for number in numbers:
            room = rooms[number]
            holds = self._there >> number & 1 and room.holds(shape)
            ranking.put(number, score(room, shape, largest) if holds else None)


_KNOWN: WeakKeyDictionary[Pool, Rooms] = WeakKeyDictionary()


def rooms_of(pool: Pool) -> Rooms:
    """The rooms of a pool, as it is now."""
    known = _KNOWN.get(pool)
    if known is None:
        known = _KNOWN[pool] = Rooms()
        pool.trail = None
    known.catch_up(pool)
    return known
