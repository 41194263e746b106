"""Where room could be made for a gang, remembered from pass to pass: a hopeless claim is refused at little cost.

A piece of a gang can be placed on a node only if what is free there, and what running jobs later in the order hold
there, is together enough. Whether it is changes only on nodes where a job started or ended, or took another place in
the order. So each group of waiting jobs keeps the nodes that could do, and looks again only at those that changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..cluster.pool import Pool, bits
from ..jobs.job import Shape

if TYPE_CHECKING:
    from .order import Order
    from .queue import Group, Key, Queue


class _Known(NamedTuple):
    """What was found for a group.

    Attributes:
        key: of the job for which it was found; it holds for later ones too. size: GPUs on one node that were asked for.
        at: how far the trail of changed nodes was taken into account. layout: the pool's.
        nodes: those that could do, as a bit set.
    """

    key: Key
    size: int
    at: int
    layout: int
    nodes: int


class Reach:
    """The nodes on which room could be made for a piece, for each group of one queue."""

    def __init__(self) -> None:
        self._known: dict[Group, _Known] = {}
        self._pieces: dict[Group, tuple[int, int, int]] = {}

    def pieces(self, group: Group, pool: Pool) -> tuple[int, int]:
        """GPUs that a gang needs on one node, and on how many nodes at least; 0 = that says nothing about it."""
        found = self._pieces.get(group)
        if found is None or found[0] != pool.layout:
            found = self._pieces[group] = (pool.layout, *_pieces(group.shape, pool))
        return found[1], found[2]

    def known(self, group: Group, key: Key, size: int, pool: Pool, queue: Queue) -> bool:
        """Whether little has to be looked at to answer `nodes`."""
        found = self._known.get(group)
        return (
            found is not None
            and found.key <= key
            and found.size == size
            and found.layout == pool.layout
            and found.at >= queue.running.trail_begins
        )

    def nodes(self, group: Group, key: Key, size: int, *, pool: Pool, queue: Queue, order: Order, now: float) -> int:
        """Nodes (a bit set) with `size` GPUs that are free, or held by jobs later than `key` or on their way out.

        They may be too many, never too few: minimum run times and CPUs are not looked at.
        """
        running = queue.running
        if self.known(group, key, size, pool, queue):
            found = self._known[group]
            nodes = found.nodes
            changed = set(running.trail[found.at - running.trail_begins :])
        else:
            nodes = 0
            changed = set(bits(pool.up))
        vacating, kept = running.vacating, running.keys if order.keeps else None
        for number in changed:
            room = pool.free[number]
            if room < size:
                for job, gpus in running.on_node.get(number, {}).values():
                    if job.id in vacating or (
                        job.preemptible and (order.running(job, now, queue) if kept is None else kept[job.id]) > key
                    ):
                        room += gpus
                        if room >= size:
                            break
            if room >= size:
                nodes |= 1 << number
            else:
                nodes &= ~(1 << number)
        self._known[group] = _Known(key, size, running.trail_begins + len(running.trail), pool.layout, nodes)
        return nodes


def _pieces(shape: Shape, pool: Pool) -> tuple[int, int]:
    if shape.num_nodes:
        return shape.gpus, shape.num_nodes if shape.distinct else 1
    sizes = [pool.node_size(allowed) for allowed in pool.allowed(shape)]
    if not sizes:
        return 0, 0  # nowhere: no domain of its topology is open
    size = min(sizes)
    return (shape.gpus, 1) if shape.gpus <= size else (size, shape.gpus // max(sizes))
