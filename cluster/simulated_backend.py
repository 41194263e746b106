"""A cluster without hardware: it runs jobs in virtual time and reports the same events as the live one."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush

from ..jobs.events import Event, Kind, event_of
from ..jobs.job import Job
from .backend import News, Node, NodeChange

_NOTHING = News()


class SimulatedBackend:
    """Runs each attempt for its job's true duration.

    What it knows and the policies do not is the duration of each run, handed over with `expect`. Start-up latency is
    in seconds and 0 by default, so that textbook results are exact. A stopped job is gone at once.
    """

    def __init__(self, nodes: Iterable[Node], *, start_up: float = 0.0) -> None:
        self._nodes = tuple(NodeChange(0.0, node) for node in nodes)
        self._start_up = start_up
        self._durations: dict[int, float] = {}
        # (time, job, attempt) of each end; with -attempt, of a start that is news by itself. Of what was stopped they
        # stay, stale.
        self._ends: list[tuple[float, int, int]] = []
        self._running: dict[int, int] = {}  # job -> attempt
        self._reports: list[Event] = []  # what happened at once; it waits for the next poll

    def expect(self, job_id: int, duration: float) -> None:
        """A job that may be started later runs for so many seconds."""
        self._durations[job_id] = duration

    def poll(self, now: float) -> News:
        """What ended by now, after what was reported at once."""
        ends = self._ends
        if not self._reports and not self._nodes and (not ends or ends[0][0] > now):
            return _NOTHING
        events, self._reports = self._reports, []
        running = self._running
        while ends and ends[0][0] <= now:
            time, job_id, attempt = heappop(ends)
            if running.get(job_id) == attempt:
                del running[job_id]
                del self._durations[job_id]
                events.append(event_of((time, Kind.FINISHED, job_id, attempt, None)))
            elif attempt < 0 and running.get(job_id) == -attempt:
                events.append(event_of((time, Kind.STARTED, job_id, -attempt, None)))
        nodes, self._nodes = self._nodes, ()
        return News(nodes, events)

    def next_time(self) -> float | None:
        """The next end or late start. A start at once is reported with the news that follow: it changes nothing."""
        return self._ends[0][0] if self._ends else None

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:  # noqa: ARG002 - all nodes are alike here
        """It runs from now plus the start-up latency."""
        job_id, attempt = job.id, job.attempt
        if self._running.get(job_id) == attempt:
            return
        self._running[job_id] = attempt
        begun = now + self._start_up if self._start_up else now  # whole seconds stay whole
        if self._start_up or job.limit is not None:  # its time limit counts from here
            heappush(self._ends, (begun, job_id, -attempt))
        else:
            self._reports.append(event_of((begun, Kind.STARTED, job_id, attempt, None)))
        heappush(self._ends, (begun + self._durations[job_id], job_id, attempt))

    def stop(self, job: Job, grace: float, now: float) -> None:  # noqa: ARG002 - it obeys at once
        """It ends now, by SIGTERM."""
        if self._running.get(job.id) == job.attempt:
            del self._running[job.id]
        heappush(self._ends, (now, -1, 0))  # a poll is due now
        self._reports.append(Event(now, Kind.FINISHED, job.id, job.attempt, {"exit_code": 143}))

    def adopt(self, jobs: list[Job], now: float) -> None:
        """What runs here runs on, if it is named; nothing outlives the simulation that it was started in."""
        ours = {job.id: job.attempt for job in jobs}
        self._running = {job_id: attempt for job_id, attempt in self._running.items() if ours.get(job_id) == attempt}
        heappush(self._ends, (now, -1, 0))  # a poll is due now
        for job in jobs:
            kind = Kind.STARTED if self._running.get(job.id) == job.attempt else Kind.VANISHED
            self._reports.append(Event(now, kind, job.id, job.attempt))

    def close(self) -> None:
        """Nothing to let go of."""
