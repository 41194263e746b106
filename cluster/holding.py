"""What nodes could hold if nothing ran there."""

from __future__ import annotations

from collections.abc import Sequence

from ..jobs.job import Shape
from .backend import Node

WHOLE = 1000
"""Thousandths of a GPU in a GPU."""


def pieces_when_idle(shape: Shape, node: Node) -> int:
    """How many pieces of a gang this node could take if nothing ran there."""
    fitting = max(shape.num_nodes, 1)
    if shape.gpu_milli:
        fitting = min(fitting, node.gpus * (WHOLE // shape.gpu_milli))
    elif shape.gpus:
        fitting = min(fitting, node.gpus // shape.gpus)
    if shape.cpu_milli:
        fitting = min(fitting, node.cpu_milli // shape.cpu_milli)
    if shape.memory:
        fitting = min(fitting, node.memory // shape.memory)
    return min(fitting, 1) if shape.distinct else fitting


def could_hold(shape: Shape, nodes: Sequence[Node]) -> bool:
    """Whether these nodes could hold the whole gang if nothing ran there; one that is split by the placers' rule.

    A total of more GPUs than the largest node has takes whole nodes of that size and one further node.
    """
    if shape.num_nodes or sum(pieces_when_idle(shape, node) for node in nodes):
        return sum(pieces_when_idle(shape, node) for node in nodes) >= max(shape.num_nodes, 1)
    size = max((node.gpus for node in nodes), default=0)
    if not size:
        return False
    whole, rest = divmod(shape.gpus, size)
    full = sum(node.gpus == size for node in nodes)
    return full >= whole and (not rest or sum(node.gpus >= rest for node in nodes) > whole)
