"""A cluster without hardware: it runs jobs in virtual time and reports the same events as the live one."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf
from typing import Any

from ..jobs.events import Event, Kind, event_of
from ..jobs.job import Job, State
from ..jobs.outcome import outcome
from .backend import News, Node, NodeChange
from .conditions import Conditions
from .course import Course
from .faults import NodeFaults
from .profile import ZERO, Profile

QUIET = 365 * 86400.0
"""Seconds for which nodes go on to fail and come back while nothing runs: who waits longer waits for ever."""

_NOTHING = News()
_STARTED, _FINISHED = Kind.STARTED, Kind.FINISHED  # members of an Enum are slow to look up on the hot path
_TRIED_AGAIN = frozenset({Kind.RETRIED, Kind.REQUEUED})


class SimulatedBackend:
    """Runs each attempt for its job's true duration, at the costs and with the faults of a profile.

    What it knows and the policies do not is the duration of each run, handed over with `expect`. Without a profile
    nothing costs anything: an attempt works from its start on, all its work is kept, what is stopped is gone at once.

    The end of an attempt that is to go on later says what it came to, in `Event.data`, in wall seconds: `kept` (work
    that need not be repeated), `lost` (work that must be) and `overhead` (time without work); together the time
    from start to end. Under a profile every end says so, and `rate` where it is not 1: kept x rate of all attempts of a
    job that is done add up to its duration.

    Args:
        nodes: the cluster.
        profile: what things cost and how they fail.
        seed: of all chance in it.
    """

    def __init__(self, nodes: Sequence[Node], *, profile: Profile = ZERO, seed: int = 0) -> None:
        self._nodes: Sequence[NodeChange] = [NodeChange(0.0, node) for node in nodes]
        self._left: dict[int, float] = {}  # job -> seconds of work that are left, at rate 1
        # (time, job, attempt) of each end; with -attempt, of a start that is news by itself. Of what was stopped they
        # stay, stale.
        self._ends: list[tuple[float, int, int]] = []
        self._running: dict[int, int] = {}  # job -> attempt
        self._begun: dict[int, float] = {}  # job -> when that attempt began
        self._reports: list[Event] = []  # what happened at once; it waits for the next poll
        # Under a profile only.
        self._conditions = None if profile == ZERO else Conditions(nodes, profile, seed)
        self._courses: dict[int, Course] = {}  # of what runs
        self._models: dict[int, str] = {}
        self._saved: set[int] = set()  # jobs that have something to restore
        faults = NodeFaults(nodes, profile.failures, seed)
        self._faults = faults if faults.due < inf else None
        self._on: dict[str, dict[int, Course]] = {}  # node -> what runs there, by job
        self._open: set[int] = set()  # jobs that run or may yet
        self._polled = 0.0
        self._quiet_since = 0.0  # nothing has come or gone since then

    def expect(self, job_id: int, duration: float, model: str = "") -> None:
        """A job that may be started later runs for so many seconds at rate 1; `model` is what it trains, if known."""
        if self._conditions is not None:
            duration = self._conditions.work(job_id, duration)
            if self._faults is not None:
                self._open.add(job_id)
                self._quiet_since = self._polled
            if model:
                self._models[job_id] = model
        self._left[job_id] = duration

    def poll(self, now: float) -> News:
        """What ended by now, after what was reported at once."""
        ends, faults = self._ends, self._faults
        ended = ends and ends[0][0] <= now
        if not (ended or self._reports or self._nodes or faults):
            return _NOTHING
        events, self._reports = self._reports, []
        nodes, self._nodes = self._nodes, ()
        if faults is not None:
            self._polled = now
            if faults.due <= now:
                nodes = [*nodes, *self._fail_nodes(faults, now, events)]
        if ended:
            self._end_attempts(now, events)
        return News(nodes, events)

    def _end_attempts(self, now: float, events: list[Event]) -> None:
        """What starts and ends by itself by now."""
        ends, running, free = self._ends, self._running, self._conditions is None
        while ends and ends[0][0] <= now:
            time, job_id, attempt = heappop(ends)
            if running.get(job_id) == attempt:
                if free:
                    del running[job_id], self._left[job_id], self._begun[job_id]
                    events.append(event_of((time, _FINISHED, job_id, attempt, None)))
                elif (course := self._courses[job_id]).ends == time:  # else it was told to stop meanwhile
                    events.append(self._end(course, Kind.FINISHED, time))
            elif attempt < 0 and running.get(job_id) == -attempt:
                events.append(event_of((time, _STARTED, job_id, -attempt, None)))

    def _fail_nodes(self, faults: NodeFaults, now: float, events: list[Event]) -> list[NodeChange]:
        """Nodes that go and come back by now. What has ended by the time that its node goes has ended by itself."""
        changes = []
        while faults.due <= now:
            change = faults.take()
            changes.append(change)
            if not change.gone:
                continue
            self._end_attempts(change.time, events)
            name = change.node.name
            there = list(self._on.get(name, {}).values())
            events += [self._end(course, Kind.VANISHED, change.time, f"node {name} failed") for course in there]
        return changes

    def _end(self, course: Course, kind: Kind, time: float, message: str = "") -> Event:
        """An attempt is over: what is left of its job, and the report."""
        job = course.job
        data: dict[str, Any] = {"exit_code": course.exit_code} if kind is Kind.FINISHED else {"message": message}
        data |= course.account(time)
        del self._running[job.id], self._courses[job.id]
        if data["kept"]:
            self._left[job.id] = max(self._left[job.id] - data["kept"] * course.rate, 0)
            self._saved.add(job.id)
        if self._faults is not None:
            for name in dict.fromkeys(course.nodes):
                del self._on[name][job.id]
            self._quiet_since = time
            if outcome(job, kind, data) not in _TRIED_AGAIN:
                self._open.discard(job.id)
        return Event(time, kind, job.id, job.attempt, data)

    def next_time(self) -> float | None:
        """The next end or late start. A start at once is reported with the news that follow: it changes nothing."""
        ends, faults = self._ends, self._faults
        due = ends[0][0] if ends else None
        if faults is None or not self._open:
            return due
        # A node that goes or comes back matters while somebody runs, or waits with hope.
        if (due is None or faults.due < due) and (self._running or faults.due <= self._quiet_since + QUIET):
            return faults.due
        return due

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:
        """It begins now, or after its start-up."""
        job_id, attempt = job.id, job.attempt
        if self._running.get(job_id) == attempt:
            return
        begins = now
        if self._conditions is None:
            ends = now + self._left[job_id]
            self._begun[job_id] = now
        else:
            if self._faults is not None and not self._faults.down.isdisjoint(nodes):
                heappush(self._ends, (now, -1, 0))  # a poll is due now
                self._reports.append(Event(now, Kind.REFUSED, job_id, attempt, {"message": "a node is down"}))
                return
            course = self._conditions.course(
                job, nodes, now, self._left[job_id], self._models.get(job_id, ""), restores=job_id in self._saved
            )
            self._courses[job_id] = course
            if self._faults is not None:
                self._open.add(job_id)
                for name in nodes:
                    self._on.setdefault(name, {})[job_id] = course
            begins, ends = course.begins, course.ends
        self._running[job_id] = attempt
        if begins > now or job.limit is not None:  # its time limit counts from here
            heappush(self._ends, (begins, job_id, -attempt))
        else:
            self._reports.append(event_of((begins, _STARTED, job_id, attempt, None)))
        heappush(self._ends, (ends, job_id, attempt))

    def stop(self, job: Job, grace: float, now: float) -> None:  # noqa: ARG002 - the profile says how long it takes
        """It ends by SIGTERM: at once, or after the grace of the profile."""
        job_id = job.id
        if self._running.get(job_id) != job.attempt:
            self._report(job, now, {"exit_code": 143})
        elif self._conditions is None:
            del self._running[job_id]
            kept = now - self._begun.pop(job_id)
            self._left[job_id] -= kept
            over = job.state is State.STOPPING
            self._report(
                job, now, {"exit_code": 143} if over else {"exit_code": 143, "kept": kept, "lost": 0, "overhead": 0}
            )
        elif self._courses[job_id].stopped is None:
            course = self._courses[job_id]
            course.stop(now, self._conditions.grace(job), saves=self._conditions.saves_before_stop)
            heappush(self._ends, (course.ends, job_id, job.attempt))
            if course.ends == now:
                self._reports.append(self._end(course, Kind.FINISHED, now))

    def _report(self, job: Job, now: float, data: dict[str, Any]) -> None:
        heappush(self._ends, (now, -1, 0))  # a poll is due now
        self._reports.append(Event(now, Kind.FINISHED, job.id, job.attempt, data))

    def adopt(self, jobs: list[Job], now: float) -> None:
        """What runs here runs on, if it is named; nothing outlives the simulation that it was started in."""
        ours = {job.id: job.attempt for job in jobs}
        self._running = {job_id: attempt for job_id, attempt in self._running.items() if ours.get(job_id) == attempt}
        self._courses = {job_id: course for job_id, course in self._courses.items() if job_id in self._running}
        for there in self._on.values():
            for job_id in there.keys() - self._running.keys():
                del there[job_id]
        heappush(self._ends, (now, -1, 0))  # a poll is due now
        for job in jobs:
            kind = Kind.STARTED if self._running.get(job.id) == job.attempt else Kind.VANISHED
            self._reports.append(Event(now, kind, job.id, job.attempt))

    def close(self) -> None:
        """Nothing to let go of."""
