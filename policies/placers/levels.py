"""Placement by topology: the smallest part of the cluster that holds a gang, or a gang spread evenly over such parts.

The tree is `Pool.topology()`: machines below NVLink domains, racks, rail units, pods. Another placer puts the pieces on
the nodes of the part that was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heapreplace
from typing import Protocol

from ...cluster.pool import WHOLE, Pool, bits
from ...cluster.topology import NODE, Domain
from ...jobs.job import Placement, Shape
from .gangs import cut, largest, pieces_now, single


class Inner(Protocol):
    """What puts pieces on the nodes that it is given."""

    def __call__(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """A placement on `nodes` (a bit set), whole, or None when it does not fit now."""
        ...


class Smallest:
    """The smallest subtree that holds the gang: one machine, else one domain of the narrowest level that does it.

    Of several such domains the one that could take the fewest pieces of it more (best fit), then the first. A gang that
    fits in no domain of a level is put into as few of them as possible: the tightest that takes all that is left, else
    the one that takes the most, and in each of them again the smallest subtree. A total that the placer may cut goes
    by its whole nodes in the same way. It fits exactly when `inner` finds room for it on the nodes at large.

    Cost beside that of `inner`: a few operations on whole words a domain, only for gangs that enough is free for.

    Args:
        inner: puts the pieces on the nodes of the subtree.
    """

    def __init__(self, inner: Inner) -> None:
        self.inner = inner

    def __call__(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """A placement on `nodes` (a bit set), whole, or None when it does not fit now."""
        levels = pool.topology().levels
        wish = shape.topology
        if wish is not None and wish.mode == "required" and wish.level in levels:
            levels = levels[levels.index(wish.level) + 1 :]  # the nodes lie below one domain of it
        return closest(shape, pool, nodes, self.inner, levels)


def by_wish(shape: Shape, pool: Pool, nodes: int, inner: Inner) -> Placement | None:
    """What a job wishes of the topology, under any placer.

    `required` is seen to by the nodes that a shape may use (`Pool.allowed`). `preferred`: one machine, else the
    tightest domain of the level that holds it now, else of the next wider level, else anywhere. `balanced`: `evenly`.
    """
    wish = shape.topology
    if wish is None or wish.mode == "required":
        return inner(shape, pool, nodes)
    if wish.mode == "balanced":
        return evenly(shape, pool, nodes, wish.level, inner)
    levels = pool.topology().levels
    if wish.level in levels:
        levels = levels[: levels.index(wish.level) + 1]
    elif wish.level != NODE:
        levels = (*levels, wish.level)
    return closest(shape, pool, nodes, inner, levels)


def choices(shape: Shape, pool: Pool) -> Iterable[int]:
    """The node sets that a shape may use, in the order in which to try them: the preferred GPU type first.

    Of the domains of a required level only those that may have room, the tightest first.
    """
    allowed = pool.allowed(shape)
    wish = shape.topology
    if wish is None or wish.mode != "required" or not allowed:
        return allowed
    types = {kind.lower(): rank for rank, kind in reversed(list(enumerate(shape.gpu_types)))}
    of = pool.topology().of(wish.level)
    _, rooms = _rooms(shape, pool, pool.reach(shape), wish.level)
    wanted = _wanted(shape)
    if max(rooms[:-1]) < wanted:
        return ()
    found = []
    for at, nodes in enumerate(allowed):
        first = (nodes & -nodes).bit_length() - 1
        room = rooms[of[first]]
        if room >= wanted:
            found.append((types.get(pool.nodes[first].gpu_type.lower(), 0), room, at, nodes))
    return [nodes for *_, nodes in sorted(found)]


# The smallest subtree ------------------------------------------------------------------------------------------------


def closest(shape: Shape, pool: Pool, nodes: int, inner: Inner, levels: Sequence[str]) -> Placement | None:
    """As `Smallest`, by these levels alone, the widest first."""
    size = largest(shape, pool, nodes)
    if shape.num_nodes == 1 or (not shape.num_nodes and shape.gpus <= size):
        return inner(shape, pool, nodes)
    if hopeless(shape, pool, nodes, size):
        return None
    wanted = _wanted(shape, size)
    if shape.num_nodes and (number := machine(shape, pool, nodes)) >= 0:
        placement = inner(shape, pool, 1 << number)
        if placement is not None:
            return placement
    for at in range(len(levels) - 1, -1, -1):
        parts, rooms = _rooms(shape, pool, nodes, levels[at], size)
        for _, index in sorted((room, index) for index, room in enumerate(rooms[:-1]) if room >= wanted):
            placement = _within(shape, pool, nodes & parts[index], inner, levels[at + 1 :])
            if placement is not None:
                return placement
    return _within(shape, pool, nodes, inner, levels)


def _within(shape: Shape, pool: Pool, nodes: int, inner: Inner, levels: Sequence[str]) -> Placement | None:
    """In as few domains of the widest of these levels as possible; the gang fits in none of them alone."""
    while levels and not any(0 != nodes & part != nodes for part in pool.topology().parts(levels[0])):
        levels = levels[1:]
    if not levels:
        return inner(shape, pool, nodes)
    found = (_gathered if shape.num_nodes else _by_whole_nodes)(shape, pool, nodes, inner, levels)
    return inner(shape, pool, nodes) if found is None else found


def _gathered(shape: Shape, pool: Pool, nodes: int, inner: Inner, levels: Sequence[str]) -> Placement | None:
    """Piece by piece counted: the tightest domain that takes all that is left, else the one that takes the most."""
    parts, rooms = _rooms(shape, pool, nodes, levels[0])
    if shape.cpu_milli or shape.memory:
        of, rooms = pool.topology().of(levels[0]), [0] * len(parts)
        for free, bucket in enumerate(pool.buckets[shape.gpus :], shape.gpus):
            for number in bits(bucket & nodes):
                rooms[of[number]] += _takes(shape, pool, number, free)
    left = shape.num_nodes
    placed: list[Placement] = []
    while left:
        index = min(
            range(len(rooms)), key=[(room < left, room if room >= left else -room) for room in rooms].__getitem__
        )
        count = min(rooms[index], left)
        if not count:
            return None
        part = shape if count == shape.num_nodes else replace(shape, num_nodes=count)
        found = closest(part, pool, nodes & parts[index], inner, levels[1:])
        if found is None:
            return None
        placed.append(found)
        rooms[index] = 0
        left -= count
    return tuple(piece for pieces in placed for piece in pieces)


def _by_whole_nodes(shape: Shape, pool: Pool, nodes: int, inner: Inner, levels: Sequence[str]) -> Placement | None:
    """A total: the domains with the most idle nodes, until it fits in them."""
    parts, rooms = _rooms(shape, pool, nodes, levels[0], largest(shape, pool, nodes))
    together = 0
    for _, index in sorted((-room, index) for index, room in enumerate(rooms) if room):
        together |= nodes & parts[index]
        found = inner(shape, pool, together)
        if found is not None:
            return found
    return None


def machine(shape: Shape, pool: Pool, nodes: int) -> int:
    """The machine with the least sufficient room for the whole gang; -1 = none has it."""
    if shape.distinct:
        return -1
    least = shape.gpus * shape.num_nodes
    for free, bucket in enumerate(pool.buckets[least:], least):
        room = bucket & nodes
        if room and shape.plain:
            return (room & -room).bit_length() - 1
        for number in bits(room):
            if pieces_now(shape, pool, number, free) >= shape.num_nodes:
                return number
    return -1


# Counting ------------------------------------------------------------------------------------------------------------


def _takes(shape: Shape, pool: Pool, number: int, free: int) -> int:
    """Pieces that a node takes now."""
    fitting = pieces_now(shape, pool, number, free)
    return min(fitting, 1) if shape.distinct else fitting


def _wanted(shape: Shape, size: int = 0) -> int:
    """What has to fit: pieces, or of a total the whole nodes of `size` GPUs (0 = GPUs)."""
    if shape.num_nodes:
        return shape.num_nodes
    return shape.gpus // size if size else shape.gpus


def _each(shape: Shape, free: int) -> int:
    """Pieces that so many free GPUs could take; for a total GPUs."""
    if not shape.num_nodes:
        return free
    if shape.gpu_milli:
        fitting = free * (WHOLE // shape.gpu_milli)
    else:
        fitting = free // shape.gpus if shape.gpus else shape.num_nodes
    return min(fitting, 1) if shape.distinct else fitting


def _counted(shape: Shape, pool: Pool, nodes: int, size: int) -> Iterable[tuple[int, int]]:
    """(pieces, the nodes that take so many by their free GPUs); of a total (1, idle nodes of `size`)."""
    if size and not shape.num_nodes:
        yield 1, pool.buckets[size] & pool.sizes.get(size, 0) & nodes
        return
    least = shape.gpus if shape.num_nodes else 1
    for free, bucket in enumerate(pool.buckets[least:], least):
        room = bucket & nodes
        if room and (fitting := _each(shape, free)):
            yield fitting, room
    if shape.gpu_milli and (sharing := pool.sharing & nodes):
        for number in bits(sharing):
            yield sum(part // shape.gpu_milli for part in pool.open[number].values()), 1 << number


def _rooms(shape: Shape, pool: Pool, nodes: int, level: str, size: int = 0) -> tuple[tuple[int, ...], list[int]]:
    """The parts of a level (`Topology.parts`), and for each at most how many pieces it takes, by free GPUs.

    Exact for shapes that ask for no CPUs and memory.
    """
    parts, of = pool.topology().parts(level), pool.topology().of(level)
    rooms = [0] * len(parts)
    for fitting, room in _counted(shape, pool, nodes, size):
        if room.bit_count() <= len(parts):
            for number in bits(room):
                rooms[of[number]] += fitting  # -1, in no domain, is the last
        else:
            for index, part in enumerate(parts):
                rooms[index] += fitting * (room & part).bit_count()
    return parts, rooms


def hopeless(shape: Shape, pool: Pool, nodes: int, size: int = 0) -> bool:
    """Whether the gang fits nowhere on these nodes, for want of free GPUs; told by a few operations on whole words."""
    most = sum([fitting * room.bit_count() for fitting, room in _counted(shape, pool, nodes, size)])
    return most < _wanted(shape, size)


def pieces_by_domain(shape: Shape, pool: Pool) -> tuple[tuple[Domain, ...], list[int]]:
    """The domains of the level that a shape requires, and how many pieces of it each takes now (of a total: GPUs)."""
    assert shape.topology is not None, "it requires a level"
    _, rooms = _rooms(shape, pool, pool.reach(shape), shape.topology.level)
    return pool.topology().domains(shape.topology.level), rooms[:-1]


# Evenly --------------------------------------------------------------------------------------------------------------


def evenly(shape: Shape, pool: Pool, nodes: int, level: str, inner: Inner) -> Placement | None:
    """The pieces one by one to the domain of the level that has the fewest of them, then to that with most GPUs free.

    So the numbers of pieces differ by one at most where there is room, and are as even as can be where there is not.
    Nodes in no domain come last. It fits exactly when `inner` finds room for it on the nodes at large.
    """
    parts = [part for domain in pool.topology().domains(level) if (part := nodes & domain.nodes)]
    size = largest(shape, pool, nodes)
    if not parts or shape.num_nodes == 1 or (not shape.num_nodes and shape.gpus <= size):
        return inner(shape, pool, nodes)
    found = _dealt(shape, pool, [*parts, nodes & pool.topology().parts(level)[-1]], size, inner)
    return inner(shape, pool, nodes) if found is None and not shape.num_nodes else found


def _dealt(shape: Shape, pool: Pool, parts: list[int], size: int, inner: Inner) -> Placement | None:
    """The pieces one by one; the last part is that of the nodes in no domain."""
    places = [single(shape)] * shape.num_nodes if shape.num_nodes else cut(shape, size)
    apart = shape.distinct or not shape.num_nodes
    counts = [0] * len(parts)
    turns: list[tuple[bool, int, int, int]] = []
    placed: list[Placement] = []
    before: Shape | None = None
    with pool.trial():
        for piece in places:
            if piece != before:  # the remainder of a total may fit where a whole node did not
                before = piece
                turns = [
                    (at == len(parts) - 1, counts[at], -pool.free_on(part), at) for at, part in enumerate(parts) if part
                ]
                heapify(turns)
            found = None
            while turns and (found := inner(piece, pool, parts[turns[0][3]])) is None:
                heappop(turns)  # it is full
            if found is None:
                return None
            pool.take(piece, found)
            placed.append(found)
            last, count, free, at = turns[0]
            counts[at] += 1
            if apart:
                parts[at] &= ~(1 << found[0].node)
            heapreplace(turns, (last, count + 1, free, at))
    return tuple(piece for pieces in placed for piece in pieces)
