"""Backends made ready for the contract: each bed says in its own way what the suite asks for."""

from __future__ import annotations

from typing import Protocol

from gpusched.cluster.backend import Backend, Node
from gpusched.cluster.profile import ZERO, Profile
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape


class Bed(Protocol):
    """What the suite needs of a backend. Add one for another backend, and its name to the fixture's params."""

    backend: Backend
    nodes: list[Node]

    def job(self, seconds: float, pieces: int = 1, *, limit: float | None = None) -> Job:
        """A job of 1-GPU pieces on the first nodes that runs so long, placed and ready to be started."""
        ...

    def start(self, job: Job) -> None:
        """Ask the backend to start it, now."""
        ...

    def stop(self, job: Job) -> None:
        """Ask the backend to end it, now."""
        ...

    def until(self, job: Job, kind: Kind) -> Event:
        """Poll until this is reported of the job's present attempt; a time-out fails the test."""
        ...

    def reports(self, job: Job) -> list[Event]:
        """All that was reported so far of the job's present attempt."""
        ...


class SimulatedBed:
    """Virtual time: waiting is a jump to the next news."""

    def __init__(self, profile: Profile = ZERO) -> None:
        self.backend = SimulatedBackend([Node(f"n{number}", 2) for number in range(3)], profile=profile)
        self.now = 0.0
        self.events: list[Event] = []
        self.nodes = [change.node for change in self.backend.poll(self.now).nodes]
        self._jobs = 0

    def job(self, seconds: float, pieces: int = 1, *, limit: float | None = None) -> Job:
        self._jobs += 1
        job = Job(self._jobs, Shape(pieces, 1), self.now, limit=limit)
        job.attempt = 1
        job.placement = tuple(Piece(number, 1) for number in range(pieces))
        self.backend.expect(job.id, seconds)
        return job

    def start(self, job: Job) -> None:
        self.backend.start(job, tuple(self.nodes[piece.node].name for piece in job.placement), self.now)

    def stop(self, job: Job) -> None:
        self.backend.stop(job, 5.0, self.now)

    def poll(self) -> None:
        self.events += self.backend.poll(self.now).events

    def until(self, job: Job, kind: Kind) -> Event:
        while True:
            self.poll()
            found = [event for event in self.reports(job) if event.kind is kind]
            if found:
                return found[0]
            due = self.backend.next_time()
            assert due is not None, f"nothing is due, and job {job.id} was not {kind}: {self.events}"
            self.now = max(self.now, due)

    def reports(self, job: Job) -> list[Event]:
        return [event for event in self.events if (event.job, event.attempt) == (job.id, job.attempt)]
