"""A whole gang from a rule for one piece: piece after piece on a trial, all or nothing."""

from __future__ import annotations

from typing import Protocol

from ...cluster.pool import WHOLE, Pool, bits, piece_needs
from ...jobs.job import Piece, Placement, Shape


class PlaceOne(Protocol):
    """Where one piece goes."""

    def __call__(self, piece: Shape, pool: Pool, nodes: int) -> Piece | None:
        """A place for one piece (num_nodes 1, no types or labels) on `nodes`, a bit set; None = it does not fit now."""
        ...


def place_gang(shape: Shape, pool: Pool, nodes: int, one: PlaceOne) -> Placement | None:
    """Each piece by the rule, with those before it in place; None = the gang does not fit now.

    A total of g GPUs that the placer may split stays whole when the largest node that the shape may use holds it, else
    it takes g // G nodes of that size G and puts the remainder on one further node. The pool is left as it was found.
    """
    if shape.num_nodes == 1 or (shape.num_nodes == 0 and shape.gpus <= (size := largest(shape, pool, nodes))):
        found = one(single(shape), pool, nodes)
        return None if found is None else (found,)
    pieces = [single(shape)] * shape.num_nodes if shape.num_nodes else cut(shape, size)
    apart = shape.distinct or shape.num_nodes == 0
    placed: list[Piece] = []
    with pool.trial():
        for piece in pieces:
            found = one(piece, pool, nodes)
            if found is None:
                return None
            pool.take(piece, (found,))
            placed.append(found)
            if apart:
                nodes &= ~(1 << found.node)
    return tuple(placed)


def single(shape: Shape) -> Shape:
    """One piece of a gang, as a shape of its own."""
    return Shape(1, shape.gpus, shape.gpu_milli, (), shape.cpu_milli, shape.memory)


def largest(shape: Shape, pool: Pool, nodes: int) -> int:
    """GPUs of the largest node that the shape may use, also where that one is withheld: what fits it is never split."""
    for allowed in pool.allowed(shape):
        if nodes == allowed or not nodes & ~allowed:
            return pool.node_size(allowed)
    return pool.node_size(nodes)


def cut(shape: Shape, size: int) -> list[Shape]:
    """The pieces of a total: whole nodes, then the remainder. CPUs and memory go by GPUs."""
    whole, rest = divmod(shape.gpus, size) if size else (0, shape.gpus)
    pieces: list[Shape] = []
    for gpus in [size] * whole + [rest] * bool(rest):
        cpu, memory = piece_needs(shape, Piece(0, gpus))
        pieces.append(Shape(1, gpus, 0, (), cpu, memory))
    return pieces


def pieces_now(shape: Shape, pool: Pool, number: int, free: int) -> int:
    """How many pieces of a gang a node with so many GPUs free could take now."""
    fitting = shape.num_nodes
    if shape.gpu_milli:
        whole = free * (WHOLE // shape.gpu_milli)
        fitting = min(fitting, whole + sum(part // shape.gpu_milli for part in pool.open[number].values()))
    elif shape.gpus:
        fitting = min(fitting, free // shape.gpus)
    if shape.cpu_milli:
        fitting = min(fitting, pool.cpu[number] // shape.cpu_milli)
    if shape.memory:
        fitting = min(fitting, pool.memory[number] // shape.memory)
    return fitting


def pick(nodes: int, position: int) -> int:
    """The node at `position` in a bit set, counted from the lowest."""
    for at, number in enumerate(bits(nodes)):
        if at == position:
            return number
    raise AssertionError(f"the set has no node at {position}")
