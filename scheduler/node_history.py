"""What happened to a node, told apart from what is repeated of it: the journal's lines on the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..cluster.backend import Node, NodeChange
from .node_orders import CORDON, DRAIN, MAINTENANCE, own_why

_ORDERS = {CORDON: "cordoned", DRAIN: "draining"}
_SAID = ("by", "reason", "deadline")


class History:
    """How each node was last, by name. Reports that change nothing say nothing."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[Node, bool]] = {}  # (the node, whether it was there)

    def remember(self, nodes: Iterable[NodeChange]) -> None:
        """As they were stored."""
        for change in nodes:
            self._last[change.node.name] = (change.node, not change.gone)

    def news(self, change: NodeChange) -> list[dict[str, Any]]:
        """What is new, as the data of NODE events: the node, what happened, and details."""
        node = change.node
        old, there = self._last.get(node.name, (None, False))
        self._last[node.name] = (node, not change.gone)
        found: list[dict[str, Any]] = []
        if change.gone:
            found += [{"what": "left", "why": own_why(node)}] if there else []
        elif old is None:
            found.append({"what": "joined", "gpus": node.gpus, "gpu_type": node.gpu_type, "address": node.address})
        elif not there:
            found.append({"what": "returned", "gpus": node.gpus, "address": node.address})
        found += _ordered(old, node, change.by)
        if not change.gone:
            found += _health(old, node)
        return [{"node": node.name, **{key: value for key, value in one.items() if value != ""}} for one in found]


def _ordered(old: Node | None, node: Node, by: str) -> list[dict[str, Any]]:
    """Orders that were given or taken back."""
    before = {} if old is None else old.orders
    found: list[dict[str, Any]] = []
    for kind, what in _ORDERS.items():
        now = node.orders.get(kind)
        if now is not None and now != before.get(kind):
            found.append({"what": what, **{key: now[key] for key in _SAID if now.get(key) is not None}})
    if any(kind in before and kind not in node.orders for kind in _ORDERS):
        found.append({"what": "resumed", "by": by})
    was, window = before.get(MAINTENANCE), node.orders.get(MAINTENANCE)
    over = was is not None and was["on"] and (window is None or window["id"] != was["id"])
    if was is not None and over:
        found.append({"what": "maintenance ended", "window": was["id"], "by": by})
    if window is not None and window["on"] and (was is None or not was["on"] or over):
        told = {key: window[key] for key in ("by", "reason", "end")}
        found.append({"what": "maintenance began", "window": window["id"], **told})
    return found


def _health(old: Node | None, node: Node) -> list[dict[str, Any]]:
    """What the cluster itself says of the node's health, where it is another than before."""
    found: list[dict[str, Any]] = []
    before, now = "" if old is None else own_why(old), own_why(node)
    if now and now != before:
        found.append({"what": "unhealthy", "why": now})
    elif before and not now:
        found.append({"what": "healthy"})
    was = {} if old is None else dict(old.fenced)
    fenced = dict(node.fenced)
    found += [{"what": "fenced", "gpu": gpu, "why": why} for gpu, why in fenced.items() if was.get(gpu) != why]
    found += [{"what": "unfenced", "gpu": gpu} for gpu in was if gpu not in fenced]
    return found
