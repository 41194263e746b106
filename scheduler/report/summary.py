"""The figures of one run in one window."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import fsum
from operator import itemgetter
from pathlib import PurePath

from ...jobs.events import Kind
from ...jobs.job import FINAL, Job
from ..garbage import garbage_kept
from .distribution import Distribution, percentile, ratio
from .fairness import Rho, asking, due_isolated, jain_by_queue, jain_by_user, rho_of
from .groups import Group, groups
from .ledger import Waste, waste
from .load import arrivals_of, cautions, offered_load
from .measured import Measured
from .measures import bounded_slowdown, slowdown
from .occupancy import FINAL_ENDS, Integrals, integrate
from .run import Run, cluster_in_words
from .window import FULL, Window


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run. Times in seconds, shares from 0 to 1, None where a figure has no meaning.

    JCT (end - submission), queueing delay (first start - submission) and slowdown are over the jobs of the window that
    started and ended, however they ended; jobs cancelled while they waited never started and are not among them.
    Unfinished jobs are not among them either, which flatters a policy: they are counted and named, so that it shows.
    docs/metrics.md has the formula and the job set of every figure.

    Attributes:
        trace: where the jobs came from; of a path only the file's name, so that figures do not tell of folders.
        cluster: the nodes in words, such as `54x8` or `2x8:H100,4x4:A100`.
        submitted: jobs of the window, and all that were rejected; = finished + len(unfinished) + len(rejected).
        finished: jobs in a final state; measured: those of them that had started.
        unfinished: "ID NAME (STATE)" of each job that is in no final state.
        makespan: last end - first submission.
        allocation_ratio: GPU time held by jobs / (GPUs x span). The span goes from first submission to last event; of a
            batch window to its last end; of a steady window to the arrival after its last. Not the utilization of the
            devices.
        fragmentation: gang variant: the share of idle GPUs in nodes that cannot host a piece of k GPUs, averaged over
            the same span (fragmentation_by_size) and then over k = 1, 2, 4, 8 as far as an empty node could host k.
        preemptions: times that a running job was told to give its GPUs back.
        restarts: attempts after which the job went back to the queue (preempted, failed with retries left, node lost).
        slowdown_mean: mean of max(1, JCT / max(run time, 10 s)), known as bounded slowdown.
        fairness: Jain's index (1 = even) over the GPU time that each user's ended attempts held; None for one user.
        seconds: wall time of the run; replayed: jobs that it replayed or rejected, also those outside the window.
        window: what was measured, as it is written on the command line.
        wait: JCT - time holding GPUs.
        slowdown: JCT / run time, where run time = time holding GPUs - overhead - lost work, at the rate of the GPUs
            that it asked for.
        delay_p95: 95th percentile of the queueing delay.
        longest_wait: longest wait for a first start; a job that never started waited until its end or the run's.
        offered_load: GPU time that the jobs ask for / (GPUs x span of their arrivals).
        preempted_jobs: jobs that were preempted at least once; most_restarts: restarts of the job that had most.
        waste: GPU-seconds that did no good, by kind.
        rho_themis, rho_isolated, rho_static: finish-time fairness, by variant (fairness.py).
        fairness_queues: as `fairness`, over queues.
        by_user, by_queue: the figures of each user and queue, the one with most GPU time first.
        decision: wall time of the policy's decisions; decisions: how many there were; None where it was not measured.
        jct_bound, makespan_bound: no schedule, clairvoyant and with free preemption, has a lower mean JCT or makespan;
            None = not asked for. Whoever knows them sets them with `dataclasses.replace`.
    """

    policy: str
    trace: str
    cluster: str
    nodes: int
    gpus: int
    submitted: int
    finished: int
    measured: int
    unfinished: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]
    jct: Distribution
    delay: Distribution
    makespan: float | None
    allocation_ratio: float | None
    fragmentation: float | None
    fragmentation_by_size: dict[int, float]
    preemptions: int
    restarts: int
    slowdown_mean: float | None
    fairness: float | None
    seconds: float
    notes: tuple[str, ...] = ()
    window: str = "full"
    wait: Distribution = field(default_factory=Distribution)
    slowdown: Distribution = field(default_factory=Distribution)
    delay_p95: float | None = None
    longest_wait: float | None = None
    offered_load: float | None = None
    preempted_jobs: int = 0
    most_restarts: int = 0
    waste: Waste = field(default_factory=Waste)
    rho_themis: Rho | None = None
    rho_isolated: Rho | None = None
    rho_static: Rho | None = None
    fairness_queues: float | None = None
    by_user: tuple[Group, ...] = ()
    by_queue: tuple[Group, ...] = ()
    decision: Distribution | None = None
    decisions: int | None = None
    jct_bound: float | None = None
    makespan_bound: float | None = None
    replayed: int = 0

    @property
    def jobs_per_second(self) -> float | None:
        """Jobs replayed a second of wall time, whatever the window."""
        return max(self.replayed, self.submitted) / self.seconds if self.seconds > 0 else None

    @property
    def decisions_per_second(self) -> float | None:
        """Decisions of the policy a second of its own wall time."""
        if not self.decisions or self.decision is None or not self.decision.mean:
            return None
        return 1 / self.decision.mean

    @property
    def jct_above_bound(self) -> float | None:
        """Mean JCT / its bound - 1."""
        return _above(self.jct.mean, self.jct_bound)

    @property
    def makespan_above_bound(self) -> float | None:
        """Makespan / its bound - 1."""
        return _above(self.makespan, self.makespan_bound)


ISOLATED_JOBS = 20_000
"""Jobs up to which the equal split is simulated unasked: it takes about as long as all other figures together."""


