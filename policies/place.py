"""Where a gang goes: first fit, best fit, spread, or by count alone. A gang is all or nothing.

Each placer takes a shape, the pool and the nodes it may use (a bit set), and answers with a whole placement or None.
It may try on the pool (inside the engine's trial) but leaves it as it found it.

A shape with num_nodes = 0 gives only a total of GPUs, as most traces do. With nodes of G GPUs (the largest size
among the nodes that its type and labels allow) a total of g <= G stays on one node, and a larger one takes g // G idle
nodes of that size in order of number and puts the remainder on one further node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Protocol

from ..cluster.pool import Pool, bits, piece_needs
from ..jobs.job import Piece, Placement, Shape
from .placers import SCORED
from .placers.gangs import largest, pieces_now
from .placers.ladder import Ladder
from .placers.levels import Smallest


class Placer(Protocol):
    """A rule for where a gang goes."""

    def __call__(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """A placement on `nodes` (a bit set), whole, or None when it does not fit now."""
        ...


def first_fit(shape: Shape, pool: Pool, nodes: int) -> Placement | None:
    """Each piece on the lowest-numbered node with room."""
    gpus = shape.gpus
    if shape.plain and shape.num_nodes <= 1 and (gpus <= 1 or gpus <= largest(shape, pool, nodes)):
        room = 0
        for bucket in pool.buckets[gpus:]:
            room |= bucket
        room &= nodes
        return alone((room & -room).bit_length() - 1, gpus) if room else None
    if shape.num_nodes == 0:
        return _split(shape, pool, nodes, _lowest, _lowest)
    if shape.num_nodes == 1:
        return _one(shape, pool, nodes, _lowest)
    return _piece_by_piece(shape, pool, nodes, _lowest)


def best_fit(shape: Shape, pool: Pool, nodes: int) -> Placement | None:
    """Bin packing: the fewest GPUs left over, then the fewest nodes; what fits on one node is never split.

    One piece goes to the node with the least sufficient room, the lowest number first. A gang of several pieces goes to
    the tightest single node that holds all of it, else to the nodes that hold the most pieces. The remainder
    of a split total goes to the further node with the most GPUs free, as in the published simulators.
    """
    gpus = shape.gpus
    if shape.plain and shape.num_nodes <= 1 and (gpus <= 1 or gpus <= largest(shape, pool, nodes)):
        for bucket in pool.buckets[gpus:]:
            room = bucket & nodes
            if room:
                return alone((room & -room).bit_length() - 1, gpus)
        return None
    if shape.num_nodes == 0:
        return _split(shape, pool, nodes, _tightest, _roomiest)
    if shape.num_nodes == 1:
        return _one(shape, pool, nodes, _tightest)
    return _fewest_nodes(shape, pool, nodes)


def best_fit_idle_gang(shape: Shape, pool: Pool, nodes: int) -> Placement | None:
    """Best fit, and a total that needs several nodes takes idle ones only, for its remainder too.

    As some published simulators have it: a gang of 12 on nodes of 8 waits for two idle nodes. Others may come beside
    the remainder later.
    """
    if shape.num_nodes == 0 and shape.gpus > largest(shape, pool, nodes):
        return _split(shape, pool, nodes, _tightest, _idle)
    return best_fit(shape, pool, nodes)


def spread(shape: Shape, pool: Pool, nodes: int) -> Placement | None:
    """Each piece on the node with the most GPUs free, and on a node of its own while there are any."""
    if shape.num_nodes == 0:
        return _split(shape, pool, nodes, _roomiest, _roomiest)
    if shape.num_nodes == 1:
        return _one(shape, pool, nodes, _roomiest)
    return _piece_by_piece(shape, pool, nodes, _roomiest, apart=True)


def count(shape: Shape, pool: Pool, nodes: int) -> Placement | None:
    """Only the total of free GPUs matters: a total is cut wherever GPUs are free. A yardstick, not for real jobs.

    Jobs that say in which pieces they come, or need more than GPUs, cannot be cut so: they go by first fit.
    """
    wanted = shape.gpus
    if shape.num_nodes or not shape.plain or not wanted:
        return first_fit(shape, pool, nodes)
    if pool.free_on(nodes) < wanted:
        return None
    pieces: list[Piece] = []
    for free in range(len(pool.buckets) - 1, 0, -1):
        for number in bits(pool.buckets[free] & nodes):
            if wanted == 0:
                break
            piece = Piece(number, min(free, wanted))
            pieces.append(piece)
            wanted -= piece.gpus
    return tuple(pieces)


# One piece -----------------------------------------------------------------------------------------------------------

Search = Callable[[Pool, int, int], Iterable[int]]
"""(pool, whole GPUs, allowed nodes) -> numbers of nodes with that many free, in order of preference."""


def _lowest(pool: Pool, gpus: int, nodes: int) -> Iterable[int]:
    room = 0
    for bucket in pool.buckets[gpus:]:
        room |= bucket
    room &= nodes
    return bits(room) if room else ()


def _idle(pool: Pool, gpus: int, nodes: int) -> Iterable[int]:
    for size in range(gpus, len(pool.buckets)):
        yield from bits(pool.buckets[size] & pool.sizes.get(size, 0) & nodes)


def _tightest(pool: Pool, gpus: int, nodes: int) -> Iterable[int]:
    for bucket in pool.buckets[gpus:]:
        room = bucket & nodes
        if room:
            yield from bits(room)


def _roomiest(pool: Pool, gpus: int, nodes: int) -> Iterable[int]:
    for bucket in pool.buckets[: gpus - 1 if gpus else None : -1]:
        room = bucket & nodes
        if room:
            yield from bits(room)


def _one(shape: Shape, pool: Pool, nodes: int, search: Search) -> Placement | None:
    """A piece on one node, by the order that `search` gives."""
    if shape.gpu_milli:
        return _share(shape, pool, nodes, search)
    gpus = shape.gpus
    for number in search(pool, gpus, nodes):
        if (not shape.cpu_milli or shape.cpu_milli <= pool.cpu[number]) and (
            not shape.memory or shape.memory <= pool.memory[number]
        ):
            return alone(number, gpus)
    return None


@cache
def alone(number: int, gpus: int) -> Placement:
    """A gang of one piece. The same few recur a million times in a replay: each is made once."""
    return (Piece(number, gpus),)


def _share(shape: Shape, pool: Pool, nodes: int, search: Search) -> Placement | None:
    """A part of one GPU: an open GPU with the least sufficient part free, else a free GPU on a used node, else any."""
    milli, best = shape.gpu_milli, None
    for number in bits(pool.sharing & nodes):
        if shape.cpu_milli > pool.cpu[number] or shape.memory > pool.memory[number]:
            continue
        for slot, left in pool.open[number].items():
            if left >= milli and (best is None or (left, number, slot) < best):
                best = (left, number, slot)
    if best is not None:
        return (Piece(best[1], 0, milli, best[2]),)
    for number in search(pool, 1, nodes):
        if shape.cpu_milli <= pool.cpu[number] and shape.memory <= pool.memory[number]:
            slots = pool.open[number]
            slot = next(slot for slot in range(len(slots) + 1) if slot not in slots)
            return (Piece(number, 0, milli, slot),)
    return None


# Several pieces ------------------------------------------------------------------------------------------------------


def _split(shape: Shape, pool: Pool, nodes: int, one: Search, remainder: Search) -> Placement | None:
    """A total of GPUs: one node, or whole idle nodes and one remainder."""
    gpus = shape.gpus
    size = largest(shape, pool, nodes)
    if gpus <= size or not size:
        return _one(shape, pool, nodes, one)
    whole, rest = divmod(gpus, size)
    idle = pool.buckets[size] & pool.sizes[size] & nodes
    if idle.bit_count() < whole:
        return None
    fitting = (piece for number in bits(idle) if _has_cpu(shape, pool, piece := Piece(number, size)))
    pieces = list(islice(fitting, whole))
    if len(pieces) < whole:
        return None
    if rest:
        others = nodes & ~sum(1 << piece.node for piece in pieces)
        last = (p for number in remainder(pool, rest, others) if _has_cpu(shape, pool, p := Piece(number, rest)))
        pieces += islice(last, 1)
        if len(pieces) == whole:
            return None
    return tuple(pieces)


def _has_cpu(shape: Shape, pool: Pool, piece: Piece) -> bool:
    cpu, memory = piece_needs(shape, piece)
    return cpu <= pool.cpu[piece.node] and memory <= pool.memory[piece.node]


def _piece_by_piece(shape: Shape, pool: Pool, nodes: int, search: Search, *, apart: bool = False) -> Placement | None:
    """Place one piece after another on the pool itself, and take all back. `apart` prefers a node for each piece."""
    single = Shape(1, shape.gpus, shape.gpu_milli, (), shape.cpu_milli, shape.memory)
    pieces: list[Piece] = []
    fresh = nodes
    with pool.trial():
        for _ in range(shape.num_nodes):
            found = _one(single, pool, fresh, search) if apart or shape.distinct else None
            if found is None and not shape.distinct:
                found = _one(single, pool, nodes, search)
            if found is None:
                return None
            pool.take(single, found)
            pieces.append(found[0])
            fresh &= ~(1 << found[0].node)
    return tuple(pieces)


def _fewest_nodes(shape: Shape, pool: Pool, nodes: int) -> Placement | None:
    """Best fit for a gang: the tightest node that holds all that is left, else the node that holds the most pieces."""
    if shape.distinct:
        return _piece_by_piece(shape, pool, nodes, _tightest)
    gpus, left = shape.gpus, shape.num_nodes
    pieces: list[Piece] = []
    while left:
        number, fitting = _holding(shape, pool, nodes, left)
        if not fitting:
            return None
        if shape.gpu_milli:
            shared = _piece_by_piece(replace(shape, num_nodes=fitting), pool, 1 << number, _tightest)
            assert shared is not None, "a node holds as many pieces as were counted there"
            pieces += shared
        else:
            pieces += [Piece(number, gpus)] * fitting
        left -= fitting
        nodes ^= 1 << number
    return tuple(pieces)


def _holding(shape: Shape, pool: Pool, nodes: int, left: int) -> tuple[int, int]:
    """(node, pieces it takes): the tightest that takes all of `left`, else the tightest of those that take the most."""
    best, most = -1, 0
    gpus = shape.gpus
    for free, bucket in enumerate(pool.buckets[gpus:], gpus):
        room = bucket & nodes
        if not room or (gpus and min(free // gpus, left) <= most):
            continue
        for number in bits(room):
            fitting = min(pieces_now(shape, pool, number, free), left)
            if fitting > most:
                best, most = number, fitting
            if shape.plain or most == left:
                break
        if most == left:
            break
    return best, most


PLACERS: dict[str, Placer] = {
    "first_fit": first_fit,
    "best_fit": best_fit,
    "best_fit_idle_gang": best_fit_idle_gang,
    "spread": spread,
    "count": count,
    "topology": Smallest(best_fit),
    "ladder": Ladder(best_fit),
    **SCORED,
}
"""The menu of placements by name."""

GATHERING: tuple[Placer, ...] = (first_fit, best_fit, best_fit_idle_gang, spread)
"""Placers that put each piece, and a total that fits one node, on one node."""
