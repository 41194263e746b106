"""What a window of a run measures: its jobs, their run times and the time that they were due. Made once a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...jobs.events import Event
from ...jobs.job import FINAL, Job
from .fairness import due_themis
from .ledger import Account, accounts
from .occupancy import in_order
from .run import Run, span_of
from .window import Window


@dataclass(frozen=True, slots=True)
class Measured:
    """The jobs of a window and what a report needs to know of them. Times in seconds, by job id.

    Attributes:
        run, window: what is measured.
        journal: the run's, in order of time.
        first, last: first submission and last event of the whole run.
        chosen: the jobs of the window; ended: those of them that started and ended, the set of most figures.
        books: the account of each job of the run that held GPUs.
        run_times: of the jobs in `ended`.
        due: time on 1/N of the cluster of the jobs in `ended` (see `due_themis`).
    """

    run: Run
    window: Window
    journal: Sequence[Event]
    first: float
    last: float
    chosen: list[Job]
    ended: list[Job]
    books: dict[int, Account]
    run_times: dict[int, float]
    due: dict[int, float]

    @classmethod
    def of(cls, run: Run, window: Window) -> Measured:
        """Measure a run.

        Raises:
            WindowError: the run has no such window.
        """
        journal = in_order(run.journal)
        first, last = span_of(run, journal)
        chosen = window.select(run)
        ended = [job for job in chosen if job.state in FINAL and job.first_start is not None]
        books = accounts(journal, run.jobs)
        run_times = {job.id: books[job.id].run_time if job.id in books else 0.0 for job in ended}
        gpus = sum(node.gpus for node in run.cluster)
        due = due_themis(run.jobs, ended, run_times, gpus, last)
        return cls(run, window, journal, first, last, chosen, ended, books, run_times, due)