@garbage_kept()
def summarize(run: Run, window: Window = FULL, *, isolated: bool | None = None) -> Summary:
    """The figures of one run in a window, in a few passes over its jobs and its journal.

    Args:
        run: what the run left behind.
        window: which of its jobs are measured; what a window cannot promise is said in the notes.
        isolated: simulate the equal static split for `rho_isolated`; None = for up to ISOLATED_JOBS jobs.

    Raises:
        AssertionError: the run does not account for all of its jobs, or holds more GPUs than there are.
        WindowError: the run has no such window.
    """
    found = Measured.of(run, window)
    chosen, rows, books = found.chosen, found.rows, found.books
    unfinished = tuple(_label(job) for job in chosen if job.state not in FINAL)

    over_time = integrate(run.cluster, found.journal, *span_measured(found))
    _account(run, Counter(map(itemgetter(1), found.journal)), over_time.left)
    ran = {job_id: account.run_time for job_id, account in books.items()}  # also of jobs that have not ended
    gpus = over_time.capacity
    load = offered_load(chosen, ran, gpus, *arrivals_of(window, chosen, run.jobs))
    wanted = len(run.jobs) <= ISOLATED_JOBS if isolated is None else isolated
    alone = due_isolated(run.jobs, ran, gpus) if wanted else None
    ends = [job.ended for job in chosen if job.ended is not None]
    fragmentation = _fragmentation(over_time)
    crowd = max(1.0, ratio(sum(1 for _ in asking(run.jobs)), gpus) or 1.0)
    slow = [x for row in rows if (x := slowdown(row.jct, row.run_time)) is not None]
    bounded = [bounded_slowdown(row.jct, row.run_time) for row in rows]
    by_user = groups(chosen, rows, found.due, lambda job: job.user, found.last)
    restarts = [books[job.id].restarts for job in chosen if job.id in books]
    return Summary(
        policy=run.policy,
        trace=PurePath(run.trace).name or run.trace,
        cluster=cluster_in_words(run.cluster),
        nodes=len(run.cluster),
        gpus=gpus,
        submitted=len(chosen) + len(run.rejected),
        finished=len(chosen) - len(unfinished),
        measured=len(rows),
        unfinished=unfinished,
        rejected=tuple(run.rejected),
        jct=Distribution.of([row.jct for row in rows]),
        delay=Distribution.of([row.delay for row in rows]),
        makespan=max(ends) - min(job.submitted for job in chosen) if ends else None,
        allocation_ratio=ratio(over_time.allocated, gpus * over_time.span),
        fragmentation=fragmentation,
        fragmentation_by_size=over_time.stranded if fragmentation is not None else {},
        preemptions=sum(books[job.id].preemptions for job in chosen if job.id in books),
        restarts=sum(restarts),
        slowdown_mean=ratio(fsum(bounded), len(rows)),
        fairness=jain_by_user(chosen),
        seconds=run.seconds,
        notes=(*run.notes, *cautions(window, run.policy, chosen=chosen, jobs=run.jobs, load=load, end=found.last)),
        window=window.text,
        wait=Distribution.of([max(row.jct - row.held, 0.0) for row in rows]),
        slowdown=Distribution.of(slow),
        delay_p95=percentile([row.delay for row in rows], 95),
        longest_wait=max([group.longest_wait for group in by_user if group.longest_wait is not None], default=None),
        offered_load=load,
        preempted_jobs=sum(books[job.id].preemptions > 0 for job in chosen if job.id in books),
        most_restarts=max(restarts, default=0),
        waste=waste(books, chosen),
        rho_themis=rho_of(rows, found.due),
        rho_isolated=None if alone is None else rho_of(rows, [alone[row.job.id] for row in rows]),
        rho_static=rho_of(rows, [row.run_time * crowd for row in rows]),
        fairness_queues=jain_by_queue(chosen),
        by_user=by_user,
        by_queue=groups(chosen, rows, found.due, lambda job: job.queue, found.last),
        decision=Distribution.of(run.decision_seconds) if run.decision_seconds else None,
        decisions=len(run.decision_seconds) or None,
        replayed=len(run.jobs) + len(run.rejected),
    )


def span_measured(found: Measured) -> tuple[float, float]:
    """From when to when the cluster is looked at."""
    if found.window.kind == "full" or not found.chosen:
        return found.first, found.last
    start, stop = arrivals_of(found.window, found.chosen, found.run.jobs)
    if found.window.kind == "steady":
        return start, stop
    return start, max(found.last if job.ended is None else job.ended for job in found.chosen)


def _account(run: Run, kinds: Counter[Kind], cancelled_waiting: int) -> None:
    """Check that jobs and journal tell of the same ends: a job that got lost on the way must not go unseen."""
    assert len({job.id for job in run.jobs}) == len(run.jobs), "two jobs of the run have one id"
    final = 0
    for job in run.jobs:
        assert (job.state in FINAL) == (job.ended is not None), f"{job!r} is in a final state without an end, or ended"
        final += job.ended is not None
    told = sum(kinds[kind] for kind in FINAL_ENDS) + cancelled_waiting
    assert final == told, f"{final} jobs are in a final state, the journal tells of {told} ends"


def _label(job: Job) -> str:
    return f"{job.id} {job.name} ({job.state})" if job.name else f"{job.id} ({job.state})"


def _above(value: float | None, bound: float | None) -> float | None:
    return value / bound - 1 if value is not None and bound else None


def _fragmentation(over_time: Integrals) -> float | None:
    if not over_time.stranded or over_time.span <= 0:
        return None
    return fsum(over_time.stranded.values()) / len(over_time.stranded)
