"""What a window of a run measures: its jobs, their run times and the time that they were due. Made once a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...jobs.events import Event
from ...jobs.job import FINAL, Job
from .fairness import due_themis
from .ledger import Account, accounts
from .measures import Row, completion_time, queueing_delay
from .occupancy import in_order
from .run import Run, span_of
from .window import Window


@dataclass(frozen=True, slots=True)
class Measured:
    """The jobs of a window and what a report needs to know of them. Times in seconds.

    Attributes:
        run, window: what is measured.
        journal: the run's, in order of time.
        first, last: first submission and last event of the whole run.
        chosen: the jobs of the window.
        rows: those of them that started and ended, the set of most figures.
        books: by id, the account of each job of the run that held GPUs.
        due: time on 1/N of the cluster of the jobs in `rows`, in their order (see `due_themis`).
    """

    run: Run
    window: Window
    journal: Sequence[Event]
    first: float
    last: float
    chosen: list[Job]
    rows: list[Row]
    books: dict[int, Account]
    due: list[float]

    @classmethod
    def of(cls, run: Run, window: Window) -> Measured:
        """Measure a run.

        Raises:
            WindowError: the run has no such window.
        """
        journal = in_order(run.journal)
        first, last = span_of(run, journal)
        chosen = window.select(run)
        books = accounts(journal, run.jobs)
        nothing = Account()
        rows = []
        for job in chosen:
            if job.state in FINAL and job.first_start is not None:
                account = books.get(job.id, nothing)
                rows.append(Row(job, completion_time(job), queueing_delay(job), account.held, account.run_time))
        gpus = sum(node.gpus for node in run.cluster)
        return cls(run, window, journal, first, last, chosen, rows, books, due_themis(run.jobs, rows, gpus, last))
