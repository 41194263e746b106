"""The door to the cluster with administrators' words on it: cordons, drains and maintenance windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..cluster.backend import Backend, News, Node, NodeChange
from ..jobs.errors import ConflictError, NotFoundError
from ..jobs.events import Event
from ..jobs.job import Job
from .node_orders import NodeOrders, Order, Window, plain, unmarked


class Door:
    """A `Backend` that passes everything on, and marks nodes as orders say. Used from the engine's thread.

    Orders come and go by calls; windows also by the time. Each change is news of the node, so that the engine writes it
    together with its event before anything follows from it.

    It also remembers what was reported and not yet written, so that an engine that is built anew after a failed commit
    is told again: the end of an attempt is reported once, and must not get lost on a full disk.

    Args:
        backend: the cluster.
        remembered: nodes as the store knows them: orders are taken from there, and nodes that the cluster does not
            report any more are said to be gone with its first report.
        windows: maintenance windows that have not ended.

    Attributes:
        orders: what holds. To be looked at only; it changes by the calls below.
        forgive: told each node that is resumed: what the cluster remembers of its GPUs is forgotten.
    """

    def __init__(self, backend: Backend, remembered: Sequence[NodeChange] = (), windows: Sequence[Window] = ()) -> None:
        self.backend = backend
        self._nodes: dict[str, NodeChange] = {}  # the last report of each, as the backend gave it
        self._marked_as: dict[str, Node] = {}  # each as the engine was told last
        self._news: list[NodeChange] = []
        self._events: list[Event] = []  # polled and not confirmed
        self._repeat = False
        self.forgive: Callable[[str], None] = lambda _name: None
        self.remember(remembered, windows)

    def remember(self, remembered: Sequence[NodeChange], windows: Sequence[Window] = ()) -> None:
        """Go by the store's orders from now on: another control plane may have been given some."""
        self.orders = NodeOrders(remembered, windows)
        self._turn = 0.0  # when a window begins or ends; to be found out
        new = [change for change in remembered if change.node.name not in self._nodes]
        self._missing = {change.node.name: unmarked(change.node) for change in new if not change.gone}
        self._away = {change.node.name: unmarked(change.node) for change in new if change.gone}
        self._marked_as = {}

    # Orders -------------------------------------------------------------------------------------------------------

    def cordon(self, name: str, reason: str, now: float, *, by: str = "") -> bool:
        """No new work there from the next tick on. False = it was so already; another reason is taken over.

        Raises:
            NotFoundError: no such node.
            ConflictError: the cluster has not reported it yet.
        """
        self._known(name)
        old = self.orders.cordons.get(name)
        if old is not None and (not reason or old.reason == plain(reason)):
            return False
        since = now if old is None else old.since
        self.orders.cordons[name] = Order(by, plain(reason), since)
        self._say(name, now, by)
        return old is None

    def drain(self, name: str, reason: str, now: float, *, by: str = "", deadline: float | None = None) -> bool:
        """No new work there, and what runs there is gone by the deadline (None = when it ends by itself).

        False = it drains already; another deadline or reason is taken over, and what is not said stays as it was.

        Raises:
            NotFoundError: no such node.
            ConflictError: the cluster has not reported it yet.
        """
        self._known(name)
        old = self.orders.drains.get(name)
        if old is None:
            new = Order(by, plain(reason), now, deadline)
        else:
            until = old.deadline if deadline is None else deadline
            new = replace(old, reason=plain(reason) if reason else old.reason, deadline=until)
        if new != old:
            self.orders.drains[name] = new if old is None else replace(new, by=by or new.by)
            self._say(name, now, by)
        return old is None

    def resume(self, name: str, now: float, *, by: str = "") -> bool:
        """Work may go there again: cordon and drain are over. False = there was neither, and nothing changed.

        GPUs that are fenced for what was once seen of them are given back; what still shows fences them again.

        Jobs that were told to go by then still go. A maintenance window goes on; it is cancelled by itself.

        Raises:
            NotFoundError: no such node.
            ConflictError: the cluster has not reported it yet.
        """
        self._known(name)
        self.forgive(name)
        cordon, drain = self.orders.cordons.pop(name, None), self.orders.drains.pop(name, None)
        if cordon is None and drain is None:
            return False
        self._say(name, now, by)
        return True

    def use_windows(self, windows: Sequence[Window], now: float, *, by: str = "") -> None:
        """These windows hold from now on."""
        self.orders.windows = tuple(windows)
        self._turned(now, by)

    def _say(self, name: str, now: float, by: str) -> None:
        change = self._nodes.get(name) or NodeChange(now, self._away[name], gone=True)
        self._news.append(replace(change, time=now, by=by))

    def _known(self, name: str) -> None:
        if name in self._nodes or name in self._away:
            return
        if name in self._missing:
            raise ConflictError(
                f"node {name} has not been reported since the control plane started",
                hint="try again when the cluster answers; `gpusched status` says whether it does",
            )
        known = ", ".join(sorted(self._nodes)[:5]) or "none yet"
        raise NotFoundError(f"there is no node {name!r}", hint=f"nodes: {known}; `gpusched nodes` lists all")

    # The backend's side -------------------------------------------------------------------------------------------

    def confirm(self) -> None:
        """What was polled is written."""
        self._events = []

    def repeat(self) -> None:
        """Report every node, and the events that were not confirmed, with the next poll: there is a new engine."""
        self._news = list(self._nodes.values())
        self._marked_as = {}
        self._repeat = bool(self._events)

    def poll(self, now: float) -> News:
        """The cluster's news, orders marked."""
        if now >= self._turn:
            self._turned(now, "")
        news = self.backend.poll(now)
        events: Sequence[Event] = news.events
        if self._repeat:
            events, self._repeat = [*self._events, *news.events], False
            self._events = list(events)
        elif news.events:
            self._events += news.events
        if not news.nodes and not self._news:
            return News((), list(events))
        changes, self._news = [self._marked(change, now) for change in self._news], []
        for change in news.nodes:
            self._nodes[change.node.name] = change
            self._away.pop(change.node.name, None)
            changes.append(self._marked(change, now))
        if news.nodes and self._missing:
            for name, node in self._missing.items():
                if name not in self._nodes:
                    self._away[name] = node
                    changes.append(self._marked(NodeChange(now, node, gone=True), now))
            self._missing = {}
        return News(tuple(changes), list(events))

    def next_time(self) -> float | None:
        """The backend's, or when a window begins or ends; at once if something is to be said."""
        if self._news or self._repeat:
            return 0.0
        due, turn = self.backend.next_time(), self._turn
        if turn == math.inf:
            return due
        return turn if due is None else min(due, turn)

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:
        """Passed on."""
        self.backend.start(job, nodes, now)

    def stop(self, job: Job, grace: float, now: float) -> None:
        """Passed on."""
        self.backend.stop(job, grace, now)

    def adopt(self, jobs: list[Job], now: float) -> None:
        """Passed on."""
        self.backend.adopt(jobs, now)

    def close(self) -> None:
        """Passed on."""
        self.backend.close()

    def _turned(self, now: float, by: str) -> None:
        """Windows are others, or it is another time: say so of each node that looks different now."""
        self._turn = self.orders.next_turn(now)
        for name, change in self._nodes.items():
            told = self._marked_as.get(name)
            if not change.gone and told is not None and self.orders.mark(change.node, now) != told:
                self._news.append(replace(change, time=now, by=by))

    def _marked(self, change: NodeChange, now: float) -> NodeChange:
        marked = self._marked_as[change.node.name] = self.orders.mark(change.node, now)
        return change if marked is change.node else replace(change, node=marked)
