"""Nodes that take no work now, or close too soon, as a reason in words: which, why, and until when."""

from __future__ import annotations

from typing import Any

from ..cluster.backend import Node
from ..cluster.pool import Pool, bits
from ..jobs.job import Shape
from ..policies.plan import Token
from ..policies.reasons import closed_by_hand
from .drains import at
from .node_orders import CORDON, DRAIN, MAINTENANCE, own_why

MOST = 3
"""Nodes that are named in words."""


def closed_nodes(shape: Shape, pool: Pool) -> list[int]:
    """Nodes that are there and that the shape might use, but not now."""
    kinds = {kind.lower() for kind in shape.gpu_types}
    away = pool.present & ~pool.up | pool.present & shape.closing
    found = []
    for number in bits(away):
        node = pool.nodes[number]
        labelled = all(node.labels.get(key) == value for key, value in shape.labels)
        if labelled and (not kinds or node.gpu_type.lower() in kinds):
            found.append(number)
    return found


def token_of(numbers: list[int], shape: Shape, pool: Pool) -> Token:
    """Whether these are closed by somebody's wish, or not healthy."""
    by_hand = any(shape.closing >> number & 1 or closed_by_hand(pool.nodes[number]) for number in numbers)
    return Token.NODES_DRAINING if by_hand else Token.NODES_UNHEALTHY


def closed_words(numbers: list[int], pool: Pool) -> tuple[str, dict[str, Any]]:
    """The nodes in words, and in numbers: their names, GPUs free there, and when the first is back if that is known."""
    nodes = [pool.nodes[number] for number in numbers]
    listed = ", ".join(f"{node.name} ({_why(node)})" for node in nodes[:MOST])
    more = f" and {len(nodes) - MOST} more" if len(nodes) > MOST else ""
    ends = [node.orders[MAINTENANCE]["end"] for node in nodes if _only_maintenance(node)]
    return listed + more, {
        "nodes": [node.name for node in nodes],
        "free_there": sum(max(pool.free[number], 0) for number in numbers),
        "until": min(ends, default=None),
    }


def _only_maintenance(node: Node) -> bool:
    """Whether it comes back by itself, at the end of its window."""
    return MAINTENANCE in node.orders and DRAIN not in node.orders and CORDON not in node.orders and not own_why(node)


def _why(node: Node) -> str:
    parts = []
    for kind, words in ((DRAIN, "drained"), (CORDON, "cordoned")):
        order = node.orders.get(kind)
        if order is not None:
            by = f" by {order['by']}" if order["by"] else ""
            until = f" until {at(order['deadline'])}" if order.get("deadline") else ""
            parts.append(f"{words}{by}{until}: {order['reason']}")
    window = node.orders.get(MAINTENANCE)
    if window is not None:
        parts.append(
            f"maintenance {window['id']} from {at(window['start'])} to {at(window['end'])}: {window['reason']}"
        )
    own = own_why(node) if node.orders else node.why
    return "; ".join([*parts, own] if own else parts) or "it takes no work"
