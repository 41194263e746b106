"""Who waits for something to be committed is told when it is: for `wait`, `logs -f` and the stream of events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ..cluster.backend import NodeChange
from ..jobs.events import Event
from ..jobs.job import Job
from ..policies.plan import Decision
from .limits import Census
from .settings import Limits
from .store import Store

Listener = Callable[[frozenset[int]], None]
"""Called in the committing thread with the ids of the jobs that changed; it must be quick and must not raise."""


class AnnouncingStore:
    """A `Store` that tells listeners after each commit. Everything else is passed on to the store it was given.

    Attributes:
        commits: how many there were; while it stays the same, so does all that was committed.
        census: how many jobs wait, as of the last commit.
    """

    def __init__(self, store: Store, census: Census | None = None) -> None:
        self._store = store
        self.census = census or Census(Limits())
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self.commits = 0
        self.last_job_id = store.last_job_id
        self.unfinished = store.unfinished
        self.job = store.job
        self.events = store.events
        self.decisions = store.decisions
        self.known_nodes = store.known_nodes

    def commit(
        self,
        *,
        jobs: Iterable[Job] = (),
        events: Sequence[Event] = (),
        decisions: Sequence[Decision] = (),
        nodes: Sequence[tuple[int, NodeChange]] = (),
    ) -> None:
        """Passed on, then announced."""
        written = list(jobs)
        self._store.commit(jobs=written, events=events, decisions=decisions, nodes=nodes)
        self.commits += 1
        self.census.saw(written)
        listeners = self._listeners
        if listeners:
            changed = frozenset(event.job for event in events)
            for listener in listeners:
                listener(changed)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Call `listener` at each commit inside the block."""
        with self._lock:
            self._listeners = (*self._listeners, listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)
