"""From what a run left behind to its figures. Nothing here can tell a live run from a simulated one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from operator import itemgetter
from pathlib import PurePath

from ...cluster.backend import Node
from ...jobs.events import Event, Kind
from ...jobs.job import FINAL, Job
from .occupancy import FINAL_ENDS, Integrals, in_order, integrate

MIN_RUN = 10.0
"""Seconds below which a run time is raised before a slowdown is divided by it (the bound of bounded slowdown)."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run leaves behind: all that reports are made of.

    Attributes:
        policy: name of the policy that decided.
        trace: where the jobs came from, for people: a file's path, or a live queue's name.
        cluster: the nodes; pieces in the journal name them by index.
        jobs: every job that was accepted, as it stands after the run.
        journal: every event of these jobs, in order of time or nearly so. The data of a PLACED event is the placement
            itself or `{"pieces": [[node, gpus, gpu_milli, slot], ...]}`.
        rejected: jobs that were not accepted, as (name, why).
        seconds: wall time that the run took.
        notes: what a reader of the figures must know, such as the rows that a trace reader left out.
    """

    policy: str
    trace: str
    cluster: Sequence[Node]
    jobs: Sequence[Job]
    journal: Sequence[Event]
    rejected: Sequence[tuple[str, str]] = ()
    seconds: float = 0.0
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean and nearest-rank percentiles; all None when there is no value.

    Of n sorted values counted from 0, p50 is the one at n // 2, p90 at ceil(0.90 n) - 1, p99 at ceil(0.99 n) - 1.
    """

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """The distribution of `values`, in any order."""
        ordered = sorted(values)
        n = len(ordered)
        if not n:
            return cls()
        return cls(fsum(ordered) / n, ordered[n // 2], ordered[rank(n, 90)], ordered[rank(n, 99)])


def rank(n: int, percent: int) -> int:
    """Index of the nearest-rank percentile in n sorted values: ceil(percent / 100 * n) - 1, without rounding errors."""
    return max(-(-percent * n // 100) - 1, 0)


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run. Times in seconds, shares from 0 to 1, None where a figure has no meaning.

    JCT (end - submission), queueing delay (first start - submission) and slowdown are over the jobs that started and
    ended, however they ended; jobs cancelled while they waited never started and are not among them. Unfinished jobs
    are not among them either, which flatters a policy: they are counted and named, so that it shows.

    Attributes:
        trace: where the jobs came from; of a path only the file's name, so that figures do not tell of folders.
        cluster: the nodes in words, such as `54x8` or `2x8:H100,4x4:A100`.
        submitted: jobs accepted or rejected; = finished + len(unfinished) + len(rejected).
        finished: jobs in a final state; measured: those of them that had started.
        unfinished: "ID NAME (STATE)" of each job that is in no final state.
        makespan: last end - first submission.
        allocation_ratio: GPU time held by jobs / (GPUs x span), span from first submission to last event. Not the
            utilization of the devices.
        fragmentation: gang variant: the share of idle GPUs in nodes that cannot host a piece of k GPUs, averaged over
            time (fragmentation_by_size) and then over k = 1, 2, 4, 8 as far as an empty node could host k.
        preemptions: times that a running job was told to give its GPUs back.
        restarts: attempts after which the job went back to the queue (preempted, failed with retries left, node lost).
        slowdown_mean: mean of max(1, JCT / max(run time, 10 s)), known as bounded slowdown.
        fairness: Jain's index (1 = even) over the GPU time that each user's ended attempts held; None for one user.
        seconds: wall time of the run; jobs_per_second: submitted / seconds.
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

    @property
    def jobs_per_second(self) -> float | None:
        """Jobs replayed a second of wall time."""
        return self.submitted / self.seconds if self.seconds > 0 else None


def summarize(run: Run) -> Summary:
    """The figures of one run, in one pass over its jobs and one over its journal.

    Raises:
        AssertionError: the run does not account for all of its jobs, or holds more GPUs than there are.
    """
    journal = in_order(run.journal)
    kinds = Counter(map(itemgetter(1), journal))
    measured = [job for job in run.jobs if job.state in FINAL and job.first_start is not None]
    unfinished = tuple(_label(job) for job in run.jobs if job.state not in FINAL)

    start, end = span_of(run, journal)
    over_time = integrate(run.cluster, journal, start, end)
    _account(run, kinds, over_time.left)
    ends = [job.ended for job in run.jobs if job.ended is not None]
    fragmentation = _fragmentation(over_time)
    return Summary(
        policy=run.policy,
        trace=PurePath(run.trace).name or run.trace,
        cluster=cluster_in_words(run.cluster),
        nodes=len(run.cluster),
        gpus=over_time.capacity,
        submitted=len(run.jobs) + len(run.rejected),
        finished=len(run.jobs) - len(unfinished),
        measured=len(measured),
        unfinished=unfinished,
        rejected=tuple(run.rejected),
        jct=Distribution.of(map(completion_time, measured)),
        delay=Distribution.of(map(queueing_delay, measured)),
        makespan=max(ends) - start if ends else None,
        allocation_ratio=_ratio(over_time.allocated, over_time.capacity * over_time.span),
        fragmentation=fragmentation,
        fragmentation_by_size=over_time.stranded if fragmentation is not None else {},
        preemptions=kinds[Kind.PREEMPTED],
        restarts=kinds[Kind.RETRIED] + kinds[Kind.REQUEUED],
        slowdown_mean=_ratio(fsum(map(bounded_slowdown, measured)), len(measured)),
        fairness=jain_by_user(run.jobs),
        seconds=run.seconds,
        notes=tuple(run.notes),
    )


def span_of(run: Run, journal: Sequence[Event]) -> tuple[float, float]:
    """First submission and last event of a run whose journal is in order; the same instant twice for an empty run."""
    start = min((job.submitted for job in run.jobs), default=journal[0].time if journal else 0.0)
    return start, max(start, journal[-1].time if journal else start)


def completion_time(job: Job) -> float:
    """JCT of a job that ended: end - submission, in seconds; preemptions and restarts included."""
    assert job.ended is not None, f"{job!r} has not ended"
    return job.ended - job.submitted


def queueing_delay(job: Job) -> float:
    """First start - submission of a job that started, in seconds."""
    assert job.first_start is not None, f"{job!r} has not started"
    return job.first_start - job.submitted


def bounded_slowdown(job: Job) -> float:
    """max(1, JCT / max(run time, 10 s)) of a job that started and ended; run time = time that it held its GPUs."""
    assert job.ended is not None, f"{job!r} has not ended"
    assert job.first_start is not None, f"{job!r} has not started"
    held = job.ended - job.first_start
    if job.attempt > 1 and (gpus := job.shape.total_gpus) > 0:  # it may have waited between its attempts
        held = job.gpu_seconds / gpus
    return max(1.0, (job.ended - job.submitted) / max(held, MIN_RUN))


def jain_by_user(jobs: Iterable[Job]) -> float | None:
    """Jain's index (sum x)^2 / (n sum x^2) over the GPU-seconds of each user; None for fewer than two users."""
    by_user: dict[str, float] = defaultdict(float)
    for job in jobs:
        by_user[job.user] += job.gpu_seconds
    squares = fsum(held * held for held in by_user.values())
    if len(by_user) <= 1 or squares <= 0:
        return None
    return fsum(by_user.values()) ** 2 / (len(by_user) * squares)


def cluster_in_words(nodes: Sequence[Node]) -> str:
    """The nodes as the command line takes them, `NxG[:TYPE],...`, alike ones together in order of appearance."""
    alike = Counter((node.gpus, node.gpu_type) for node in nodes)
    return ",".join(f"{n}x{gpus}:{kind}" if kind else f"{n}x{gpus}" for (gpus, kind), n in alike.items())


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


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _fragmentation(over_time: Integrals) -> float | None:
    if not over_time.stranded or over_time.span <= 0:
        return None
    return fsum(over_time.stranded.values()) / len(over_time.stranded)
