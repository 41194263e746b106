"""No job starts without its secrets: one whose secrets cannot be opened is refused and held, and says why."""

from __future__ import annotations

from collections.abc import Callable

from ..cluster.backend import Backend, News
from ..jobs.events import Event, Kind
from ..jobs.job import Job

HINT = "restart the control plane with the right key, then release the job; or cancel it and submit it again"


def missing(job: Job, why: str = "") -> str:
    """Why a job cannot start, in words; empty = its secrets are all at hand."""
    names = [name for name, value in job.spec.secrets.items() if value is None] if job.spec is not None else []
    if not names:
        return ""
    what = f"secret{'s' * (len(names) > 1)} {', '.join(sorted(names))}"
    return f"{why or f'{what} cannot be opened'}: {HINT}"


class Unsealed:
    """A `Backend` that passes everything on but the start of a job whose secrets are not at hand.

    Args:
        backend: the cluster.
        hold: called with such a job and the reason, in the engine's thread: it shall not be tried again.
    """

    def __init__(self, backend: Backend, hold: Callable[[Job], None]) -> None:
        self.backend = backend
        self._hold = hold
        self._refused: list[Event] = []

    def poll(self, now: float) -> News:
        """The cluster's news, and what was refused here."""
        news = self.backend.poll(now)
        if not self._refused:
            return news
        refused, self._refused = self._refused, []
        return News(news.nodes, [*refused, *news.events])

    def next_time(self) -> float | None:
        """The backend's; at once if a start was refused here."""
        return 0.0 if self._refused else self.backend.next_time()

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:
        """Passed on, if the job has all that it needs."""
        if why := missing(job):
            self._refused.append(Event(now, Kind.REFUSED, job.id, job.attempt, {"message": why}))
            self._hold(job)
        else:
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
