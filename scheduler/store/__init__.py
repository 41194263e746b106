"""What the engine remembers by. Two stores keep the same promises: `MemoryStore` here and `SqlStore` in sql.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ...cluster.backend import NodeChange
from ...jobs.events import Event
from ...jobs.job import FINAL, Job
from ...policies.plan import Decision


class Store(Protocol):
    """The truth. `commit` is the only way in, and all or nothing.

    Promises, kept by every store (tests/contract): what `commit` returned from is there after a crash; a commit that
    raised left nothing; jobs, events and decisions of one commit appear together; events come back in the order in
    which they were committed.
    """

    def commit(
        self,
        *,
        jobs: Iterable[Job] = (),
        events: Sequence[Event] = (),
        decisions: Sequence[Decision] = (),
        nodes: Sequence[tuple[int, NodeChange]] = (),
    ) -> None:
        """Write the present state of `jobs`, and append events and decisions, in one transaction.

        Args:
            jobs: new and changed jobs; each once.
            events: a SUBMITTED event's data is the Job itself, a PLACED event's is the Placement (node indices).
            decisions: what the policy decided.
            nodes: (index in the pool, change) for nodes that came, changed or went.

        Raises:
            StoreError: the database cannot be written; nothing of this commit is there.
        """
        ...

    def last_job_id(self) -> int:
        """The highest job id ever given out; 0 = none."""
        ...

    def unfinished(self) -> list[Job]:
        """Every job that is not in a final state, by id: what a restarted engine goes on with."""
        ...

    def job(self, job_id: int) -> Job | None:
        """One job as last committed."""
        ...

    def events(self, job_id: int | None = None, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Event]]:
        """(sequence number from 1, event) after a sequence number, of one job or of all."""
        ...

    def decisions(self, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Decision]]:
        """(sequence number from 1, decision) after a sequence number."""
        ...

    def known_nodes(self) -> list[tuple[int, NodeChange]]:
        """(index in the pool, how it was last) of every node ever committed, by index: placements refer to these."""
        ...


class MemoryStore:
    """Keeps everything in lists, for simulations and tests."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.journal: list[Event] = []
        self.choices: list[Decision] = []
        self.nodes: list[tuple[int, NodeChange]] = []

    def commit(
        self,
        *,
        jobs: Iterable[Job] = (),
        events: Sequence[Event] = (),
        decisions: Sequence[Decision] = (),
        nodes: Sequence[tuple[int, NodeChange]] = (),
    ) -> None:
        """Append; it cannot fail half-way."""
        known = self.jobs
        for job in jobs:
            known[job.id] = job
        self.journal.extend(events)
        self.choices.extend(decisions)
        if nodes:
            self.nodes.extend(nodes)

    def last_job_id(self) -> int:
        """The highest id."""
        return max(self.jobs, default=0)

    def unfinished(self) -> list[Job]:
        """Jobs not in a final state, by id."""
        return sorted((job for job in self.jobs.values() if job.state not in FINAL), key=lambda job: job.id)

    def job(self, job_id: int) -> Job | None:
        """One job."""
        return self.jobs.get(job_id)

    def events(self, job_id: int | None = None, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Event]]:
        """Numbered events."""
        found = [
            (number, event)
            for number, event in enumerate(self.journal[after:], after + 1)
            if job_id is None or event.job == job_id
        ]
        return found if limit is None else found[:limit]

    def decisions(self, *, after: int = 0, limit: int | None = None) -> list[tuple[int, Decision]]:
        """Numbered decisions."""
        end = None if limit is None else after + limit
        return list(enumerate(self.choices[after:end], after + 1))

    def known_nodes(self) -> list[tuple[int, NodeChange]]:
        """The last change of each node."""
        return sorted(dict(self.nodes).items())
