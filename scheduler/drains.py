"""Moving jobs off nodes that close: who is told to go when, and what the journal says of nodes.

A node closes at a time (`Node.closes`): the deadline of its drain, or the start of its maintenance window. A job that
would still be there is told to checkpoint its grace before that, so that it is gone by then, whatever the policy thinks
and whether or not the job is preemptible. The engine asks `due` at the times that `next` names; between them this costs
nothing. Nodes are looked at when they change, and running jobs once for all nodes that changed together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import Any, NamedTuple

from ..cluster.backend import NodeChange
from ..cluster.pool import Pool
from ..jobs.events import Event, Kind
from ..jobs.job import Job, State
from .node_history import History
from .node_orders import DRAIN, MAINTENANCE

_GOES = frozenset({State.STARTING, State.RUNNING})
"""States in which a job can be told to go; in the other holding ones it was told already."""


class Due(NamedTuple):
    """A job that has to be told to go now, and what the journal says of it."""

    job: Job
    data: dict[str, Any]


class Drains:
    """The nodes that close, and the jobs on them.

    Args:
        pool: the nodes.
        grace: seconds that a job is given between SIGTERM and SIGKILL.

    Attributes:
        watching: whether any node closes or drains, so that starts and ends matter here.
        next: when `due` has to be asked; infinity = not before something happens.
    """

    def __init__(self, pool: Pool, grace: Callable[[Job], float]) -> None:
        self._pool = pool
        self._grace = grace
        self._closes: dict[int, float] = {}  # node -> when it closes
        self._left: dict[int, set[int]] = {}  # draining node -> the jobs that it still has
        self._timers: list[tuple[float, int, int, int]] = []  # (time, job, attempt, node)
        self._history = History()
        self.watching = False
        self.next = math.inf

    def remember(self, nodes: Iterable[NodeChange]) -> None:
        """After a restart: these were there, so that only what is new of them is news."""
        self._history.remember(nodes)

    def believe(self, changes: Sequence[tuple[int, NodeChange]], running: Iterable[Job]) -> list[Event]:
        """Nodes changed; the pool knows already. What the journal says of it.

        Args:
            changes: (number, change), in order.
            running: the jobs that hold GPUs.
        """
        events: list[Event] = []
        look: set[int] = set()
        drained: dict[int, NodeChange] = {}  # those told to drain by this
        for number, change in changes:
            said = self._history.news(change)
            events += [Event(change.time, Kind.NODE, 0, 0, data) for data in said]
            if self._watch(number, change):
                look.add(number)
            if any(data["what"] == "draining" for data in said):
                drained[number] = change
        self.watching = bool(self._closes or self._left)
        for job in running if look else ():
            if any([piece[0] in look for piece in job.placement]):  # noqa: C419 - faster than a generator
                self._enter(job, look)
        for number, change in drained.items():
            if not self._left.get(number, True):
                events.append(_drained(change.time, change.node.name))
        return events

    def _watch(self, number: int, change: NodeChange) -> bool:
        """Keep in mind when a node closes. True = who runs there has to be looked up."""
        node, new = change.node, False
        closes = None if change.gone else node.closes
        if closes is None:
            self._closes.pop(number, None)
        elif self._closes.get(number) != closes:
            self._closes[number] = closes
            new = True
        if DRAIN not in node.orders:
            self._left.pop(number, None)
        elif number not in self._left:
            self._left[number] = set()
            new = True
        return new

    def placed(self, job: Job) -> None:
        """A job goes to its nodes."""
        self._enter(job, self._closes.keys() | self._left.keys())

    def left(self, job: Job, time: float) -> list[Event]:
        """A job is gone from its nodes: those that are drained by that."""
        events = []
        for piece in job.placement:
            there = self._left.get(piece.node)
            if there is not None and job.id in there:
                there.discard(job.id)
                if not there:
                    events.append(_drained(time, self._pool.nodes[piece.node].name))
        return events

    def _enter(self, job: Job, nodes: Iterable[int]) -> None:
        for number in {piece.node for piece in job.placement}.intersection(nodes):
            if number in self._left:
                self._left[number].add(job.id)
            closes = self._closes.get(number)
            if closes is not None:
                heappush(self._timers, (closes - self._grace(job), job.id, job.attempt, number))
                self.next = self._timers[0][0]

    def due(self, now: float, jobs: dict[int, Job]) -> list[Due]:
        """The jobs that have to be told to go at `now`. Asked twice, it names them once."""
        found: dict[int, Due] = {}
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, job_id, attempt, number = heappop(timers)
            job, closes = jobs.get(job_id), self._closes.get(number)
            if job is None or job.attempt != attempt or job.state not in _GOES or closes is None or job_id in found:
                continue
            if closes - self._grace(job) > now:
                continue  # the deadline was put off, and has a timer of its own
            found[job_id] = Due(job, self._why(number, closes))
        self.next = timers[0][0] if timers else math.inf
        return list(found.values())

    def _why(self, number: int, closes: float) -> dict[str, Any]:
        """What the journal says of a job that has to leave a node."""
        node = self._pool.nodes[number]
        drain, window = node.orders.get(DRAIN), node.orders.get(MAINTENANCE)
        if window is not None and (drain is None or drain["deadline"] != closes):
            words = f"node {node.name} is in maintenance from {at(window['start'])} to {at(window['end'])}"
            return _told(MAINTENANCE, node.name, closes, window, words) | {"window": window["id"]}
        order = drain or {"by": "", "reason": ""}
        by = f" by {order['by']}" if order["by"] else ""
        return _told(DRAIN, node.name, closes, order, f"node {node.name} is drained{by} until {at(closes)}")


def _told(cause: str, node: str, closes: float, order: dict[str, Any], words: str) -> dict[str, Any]:
    reason = f": {order['reason']}" if order["reason"] else ""
    return {
        "cause": cause,
        "node": node,
        "deadline": closes,
        "by": order["by"],
        "reason": order["reason"],
        "message": words + reason,
    }


def _drained(time: float, name: str) -> Event:
    return Event(time, Kind.NODE, 0, 0, {"node": name, "what": "drained"})


def at(time: float) -> str:
    """A time as people read it, in UTC; in a simulation as seconds since its beginning."""
    if time < 1e8:  # noqa: PLR2004 - no clock of this century shows so little
        return f"{time:g} s"
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
