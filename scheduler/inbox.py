"""Requests of users on their way into the engine, and the answers on their way back, once they are on disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from ..jobs.errors import ConflictError, GpuschedError, UnreachableError
from ..jobs.events import Event, Kind
from ..jobs.job import Job
from .access.asking import ASKING
from .engine import Engine
from .limits import Meter, busy

T = TypeVar("T")

MOST = 20_000
"""Requests that one tick takes, so that a flood does not hold up what the cluster reports. One call is never split."""


class _Call(NamedTuple):
    """What one call asked for: events that are written together, and what is answered when they are."""

    events: list[Event]
    future: Future[Any]
    answer: Any
    kept: bool = False  # it goes with what is done already: if it cannot be written, the next turn tries again


def _number(job: Job, number: int) -> None:
    """Give a job its id; an array is its own."""
    job.id = number
    if job.tasks is not None:
        job.array_id = number


class LiveInbox:
    """An `engine.Inbox` that any thread may put requests into. Every request is answered by a future.

    A future of `submit` or `ask` resolves once its commit returned: it is durable. All requests that waited when a
    tick began share its transaction. If the commit fails, all of them fail with its StoreError and none is there.

    Args:
        now: the clock's.
        wake: ends the clock's wait; called for each request.
        most: changes that may wait to be written, and questions for their answers; 0 = any number. What comes beyond
            fails with a BusyError that says when to ask again.

    Attributes:
        backlog: changes that wait to be written.
    """

    def __init__(self, now: Callable[[], float], wake: Callable[[], None], most: int = 100_000) -> None:
        self.most = most
        self.backlog = 0
        self._settled = Meter()
        self._now = now
        self._wake = wake
        self._lock = threading.Lock()
        self._calls: deque[_Call] = deque()
        self._questions: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._polled: list[_Call] = []  # of the tick that is going on
        self._last_id = 0
        self._closed: GpuschedError | None = None

    def number_from(self, last_id: int) -> None:
        """Give ids above this one from now on. They only rise: an id is never given twice, not even after a failure.

        Jobs that came in before this was known are numbered anew: theirs may be those of jobs in the store.
        """
        with self._lock:
            self._last_id = max(self._last_id, last_id)
            new = [
                (call, at) for call in self._calls for at, one in enumerate(call.events) if one.kind is Kind.SUBMITTED
            ]
            if not new or new[0][0].events[new[0][1]].job > last_id:
                return
            number = self._last_id
            for call, at in new:
                number += 1
                event = call.events[at]
                _number(event.data, number)
                call.events[at] = event._replace(job=number)
                number += 0 if event.data.tasks is None else event.data.tasks.count
                if call.events[-1].kind is Kind.AUDIT:
                    call.events[-1].data["on"] = _named(call.events)
            self._last_id = number

    # Asking, from any thread --------------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[Job]) -> Future[list[Job]]:
        """Queue these jobs, all or none. They are numbered here, in this order; their times are set to now.

        The future gives the jobs as the tick that committed them left them.
        """
        future: Future[list[Job]] = Future()
        with self._lock:
            if self._refuse(future, len(jobs)):
                return future
            now = self._now()
            events = []
            number = self._last_id
            for job in jobs:
                number += 1
                _number(job, number)
                job.submitted = job.queued = now
                events.append(Event(now, Kind.SUBMITTED, number, 0, job))
                number += 0 if job.tasks is None else job.tasks.count  # an array keeps one for each task
            self._last_id = number
            asking = ASKING.get()
            if asking is not None and events:
                events.append(asking.event(now, _named(events)))
            self._calls.append(_Call(events, future, list(jobs)))
        self._wake()
        return future

    def ask(self, kind: Kind, job_id: int, data: dict[str, Any] | None = None) -> Future[None]:
        """Have something done to a job. The future fails with ConflictError if its state does not allow it."""
        future: Future[None] = Future()
        with self._lock:
            if self._refuse(future):
                return future
            now, asking = self._now(), ASKING.get()
            events = [Event(now, kind, job_id, 0, data)]
            if asking is not None:
                events.append(asking.event(now))
            self._calls.append(_Call(events, future, None))
        self._wake()
        return future

    def note(self, event: Event) -> Future[None]:
        """Write a line about the cluster."""
        future: Future[None] = Future()
        with self._lock:
            if self._refuse(future):
                return future
            self._calls.append(_Call([event], future, None))
        self._wake()
        return future

    def change(self, ask: Callable[[Engine], T]) -> Future[T]:
        """As `question`, for what changes something that the next tick writes: who asked is written with it."""
        asking = ASKING.get()
        if asking is None:
            return self.question(ask)
        asking.settled = True

        def asked(engine: Engine) -> T:
            found = ask(engine)
            with self._lock:
                self._calls.append(_Call([asking.event(self._now())], Future(), None, kept=True))
            return found

        return self.question(asked)

    def question(self, ask: Callable[[Engine], T]) -> Future[T]:
        """Have `ask` called in the engine's thread between two ticks, with its exact state. It must leave no trace."""
        future: Future[T] = Future()
        with self._lock:
            if self._refuse(future, 0):
                return future
            self._questions.append((ask, future))
        self._wake()
        return future

    def _refuse(self, future: Future[Any], adding: int = 1) -> bool:
        """Whether so many changes more are not taken, and the future says why. One call alone is never too large."""
        if self._closed is not None:
            future.set_exception(self._closed)
            return True
        waiting = self.backlog if adding else len(self._questions)
        if self.most and waiting and waiting + max(adding, 1) > self.most:
            what = "changes wait to be written" if adding else "questions wait for the scheduler"
            future.set_exception(busy(f"{waiting:,} {what}", self._settled.seconds(waiting), "inbox"))
            return True
        self.backlog += adding
        return False

    # Answering, in the engine's thread ----------------------------------------------------------------------------

    def poll(self, now: float) -> Sequence[Event]:  # noqa: ARG002 - the protocol's; live requests are always due
        """What was asked so far, whole calls only."""
        if not self._calls:
            return ()
        events: list[Event] = []
        with self._lock:
            calls = self._calls
            while calls and (not events or len(events) + len(calls[0].events) <= MOST):
                call = calls.popleft()
                # One that nobody waits for any more was withdrawn before it was written.
                if call.future.set_running_or_notify_cancel():
                    self._polled.append(call)
                    events += call.events
            self.backlog = sum(len(call.events) for call in calls)
        return events

    def next_time(self) -> float | None:
        """Now, if a request waits already; else not known: the clock is woken."""
        return self._now() if self._calls or self._questions else None

    def settle(self, refused: dict[int, ConflictError]) -> None:
        """The polled requests are on disk: answer them."""
        polled, self._polled = self._polled, []
        self._settled.note(sum(len(call.events) for call in polled))
        position = 0
        for events, future, answer, _ in polled:
            error = next((refused[at] for at in range(position, position + len(events)) if at in refused), None)
            position += len(events)
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

    def fail(self, error: GpuschedError) -> None:
        """The polled requests could not be written: nothing of them is there. Those not polled yet stay."""
        polled, self._polled = self._polled, []
        for call in reversed(polled):
            if call.kept:
                with self._lock:
                    self._calls.appendleft(call._replace(future=Future()))
            else:
                call.future.set_exception(error)

    def turn_away(self, error: GpuschedError) -> None:
        """There is no engine at present: answer all that waits, without trying."""
        with self._lock:
            kept = [call for call in self._calls if call.kept]
            waiting = [call.future for call in self._calls if not call.kept]
            waiting += [future for _, future in self._questions]
            self._calls = deque(kept)
            self.backlog = len(kept)
            self._questions.clear()
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def answer(self, engine: Engine) -> None:
        """Answer the questions that wait, not those that come meanwhile: they see the next turn's state."""
        for _ in range(len(self._questions)):
            ask, future = self._questions.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(ask(engine))
            except Exception as error:  # noqa: BLE001 - it is the asker's, and is raised there
                future.set_exception(error)

    def close(self) -> None:
        """No engine answers any more: all that waits and all that comes fails with UnreachableError."""
        error = UnreachableError("the control plane is stopping", hint="nothing was queued; try again in a moment")
        with self._lock:
            self._closed = error
        self.fail(error)
        self.turn_away(error)


def _named(events: Sequence[Event]) -> str:
    """The jobs that are submitted, in words. Their ids follow one another."""
    ids = [event.job for event in events if event.kind is Kind.SUBMITTED]
    return f"job {ids[0]}" if len(ids) == 1 else f"jobs {ids[0]}-{ids[-1]}"
