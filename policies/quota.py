"""What the queues of a tree hold, counted as jobs come and go, and what they may still take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tree import Tree


def milli(amount: float) -> int:
    """GPUs as whole thousandths."""
    return round(amount * 1000)


class Usage:
    """What the queues of one tree hold, by flavour. Counts are whole thousandths of a GPU, so nothing drifts.

    Each operation costs O(depth of the tree).

    A queue's usage counts against its parent's from where it exceeds what the queue never lends. `add` and `remove`
    undo each other exactly, in any order.
    """

    __slots__ = ("_held", "_tree")

    def __init__(self, tree: Tree, held: dict[str, list[int]] | None = None) -> None:
        self._tree = tree
        self._held = {flavour: [0] * len(tree.queues) for flavour in tree.flavours} if held is None else held

    def of(self, queue: str, flavour: str) -> float:
        """What a queue holds; for one with queues below it, what they hold beyond what they never lend."""
        held = self._held.get(flavour)
        return 0.0 if held is None else held[self._tree.number(queue)] / 1000

    def add(self, queue: str, flavour: str, amount: float) -> None:
        """A gang of this queue takes so many GPUs of a flavour. A flavour without quotas is not counted."""
        self._change(queue, flavour, milli(amount))

    def remove(self, queue: str, flavour: str, amount: float) -> None:
        """It gives them back."""
        self._change(queue, flavour, -milli(amount))

    def _change(self, queue: str, flavour: str, amount: int) -> None:
        held = self._held.get(flavour)
        if held is None:
            return
        bounds = self._tree.bounds[flavour]
        for number in self._tree.paths[self._tree.number(queue)]:
            kept = bounds[number].kept
            before = max(0, held[number] - kept)
            held[number] += amount
            amount = max(0, held[number] - kept) - before
            if not amount:
                return

    def headroom(self, queue: str, flavour: str) -> float:
        """See `Tree.headroom`."""
        found = self.headroom_milli(queue, flavour)
        return math.inf if found is None else found / 1000

    def fits(self, queue: str, flavour: str, amount: float) -> bool:
        """Whether so many GPUs more are within the headroom."""
        room = self.headroom_milli(queue, flavour)
        return room is None or milli(amount) <= room

    def headroom_milli(self, queue: str, flavour: str) -> int | None:
        """The headroom in thousandths of a GPU; None = no limit."""
        tree = self._tree
        path = tree.paths[tree.number(queue)]
        held = self._held.get(flavour)
        if held is None or not tree.limited(path[-1], flavour):
            return None
        bounds = tree.bounds[flavour]
        root = path[-1]
        room = bounds[root].subtree - held[root]
        for number in path[-2::-1]:
            _, kept, most = bounds[number]
            over = held[number] - kept
            if most is not None:
                room = min(room, most - max(0, over))
            room += max(0, -over)
        return room

    def over_nominal(self, queue: str, flavour: str, extra: float = 0.0) -> float:
        """GPUs that a queue would hold beyond its nominal quota with `extra` more; 0 = it borrows none.

        For a queue with queues below it, beyond what it and they have together.
        """
        held = self._held.get(flavour)
        number = self._tree.number(queue)
        if held is None or not self._tree.limited(self._tree.paths[number][-1], flavour):
            return 0.0
        return max(0, held[number] + milli(extra) - self._tree.bounds[flavour][number].subtree) / 1000

    def copy(self) -> Usage:
        """The same counts, to try on."""
        return Usage(self._tree, {flavour: held.copy() for flavour, held in self._held.items()})
