"""What the gateway knows of each node's health: its agent's words, its clock, its silence.

No Ray here. Time is handed in: seconds that only rise, except where a clock itself is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

UNHEALTHY = "unhealthy: "
SEEN_TWICE = 2


@dataclass(slots=True)
class Vitals:
    """One node.

    Attributes:
        since: when it was first followed. heard: when its agent last answered; None = never yet.
        faults: what its agent says is wrong with the machine.
        skew: seconds that its clock is ahead of ours, and how far that may be wrong.
        skewed: whether the skew was over the limit twice in a row.
        broken: GPUs that its agent says are broken, by index.
        dirt: GPUs with something on them: what, and since when; only those that no attempt holds.
        clean: for each GPU that was fenced, how many samples in a row have found nothing on it.
    """

    since: float
    heard: float | None = None
    faults: list[str] = field(default_factory=list)
    skew: tuple[float, float] = (0.0, 0.0)
    skewed: int = 0
    broken: dict[int, str] = field(default_factory=dict)
    dirt: dict[int, tuple[str, float]] = field(default_factory=dict)
    clean: dict[int, int] = field(default_factory=dict)


class Ward:
    """The nodes' vitals, by Ray's NodeID.

    Args:
        limits: of the health checks, as `cluster.health.HealthLimits.plain` gives them.
    """

    def __init__(self, limits: Mapping[str, Any]) -> None:
        self.limits = limits
        self.nodes: dict[str, Vitals] = {}
        self._fenced: dict[str, dict[int, str]] = {}  # what should be fenced, by node

    def follow(self, node_ids: Iterable[str], now: float) -> None:
        """These are the nodes there are."""
        ids = set(node_ids)
        for gone in self.nodes.keys() - ids:
            del self.nodes[gone]
            self._fenced.pop(gone, None)
        for new in ids - self.nodes.keys():
            self.nodes[new] = Vitals(now)

    # ---- what comes in

    def sampled(
        self, node_id: str, health: Mapping[str, Any] | None, held: Callable[[str, int], bool], now: float
    ) -> None:
        """An agent answered; `health` as it said, None = all is well. `held`: does an attempt have this GPU?"""
        node = self.nodes.get(node_id)
        if node is None:
            return
        node.heard = now
        health = health or {"node": [], "gpus": {}, "dirt": {}}
        node.faults = list(health["node"])
        node.broken = {int(index): why for index, why in health["gpus"].items()}
        showing = {str(index) for index in health["dirt"]}
        soiled = {int(index): why for index, why in health["dirt"].items() if not held(node_id, int(index))}
        node.dirt = {index: (why, node.dirt[index][1] if index in node.dirt else now) for index, why in soiled.items()}
        fenced = self._fenced.setdefault(node_id, {})
        for index, why in node.broken.items():
            if not held(node_id, index):
                fenced[index] = why
        for index, (why, began) in node.dirt.items():
            if now - began >= max(self.limits["patience"], 1e-9):
                fenced[index] = why
        for index in list(fenced):
            # Whoever holds it: an attempt that leaves it dirty holds it to the last.
            well = index not in node.broken and str(index) not in showing
            node.clean[index] = node.clean.get(index, 0) + 1 if well else 0
            if node.clean[index] >= SEEN_TWICE:
                del fenced[index], node.clean[index]

    def told_time(self, node_id: str, remote: float, sent: float, received: float) -> None:
        """A node told its time; `sent` and `received` are ours when we asked and when the answer came."""
        node = self.nodes.get(node_id)
        if node is None:
            return
        half = max(0.0, received - sent) / 2
        node.skew = remote - (sent + received) / 2, half
        over = abs(node.skew[0]) - half > self.limits["skew"] > 0
        # A node comes back when it is clearly right again.
        under = abs(node.skew[0]) + half < 0.8 * self.limits["skew"]
        node.skewed = min(SEEN_TWICE, node.skewed + 1) if over else 0 if under else node.skewed

    def fence(self, node_id: str, index: int, why: str) -> None:
        """An attempt ended and left this GPU dirty."""
        if node_id in self.nodes:
            self._fenced.setdefault(node_id, {})[index] = why
            self.nodes[node_id].clean[index] = 0

    def forgive(self, node_id: str) -> None:
        """An administrator trusts the node: what still shows is fenced again, after the patience."""
        self._fenced.pop(node_id, None)
        node = self.nodes.get(node_id)
        if node is not None:
            node.broken, node.dirt, node.clean = {}, {}, {}

    # ---- what is to be said

    def fenced(self, node_id: str) -> dict[int, str]:
        """GPUs of a node that nobody may use, by index, with the reason."""
        return dict(sorted(self._fenced.get(node_id, {}).items()))

    def why(self, node_id: str, now: float) -> str:
        """Why the node can take no work, in words that stay the same while it is so; empty = it can."""
        node = self.nodes.get(node_id)
        if node is None:
            return ""
        faults = list(node.faults)
        if self.limits["silent"] and now - (node.since if node.heard is None else node.heard) > self.limits["silent"]:
            faults.append(f"its agent has not answered for {self.limits['silent']:g} s")
        if node.skewed >= SEEN_TWICE and not self._ours_is_wrong():
            ahead = "ahead of" if node.skew[0] > 0 else "behind"
            faults.append(f"its clock is over {self.limits['skew']:g} s {ahead} the control plane's")
        return UNHEALTHY + "; ".join(faults) if faults else ""

    def _ours_is_wrong(self) -> bool:
        """Whether most nodes, and at least two, agree on another time than ours: then the fault is with us."""
        skews = [node.skew[0] for node in self.nodes.values() if node.heard is not None]
        limit = self.limits["skew"]
        middle = median(skews) if skews else 0.0
        agree = [skew for skew in skews if abs(skew - middle) <= limit]
        return len(agree) > 1 and 2 * len(agree) > len(skews) and abs(middle) > limit
