"""The engine's arrays: their tasks become jobs as there is room, and what is asked of an array is done to its tasks.

A hundred thousand tasks are accepted with one row. A few of them at a time are jobs in the queue, in order of their
index; as these start, the next are made. So neither the queue nor a transaction grows with an array. Each step is
written with the count of what is made: a restart goes on there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..jobs.arrays import ARRAY_MOVES
from ..jobs.errors import ConflictError
from ..jobs.events import MOVES, Event, Kind
from ..jobs.job import FINAL, HOLDING, Job, State

if TYPE_CHECKING:
    from .engine import Engine

WINDOW = 1_000
"""Tasks of one array that wait in line at once."""
CHUNK = 1_000
"""Tasks that one turn makes, or cancels."""


class Arrays:
    """Arrays that have not ended, by id, and the tasks of each that are jobs and have not ended.

    Args:
        engine: whose.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.jobs: dict[int, Job] = {}
        self.live: dict[int, set[int]] = {}
        self.due: set[int] = set()  # arrays that the next turn has work for

    def add(self, array: Job) -> None:
        """An array that was submitted, or is in the store."""
        self.jobs[array.id] = array
        self.live.setdefault(array.id, set())
        self.due.add(array.id)

    def remember(self, task: Job) -> None:
        """A task that is in the store and has not ended."""
        self.live.setdefault(task.array_id, set()).add(task.id)

    def moved(self, task: Job, old: State) -> None:
        """A task went from one state to another."""
        array = self.jobs.get(task.array_id)
        if array is None or array.tasks is None or old is task.state:
            return
        array.tasks.moved(old, task.state)
        if task.state in FINAL:
            self.live[array.id].discard(task.id)
        self._engine.changed(array)
        self.due.add(array.id)

    def first_waiting(self, array_id: int) -> Job | None:
        """The task that comes next."""
        jobs = self._engine.jobs
        return min(
            (jobs[number] for number in self.live.get(array_id, ()) if jobs[number].state is State.QUEUED),
            key=lambda job: job.id,
            default=None,
        )

    def obey(self, event: Event) -> ConflictError | None:
        """A user's wish for a whole array."""
        array = self.jobs[event.job]
        live = [self._engine.jobs[number] for number in sorted(self.live[array.id])]
        if event.kind is Kind.PREEMPTED:
            running = [job for job in live if job.state in HOLDING]
            self._move_all(running, event)
            return None if running else ConflictError(f"no task of array {array.id} runs")
        if event.kind not in ARRAY_MOVES[array.state]:
            return ConflictError(f"array {array.id} is {array.state}: it cannot be {event.kind} now")
        self._take(array, event)
        if event.kind is not Kind.CANCELLED:
            self._move_all(live, event)
        return None

    def _move_all(self, tasks: list[Job], event: Event) -> None:
        for task in tasks:
            move = MOVES[task.state].get(event.kind)
            if move is not None:
                self._engine.move(task, move, event._replace(job=task.id, attempt=task.attempt))

    def _take(self, array: Job, event: Event) -> None:
        """One edge of the table of arrays."""
        array.state, array.reason = ARRAY_MOVES[array.state][event.kind]
        if array.state in FINAL:
            array.ended = event.time
            del self.jobs[array.id], self.live[array.id]
            self.due.discard(array.id)
        else:
            self.due.add(array.id)
        self._engine.changed(array, event)

    def turn(self, now: float) -> None:
        """What is due: tasks become jobs, those of a cancelled array go, an array ends."""
        budget = CHUNK
        for number in sorted(self.due):
            if budget <= 0:
                return
            array = self.jobs[number]
            budget -= (
                self._cancel(array, now, budget) if array.state is State.STOPPING else self._make(array, now, budget)
            )
            self._settle(array, now)

    def _make(self, array: Job, now: float, budget: int) -> int:
        tasks = array.tasks
        assert tasks is not None, "an array has tasks"
        room = WINDOW - tasks.states[State.QUEUED] if array.state is not State.HELD else 0
        if tasks.indices.limit:
            room = min(room, tasks.indices.limit - tasks.live)
        room = min(room, tasks.count - tasks.made)
        for _ in range(min(room, budget)):
            self._engine.enter(_task(array, tasks.made, now), now)
            self.live[array.id].add(array.id + 1 + tasks.made)
            tasks.made += 1
            tasks.moved(None, State.QUEUED)
        if room > 0:
            self._engine.changed(array)
        if room <= budget:
            self.due.discard(array.id)
        return max(min(room, budget), 0)

    def _cancel(self, array: Job, now: float, budget: int) -> int:
        engine, done = self._engine, 0
        for number in sorted(self.live[array.id]):
            task = engine.jobs[number]
            move = MOVES[task.state].get(Kind.CANCELLED)
            if move is None:
                continue  # it is stopping already
            if done == budget:
                return done
            engine.move(task, move, Event(now, Kind.CANCELLED, task.id, task.attempt))
            done += 1
        self.due.discard(array.id)
        return done

    def _settle(self, array: Job, now: float) -> None:
        """It runs with its first task, and ends with its last."""
        tasks = array.tasks
        assert tasks is not None, "an array has tasks"
        if array.state is State.QUEUED and any(tasks.states[state] for state in HOLDING):
            self._take(array, Event(now, Kind.STARTED, array.id))
            array.started = array.first_start = now if array.started is None else array.started
        if tasks.live:
            return
        if array.state is State.STOPPING:
            self._take(array, Event(now, Kind.STOPPED, array.id))
        elif tasks.made == tasks.count:
            well = tasks.states[State.SUCCEEDED] == tasks.count
            self._take(array, Event(now, Kind.SUCCEEDED if well else Kind.FAILED, array.id))


def _task(array: Job, number: int, now: float) -> Job:
    """A task of an array as a job. It counts as submitted with its array, and waits from now on."""
    task = Job(
        array.id + 1 + number,
        array.shape,
        array.submitted,
        name=array.name,
        queue=array.queue,
        user=array.user,
        priority=array.priority,
        estimate=array.estimate,
        limit=array.limit,
        preemptible=array.preemptible,
        spec=array.spec,
    )
    assert array.tasks is not None, "an array has tasks"
    task.array_id, task.array_index = array.id, array.tasks.indices.index(number)
    task.min_runtime, task.queued = array.min_runtime, now
    return task
