"""Weights that count a gang for more than its GPUs where the rest of a node, or of the cluster, is lost to others.

A weighing gives each job a weight and the cluster a capacity, such that jobs that run at the same time never weigh more
than it. Counting GPUs is the plain one. Others come from dual-feasible functions u: numbers x that add up to at most 1
have u(x) that add up to at most 1 (Fekete and Schepers 2001), so gangs of more than half a node count as whole nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from ...jobs.job import Shape
from .instance import WHOLE, Group

MOST = 8
"""Thresholds tried of each kind; the widest gangs' come first."""

Function = Callable[[int], int]
"""Size -> weight, in whole numbers."""


class Weighing(NamedTuple):
    """Weights by shape, and what the cluster holds of them. `form` is area, wide or nodes."""

    form: str
    weight: dict[Shape, int]
    capacity: int


def gpus_of(shape: Shape) -> int:
    """GPUs of the whole gang, in thousandths."""
    return max(shape.num_nodes, 1) * (WHOLE * shape.gpus + shape.gpu_milli)


def weighings(shapes: Iterable[Shape], groups: Iterable[Group]) -> Iterator[Weighing]:
    """Every weighing that is tried for jobs of these shapes on these nodes, counting GPUs first."""
    found = sorted(set(shapes), key=lambda shape: (gpus_of(shape), str(shape)))
    there = [group for group in groups if group.gpus]
    total = WHOLE * sum(group.nodes * group.gpus for group in there)
    sizes = {shape: gpus_of(shape) for shape in found}
    if not total:
        return
    yield Weighing("area", sizes, total)
    for scale, rounded in dual_feasible(set(sizes.values()), total):
        yield Weighing("wide", {shape: rounded(size) for shape, size in sizes.items()}, scale * total)
    yield from _by_node(found, there)


def dual_feasible(sizes: set[int], whole: int) -> Iterator[tuple[int, Function]]:
    """Functions u that could matter for these sizes, as (scale, f) with f(size) = scale x whole x u(size / whole).

    First floor((k + 1) x) / k, and x itself where (k + 1) x is whole: for k = 1 that is 1 above a half, 1/2 at a half,
    else 0. Then, by a threshold e, 1 above 1 - e, 0 below e, and x between.
    """
    for k in range(1, MOST + 1):
        if any(size * (k + 1) > whole and size * (k + 1) % whole for size in sizes):
            yield k, _in_parts(k, whole)
    for wide in sorted((size for size in sizes if whole > size > whole - size), reverse=True)[:MOST]:
        yield 1, _above(wide, whole)


def _in_parts(k: int, whole: int) -> Function:
    def weight(size: int) -> int:
        parts, rest = divmod((k + 1) * size, whole)
        return parts * whole if rest else k * size

    return weight


def _above(wide: int, whole: int) -> Function:
    def weight(size: int) -> int:
        return whole if size >= wide else size if size > whole - wide else 0

    return weight


def _by_node(shapes: list[Shape], groups: list[Group]) -> Iterator[Weighing]:
    """Weighings of pieces that must each lie whole on one node.

    What a node holds of any weights is a knapsack, solved exactly for each size of node. Totals that a policy may cut
    as it likes, and parts of a GPU, count by their GPUs or not at all.
    """
    whole = [shape for shape in shapes if shape.num_nodes and shape.gpus]
    loose = len(whole) < len(shapes)
    pieces = {shape.gpus for shape in whole}
    for size in sorted({group.gpus for group in groups}):
        for scale, rounded in dual_feasible(pieces, size):
            weight = {piece: rounded(piece) for piece in pieces}
            for density in (scale, 0) if loose else (0,):
                capacity = sum(group.nodes * knapsack(weight, group.gpus, density) for group in groups)
                of = {shape: WHOLE * shape.num_nodes * weight[shape.gpus] for shape in whole}
                of |= {shape: density * gpus_of(shape) for shape in shapes if shape not in of}
                yield Weighing("nodes", of, WHOLE * capacity)


def knapsack(weight: dict[int, int], room: int, density: int) -> int:
    """The greatest weight of pieces on one node of `room` GPUs; each GPU that they leave weighs `density`."""
    best = [0] * (room + 1)
    for used in range(1, room + 1):
        best[used] = max(
            [best[used - 1]] + [best[used - piece] + heavy for piece, heavy in weight.items() if piece <= used]
        )
    return max(heavy + density * (room - used) for used, heavy in enumerate(best))
