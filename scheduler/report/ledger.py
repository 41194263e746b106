"""What became of the GPU time that each job held, attempt by attempt, read from the journal in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...jobs.events import Event, Kind
from ...jobs.job import Job, State
from .occupancy import BACK_TO_QUEUE, FINAL_ENDS

_THROWN_AWAY = frozenset({State.FAILED, State.LOST})
"""Final states whose jobs left no result."""


@dataclass(slots=True)
class Account:
    """Where the time went that one job held its GPUs. Seconds of the whole gang, over all attempts that ended.

    held = overhead + lost + idle + failed + the rest, which was of use or ended as its user or time limit asked.

    Attributes:
        held: from placement to end of each attempt.
        overhead: no work by the journal's word: start-up, restore, checkpoint.
        lost: work that was thrown away by the journal's word: since the last checkpoint before a preemption or failure.
        failed: the rest of what a job held that ended FAILED or LOST; of other jobs, the rest of the attempts that
            were tried again after a failure, less what the journal says was kept.
        idle: held before every rank ran (the gang assembles), and the whole of an attempt that the cluster refused,
            as far as it is not told as overhead.
        run_time: work that the job need not do again, as the GPUs that it asked for would have done it: by the
            journal's word kept x rate, where it tells nothing the time held. The p of slowdown and rho.
        preemptions: times that it was told to give its GPUs back.
        restarts: attempts after which it went back to the queue, refused ones not counted.
    """

    held: float = 0.0
    overhead: float = 0.0
    lost: float = 0.0
    failed: float = 0.0
    idle: float = 0.0
    run_time: float = 0.0
    preemptions: int = 0
    restarts: int = 0


def accounts(journal: Iterable[Event], jobs: Iterable[Job]) -> dict[int, Account]:  # noqa: C901, PLR0912 - one loop over millions
    """The account of each job that held GPUs (or a place, for a job without GPUs) in an attempt that ended, by id.

    Args:
        journal: every event of the jobs, in order of time.
        jobs: the jobs, as they stand after the run.
    """
    placed: dict[int, float] = {}
    started: dict[int, float] = {}
    books: dict[int, Account] = {}
    ends, restarts = FINAL_ENDS | BACK_TO_QUEUE, BACK_TO_QUEUE - {Kind.REFUSED}
    is_placed, is_started, is_preempted = Kind.PLACED, Kind.STARTED, Kind.PREEMPTED
    for time, kind, job, _, data in journal:
        if kind is is_placed:
            placed[job] = time
        elif kind is is_started:
            if time != placed.get(job):
                started[job] = time
        elif kind in ends:
            account = books.get(job)
            if account is None:
                account = books[job] = Account()
            account.restarts += kind in restarts
            since = placed.pop(job, None)
            running = started.pop(job, since)
            if since is None or running is None:
                continue
            account.held += time - since
            if data is None and running == since and kind not in BACK_TO_QUEUE:
                account.run_time += time - since
            else:
                _enter(account, kind, data if isinstance(data, dict) else {}, time - since, running - since)
        elif kind is is_preempted:
            if job not in books:
                books[job] = Account()
            books[job].preemptions += 1
    for one in jobs:
        if one.state in _THROWN_AWAY and (failed := books.get(one.id)) is not None:
            failed.failed = max(failed.held - failed.overhead - failed.lost - failed.idle, 0.0)
    return books


def _enter(account: Account, kind: Kind, told: dict[str, float], held: float, assembled: float) -> None:
    """One attempt whose end tells something: what of `held` was no work."""
    overhead = min(told.get("overhead", 0.0), held)
    lost = min(told.get("lost", 0.0), held - overhead)
    idle = held if kind is Kind.REFUSED else assembled
    idle = min(max(idle - overhead, 0.0), held - overhead - lost)
    rest = held - overhead - lost
    kept = told.get("kept")
    account.overhead += overhead
    account.lost += lost
    account.idle += idle
    ran = rest if kind is not Kind.REFUSED else 0.0
    account.run_time += ran if kept is None else kept * told.get("rate", 1)
    if kind is Kind.RETRIED:
        account.failed += max(rest - idle - (kept or 0.0), 0.0)


@dataclass(frozen=True, slots=True)
class Waste:
    """GPU-seconds that did no good, by kind; no second is in two of them. The kinds are those of `Account`."""

    overhead: float = 0.0
    lost: float = 0.0
    failed: float = 0.0
    held_idle: float = 0.0

    @property
    def total(self) -> float:
        """All kinds together, GPU-seconds."""
        return self.overhead + self.lost + self.failed + self.held_idle


def waste(books: dict[int, Account], jobs: Iterable[Job]) -> Waste:
    """What these jobs wasted: each account's seconds times the gang's GPUs."""
    overhead = lost = failed = idle = 0.0
    for job in jobs:
        account = books.get(job.id)
        if account is not None:
            gpus = job.shape.total_gpus
            overhead += account.overhead * gpus
            lost += account.lost * gpus
            failed += account.failed * gpus
            idle += account.idle * gpus
    return Waste(overhead, lost, failed, idle)
