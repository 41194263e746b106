"""The door to the cluster with an administrator's word on it: cordoned nodes take no new work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..cluster.backend import Backend, News, Node, NodeChange
from ..jobs.errors import NotFoundError
from ..jobs.events import Event
from ..jobs.job import Job

CORDONED = "cordoned"
_MARK = f"{CORDONED}: "
_AND = " | "


class Door:
    """A `Backend` that passes everything on, and marks cordoned nodes. Used from the engine's thread.

    It also remembers what was reported and not yet written, so that an engine that is built anew after a failed commit
    is told again: the end of an attempt is reported once, and must not get lost on a full disk.

    Args:
        backend: the cluster.
        remembered: nodes as the store knows them: cordons are taken from there, and nodes that the cluster does not
            report any more are said to be gone with its first report.
    """

    def __init__(self, backend: Backend, remembered: Sequence[NodeChange] = ()) -> None:
        self.backend = backend
        self._nodes: dict[str, NodeChange] = {}  # the last report of each, as the backend gave it
        self._missing = {change.node.name: change.node for change in remembered if not change.gone}
        self._cordons: dict[str, str] = {}
        self._news: list[NodeChange] = []
        self._events: list[Event] = []  # polled and not confirmed
        self._repeat = False
        for change in remembered:
            why = change.node.why
            if why.startswith(_MARK):
                self._cordons[change.node.name] = why.removeprefix(_MARK).partition(_AND)[0]

    def cordon(self, name: str, reason: str, now: float) -> None:
        """No new work there from the next tick on.

        Raises:
            NotFoundError: no such node.
        """
        self._known(name)
        self._cordons[name] = " ".join(reason.replace("|", "/").split()) or "by an administrator"
        self._news.append(self._marked(replace(self._nodes[name], time=now)))

    def resume(self, name: str, now: float) -> None:
        """Work may go there again. Resuming what is not cordoned changes nothing.

        Raises:
            NotFoundError: no such node.
        """
        self._known(name)
        if self._cordons.pop(name, None) is not None:
            self._news.append(self._marked(replace(self._nodes[name], time=now)))

    def confirm(self) -> None:
        """What was polled is written."""
        self._events = []

    def repeat(self) -> None:
        """Report every node, and the events that were not confirmed, with the next poll: there is a new engine."""
        self._news = [self._marked(change) for change in self._nodes.values()]
        self._repeat = bool(self._events)

    def poll(self, now: float) -> News:
        """The cluster's news, cordons marked."""
        news = self.backend.poll(now)
        events: Sequence[Event] = news.events
        if self._repeat:
            events, self._repeat = [*self._events, *news.events], False
            self._events = list(events)
        elif news.events:
            self._events += news.events
        if not news.nodes and not self._news:
            return News((), list(events))
        changes, self._news = self._news, []
        for change in news.nodes:
            self._nodes[change.node.name] = change
            changes.append(self._marked(change))
        if news.nodes and self._missing:
            for name, node in self._missing.items():
                if name not in self._nodes:
                    changes.append(NodeChange(now, node, gone=True))
            self._missing = {}
        return News(tuple(changes), list(events))

    def next_time(self) -> float | None:
        """The backend's; at once if something is to be said."""
        return 0.0 if self._news or self._repeat else self.backend.next_time()

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

    def _known(self, name: str) -> Node:
        change = self._nodes.get(name)
        if change is None:
            known = ", ".join(sorted(self._nodes)[:5]) or "none yet"
            raise NotFoundError(f"there is no node {name!r}", hint=f"nodes: {known}; `gpusched nodes` lists all")
        return change.node

    def _marked(self, change: NodeChange) -> NodeChange:
        reason = self._cordons.get(change.node.name)
        if reason is None:
            return change
        why = _MARK + reason + (_AND + change.node.why if change.node.why else "")
        return replace(change, node=replace(change.node, schedulable=False, why=why))
