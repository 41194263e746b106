"""What administrators want of the nodes: cordons, drains and maintenance windows, and how a node looks under them.

Nothing here acts. `NodeOrders.mark` says how a node is to be shown to the engine at a moment; the engine gives it no
work, or moves its jobs away in time (drains.py), because the node says so. Orders travel in `Node.orders`, so they are
stored with the node, in the transaction that makes them count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..cluster.backend import Node, NodeChange

LEAD = 3600.0
"""Seconds before a window from which no job starts in it that does not say how long it runs, unless it says another."""

CORDON, DRAIN, MAINTENANCE = "cordon", "drain", "maintenance"
AND = " | "
"""Between the reasons in `Node.why`."""
_OLD = "cordoned: "
"""How a release that knew no other orders began the reason of a cordoned node."""


@dataclass(frozen=True, slots=True)
class Order:
    """An administrator's word on one node.

    Attributes:
        by: who said so; empty = nobody is known. reason: why, in their words. since: UTC seconds.
        deadline: of a drain: UTC seconds by which what runs there is gone; None = it may end by itself.
    """

    by: str = ""
    reason: str = ""
    since: float = 0.0
    deadline: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is stored with its node."""
        return {"by": self.by, "reason": self.reason, "since": self.since, "deadline": self.deadline}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Order:
        """What `to_json` wrote."""
        return cls(found["by"], found["reason"], found["since"], found.get("deadline"))


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which some nodes are not for jobs.

    Attributes:
        id: rising number.
        start, end: UTC seconds.
        nodes: names; labels: (key, value) pairs that a node must all carry; everywhere: all nodes. A node is covered by
            its name, or by its labels if there are any, or by `everywhere`; also one that joins later.
        reason, by: why, and who said so. added: UTC seconds.
        lead: seconds before the start from which no job starts there that does not say how long it runs.
    """

    id: int
    start: float
    end: float
    nodes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    everywhere: bool = False
    reason: str = ""
    by: str = ""
    added: float = 0.0
    lead: float = LEAD

    def covers(self, node: Node) -> bool:
        """Whether it is for this node."""
        if self.everywhere or node.name in self.nodes:
            return True
        return bool(self.labels) and all(node.labels.get(key) == value for key, value in self.labels)

    def on(self, now: float) -> bool:
        """Whether it has begun and not ended."""
        return self.start <= now < self.end

    def to_json(self) -> dict[str, Any]:
        """What a node says of it; `on` is added there."""
        return {"id": self.id, "by": self.by, "reason": self.reason, "start": self.start, "end": self.end}


class NodeOrders:
    """All orders that hold, by node.

    Args:
        remembered: nodes as they were stored, orders with them.
        windows: those that have not ended.
    """

    def __init__(self, remembered: Iterable[NodeChange] = (), windows: Sequence[Window] = ()) -> None:
        self.cordons: dict[str, Order] = {}
        self.drains: dict[str, Order] = {}
        self.windows: tuple[Window, ...] = tuple(windows)
        for change in remembered:
            self._restore(change)

    def _restore(self, change: NodeChange) -> None:
        node = change.node
        if CORDON in node.orders:
            self.cordons[node.name] = Order.of(node.orders[CORDON])
        elif node.why.startswith(_OLD) and not node.orders:
            reason = node.why.removeprefix(_OLD).partition(AND)[0]
            self.cordons[node.name] = Order("", reason, change.time)
        if DRAIN in node.orders:
            self.drains[node.name] = Order.of(node.orders[DRAIN])

    def mark(self, node: Node, now: float) -> Node:
        """The node as the engine is to see it at `now`: the cluster's own word and all orders on it."""
        cordon, drain = self.cordons.get(node.name), self.drains.get(node.name)
        window = self.window_of(node, now) if self.windows else None
        if cordon is None and drain is None and window is None:
            return node
        orders: dict[str, Any] = {}
        whys: list[str] = []
        closes = math.inf
        if cordon is not None:
            orders[CORDON] = cordon.to_json()
            whys.append(f"cordoned: {cordon.reason}")
        if drain is not None:
            orders[DRAIN] = drain.to_json()
            whys.append(f"draining: {drain.reason}")
            closes = math.inf if drain.deadline is None else drain.deadline
        if window is not None:
            orders[MAINTENANCE] = {**window.to_json(), "on": window.on(now)}
            if window.on(now):
                whys.append(f"maintenance: {window.reason}")
            closes = min(closes, window.start)
        whys += [node.why] if node.why else []
        return replace(
            node,
            schedulable=node.schedulable and not is_closed(orders),
            why=AND.join(whys),
            closes=None if math.isinf(closes) else closes,
            lead=0.0 if window is None else window.lead,
            orders=orders,
        )

    def window_of(self, node: Node, now: float) -> Window | None:
        """The window that the node is in (of several the one that ends last), or else the next one to come."""
        ours = [window for window in self.windows if now < window.end and window.covers(node)]
        begun = [window for window in ours if window.on(now)]
        if begun:
            return max(begun, key=lambda window: (window.end, window.id))
        return min(ours, key=lambda window: (window.start, window.id), default=None)

    def next_turn(self, now: float) -> float:
        """When the next window begins or ends; infinity = none does."""
        return min((at for one in self.windows for at in (one.start, one.end) if at > now), default=math.inf)


def is_closed(orders: Mapping[str, Any]) -> bool:
    """Whether these orders keep new work away now."""
    return CORDON in orders or DRAIN in orders or bool(orders.get(MAINTENANCE, {}).get("on"))


def own_why(node: Node) -> str:
    """What the cluster itself says is wrong with a node, apart from all orders; empty = nothing, or it is up."""
    orders = node.orders
    ours = (CORDON in orders) + (DRAIN in orders) + bool(orders.get(MAINTENANCE, {}).get("on"))
    return AND.join(node.why.split(AND)[ours:]) if node.why and not node.schedulable else ""


def unmarked(node: Node) -> Node:
    """A node as it was stored, without the marks of orders."""
    if not node.orders and not node.why.startswith(_OLD):
        return node
    why = own_why(node) if node.orders else node.why.partition(AND)[2]
    return replace(node, schedulable=not why, why=why, closes=None, lead=0.0, orders={})


def plain(reason: str, default: str = "by an administrator") -> str:
    """A reason on one line, without the mark that stands between reasons."""
    return " ".join(reason.replace("|", "/").split()) or default
