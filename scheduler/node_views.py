"""What the faces show of nodes and their maintenance windows: plain JSON values (docs/api.md)."""

from __future__ import annotations

from ..cluster.backend import Node
from .node_orders import CORDON, DRAIN, MAINTENANCE
from .store.cluster import Held, NodeInfo
from .store.maintenance import Planned
from .views import JSON, iso

FLAPS = 3
"""How often a node has to have left the cluster within FLAP_TIME to be said to flap."""
FLAP_TIME = 3600.0
"""Seconds."""


def node_view(
    info: NodeInfo, held: list[Held], free: tuple[float, int, int] | None, used: JSON, *, left: int = 0
) -> JSON:
    """A node: what it has, what is free of it, who holds the rest.

    Args:
        info: the node.
        held: pieces of running jobs on it.
        free: (GPUs, thousandths of CPUs, bytes) free; None = it is not there, or no engine runs.
        used: "utilization", "memory_used" and "sampled" of its GPUs, as far as known.
        left: how often it left the cluster within the last FLAP_TIME.
    """
    node = info.node
    by_job: dict[int, JSON] = {}
    for piece in held:
        gpus = piece.piece.gpus + piece.piece.gpu_milli / 1000
        entry = by_job.setdefault(piece.job, {"id": piece.job, "name": piece.name, "user": piece.user, "gpus": 0.0})
        entry["gpus"] += gpus
    return {
        "name": node.name,
        "address": node.address,
        "state": state_of(node, present=info.present, busy=bool(held)),
        "why": node.why,
        **_orders(node),
        "left_recently": left,
        "flaps": left >= FLAPS,
        "first_seen": iso(info.first_seen),
        "changed": iso(info.changed),
        "gpu_type": node.gpu_type,
        "gpus": node.gpus,
        "fenced": [{"gpu": gpu, "why": why} for gpu, why in node.fenced],
        "free": None if free is None else free[0],
        "cpus": node.cpu_milli / 1000,
        "cpus_free": None if free is None else free[1] / 1000,
        "memory": node.memory,
        "memory_free": None if free is None else free[2],
        "labels": node.labels,
        "jobs": list(by_job.values()),
        "utilization": None,
        "memory_used": None,
        "sampled": None,
        **used,
    }


def state_of(node: Node, *, present: bool, busy: bool) -> str:
    """One word on a node: gone, draining, drained, maintenance, cordoned, unhealthy or up."""
    if not present:
        return "gone"
    orders = node.orders
    if DRAIN in orders:
        return "draining" if busy else "drained"
    if orders.get(MAINTENANCE, {}).get("on"):
        return "maintenance"
    if CORDON in orders or node.why.startswith("cordoned"):
        return "cordoned"
    return "up" if node.schedulable else "unhealthy"


def _orders(node: Node) -> JSON:
    """Who wants what of it, the strongest order first: drain, cordon; and its window."""
    order = node.orders.get(DRAIN) or node.orders.get(CORDON) or {}
    window = node.orders.get(MAINTENANCE)
    return {
        "reason": order.get("reason", ""),
        "by": order.get("by", ""),
        "since": iso(order.get("since")),
        "deadline": iso(order.get("deadline")),
        "maintenance": None if window is None else {**window, "start": iso(window["start"]), "end": iso(window["end"])},
    }


def window_view(planned: Planned, now: float, nodes: list[Node]) -> JSON:
    """A maintenance window; `nodes` are those that are there, `covers` names the ones that it is for."""
    window = planned.window
    state = "planned" if now < window.start else "on" if now < window.end else "over"
    return {
        "id": window.id,
        "state": state if planned.cancelled is None else "cancelled",
        "start": iso(window.start),
        "end": iso(window.end),
        "nodes": list(window.nodes),
        "labels": dict(window.labels),
        "all": window.everywhere,
        "covers": [node.name for node in nodes if window.covers(node)],
        "lead": window.lead,
        "reason": window.reason,
        "by": window.by,
        "added": iso(window.added),
        "cancelled": iso(planned.cancelled),
    }
