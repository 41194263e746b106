"""A control plane's connection to the cluster: a backend that tells the truth late, twice and out of order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from storm_cluster import Cluster, Key

from gpusched.cluster.backend import News, NodeChange
from gpusched.jobs.events import NOTES, Event, Kind
from gpusched.jobs.job import Job, State


@dataclass(slots=True)
class Link:
    """One connection of a control plane to the cluster: a `Backend`. Orders and reports travel; some are slow.

    Orders arrive in order. When the process that gave them dies, those on their way may be lost. Its gateway may die
    alone: then what was on its way in either direction is lost, and the next gateway asks what runs, as the real one.

    Attributes:
        wanted: what should run by the control plane's account: how long it may take to go, if it was told to.
        asked: starts that no gateway has passed on yet. adopted: whether the control plane has said what runs.
        term: of the lease under which orders are given.
    """

    cluster: Cluster
    point: Callable[[str], None]
    orders: deque[Callable[[], None]] = field(default_factory=deque)
    _out: list[tuple[float, int, Event]] = field(default_factory=list)
    _nodes: list[tuple[float, NodeChange]] = field(default_factory=list)
    _told: dict[str, NodeChange] = field(default_factory=dict)
    wanted: dict[Key, tuple[State, float | None]] = field(default_factory=dict)
    asked: dict[Key, Callable[[], None]] = field(default_factory=dict)
    _last: dict[Key, float] = field(default_factory=dict)
    _count: int = 0
    cut: bool = False
    adopted: bool = False
    term: Callable[[], int] = lambda: 0
    _under: int = 0

    def open(self) -> None:
        """Connect: the nodes that are there are told first."""
        cluster = self.cluster
        cluster.links.append(self)
        for name in cluster.nodes:
            seen = cluster.as_seen(name)
            if not seen.gone:
                self._nodes.append((cluster.time, seen))

    def die(self, arrived: float) -> None:
        """The process is gone. A part of what it ordered arrives, the rest does not."""
        for _ in range(round(arrived * len(self.orders))):
            self.orders.popleft()()
        self.orders.clear()
        self.cut = True
        self.cluster.links.remove(self)

    def lose_gateway(self) -> None:
        """The gateway dies alone, and the next one asks what became of what should run."""
        cluster = self.cluster
        arrived = round(cluster.throw() * len(self.orders))
        for _ in range(arrived):
            self.orders.popleft()()
        self.orders.clear()
        self._out.clear()
        self._nodes.clear()
        for name in cluster.nodes:
            before, seen = self._told.get(name), cluster.as_seen(name)
            if (not seen.gone) if before is None else (before.node, before.gone) != (seen.node, seen.gone):
                self._nodes.append((cluster.time, seen))
        waiting = dict(self.asked)
        named = {key: state for key, (state, _) in self.wanted.items() if key not in waiting}
        stops = {key: grace for key, (_, grace) in self.wanted.items() if grace is not None}
        if self.adopted:
            self._order(lambda: cluster.adopt(named, others=waiting.keys()))
        for start in waiting.values():
            self._order(start)
        for key, grace in stops.items():
            self._order(lambda key=key, grace=grace: cluster.stop(*key, grace))  # type: ignore[misc] # a lambda's default

    def tell(self, event: Event, late: float, *, in_order: bool) -> None:
        """A report on its way; one who stands by is told of nodes only."""
        if not self.adopted:
            return
        self._count += 1
        key = event.job, event.attempt
        due = self.cluster.time + late
        if in_order:
            due = self._last[key] = max(due, self._last.get(key, 0.0))
        heappush(self._out, (due, self._count, event))

    def tell_node(self, change: NodeChange) -> None:
        """News of a node on its way; they stay in order."""
        late = 5 * self.cluster.throw() if self.cluster.throw() < self.cluster.rough.late else 0.0
        last = self._nodes[-1][0] if self._nodes else 0.0
        self._nodes.append((max(self.cluster.time + late, last), change))

    def quiet(self) -> bool:
        """Nothing is on its way in either direction."""
        return not (self.orders or self._out or self._nodes)

    # Backend ------------------------------------------------------------------------------------------------------

    def poll(self, now: float) -> News:  # noqa: ARG002 - reports carry the cluster's time
        """What has arrived."""
        self.point("poll")
        time = self.cluster.time
        nodes, events = [], []
        while self._nodes and self._nodes[0][0] <= time:
            nodes.append(self._nodes.pop(0)[1])
            self._told[nodes[-1].node.name] = nodes[-1]
        while self._out and self._out[0][0] <= time:
            events.append(heappop(self._out)[2])
            self._heard(events[-1])
        self.point("polled")
        return News(nodes, events)

    def _heard(self, event: Event) -> None:
        """What should run is what was not said to be over."""
        key = event.job, event.attempt
        if event.kind is Kind.STARTED:
            if key in self.wanted:
                self.wanted[key] = State.RUNNING, self.wanted[key][1]
        elif event.kind not in NOTES:
            self.wanted.pop(key, None)

    def next_time(self) -> float | None:
        """Not known, as with the live one."""
        return None

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:  # noqa: ARG002 - the cluster has its own time
        """On its way."""
        self.point(f"start of {job.id}")
        cluster, ask, key = self.cluster, (job.id, job.attempt, job.shape, job.placement, nodes), (job.id, job.attempt)
        self.wanted.setdefault(key, (State.STARTING, None))

        def start() -> None:
            self.asked.pop(key, None)
            cluster.start(*ask)

        self.asked[key] = start
        self._order(start)
        self.point(f"started {job.id}")

    def stop(self, job: Job, grace: float, now: float) -> None:  # noqa: ARG002 - the same
        """On its way."""
        self.point(f"stop of {job.id}")
        cluster, key = self.cluster, (job.id, job.attempt)
        if key in self.wanted:
            self.wanted[key] = self.wanted[key][0], grace
        self._order(lambda: cluster.stop(*key, grace))
        self.point(f"stopped {job.id}")

    def adopt(self, jobs: list[Job], now: float) -> None:  # noqa: ARG002 - the same
        """On its way, behind what was ordered before."""
        self.point("adopt")
        cluster, named = self.cluster, {(job.id, job.attempt): job.state for job in jobs}
        self.adopted, self._under = True, self.term()
        self.asked = {key: start for key, start in self.asked.items() if key in named}
        self.wanted = {
            key: (state, 60.0 if state in {State.STOPPING, State.PREEMPTING} else None) for key, state in named.items()
        }
        self._order(lambda: cluster.adopt(named))
        self.point("adopted")

    def _order(self, order: Callable[[], None]) -> None:
        cluster, term = self.cluster, self._under
        self.orders.append(lambda: cluster.obey(term, order))
        late = 2 * cluster.throw() if cluster.throw() < cluster.rough.late / 2 else 0.0
        cluster.after(late, self._arrive)

    def _arrive(self) -> None:
        """As many have arrived as were due; whichever was slow held up those behind it."""
        if self.orders and not self.cut:
            self.orders.popleft()()

    def close(self) -> None:
        """Nothing to let go of."""
