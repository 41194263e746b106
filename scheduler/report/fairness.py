"""Fairness: Jain's index, and finish-time fairness rho in the variants that papers mean by it.

rho = JCT / a time that the job would have been due to take. Above 1 it was served worse than that. The variants differ
in that time, and their values must not be compared with each other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate
from math import fsum, inf

from ...jobs.job import Job
from .measures import Row

JUST_ABOVE = 1 + 1e-9
"""From here on a rho counts as above 1: a quotient of floats that should be 1 may miss it by a rounding error."""


@dataclass(frozen=True, slots=True)
class Rho:
    """Finish-time fairness over the jobs of a report that have a run time above 0.

    Attributes:
        worst, mean: over the jobs.
        above_one: share of the jobs with rho > 1.
        jain: Jain's index over their 1 / rho.
        jain_by_user, jain_by_queue: Jain's index over the mean 1 / rho of each user, of each queue; None for one.
    """

    worst: float
    mean: float
    above_one: float
    jain: float
    jain_by_user: float | None
    jain_by_queue: float | None


def jain(values: Iterable[float]) -> float | None:
    """Jain's index (sum x)^2 / (n sum x^2): 1 = all alike, 1 / n = one has all; None for no value or only zeros."""
    shares = list(values)
    squares = fsum(share * share for share in shares)
    return fsum(shares) ** 2 / (len(shares) * squares) if squares > 0 else None


def jain_by_user(jobs: Iterable[Job]) -> float | None:
    """Jain's index over the GPU-seconds of each user's ended attempts; None for fewer than two users."""
    return _jain_by(jobs, lambda job: job.user)


def jain_by_queue(jobs: Iterable[Job]) -> float | None:
    """Jain's index over the GPU-seconds of each queue's ended attempts; None for fewer than two queues."""
    return _jain_by(jobs, lambda job: job.queue)


def _jain_by(jobs: Iterable[Job], owner: Callable[[Job], str]) -> float | None:
    held: dict[str, float] = defaultdict(float)
    for job in jobs:
        held[owner(job)] += job.gpu_seconds
    return jain(held.values()) if len(held) > 1 else None


def rho_of(rows: Iterable[Row], due: Iterable[float]) -> Rho | None:
    """The figures of one variant; None for no job.

    Args:
        rows: the jobs that started and ended.
        due: the time that each was due to take, in the same order; a job that was due none is left out.
    """
    users: dict[str, list[float]] = defaultdict(list)
    queues: dict[str, list[float]] = defaultdict(list)
    values = []
    for (job, took, *_), time in zip(rows, due, strict=True):
        if took > 0 and time > 0:
            values.append(took / time)
            users[job.user].append(time / took)
            queues[job.queue].append(time / took)
    index = jain([1 / value for value in values])
    if index is None:
        return None
    return Rho(
        worst=max(values),
        mean=fsum(values) / len(values),
        above_one=sum([value > JUST_ABOVE for value in values]) / len(values),
        jain=index,
        jain_by_user=_jain_of_means(users),
        jain_by_queue=_jain_of_means(queues),
    )


def _jain_of_means(groups: Mapping[str, list[float]]) -> float | None:
    return jain(fsum(values) / len(values) for values in groups.values()) if len(groups) > 1 else None


def due_themis(jobs: Iterable[Job], rows: Iterable[Row], gpus: int, end: float) -> list[float]:
    """Time on 1/N of the cluster, N = mean number of active jobs while the job is alive (Themis, NSDI'20).

    A job that asks for more than GPUs / N runs there slower in proportion: max(p, p g N / GPUs). A job that asks for
    GPUs is active from its submission to its end, or to `end` if it has none.

    Args:
        jobs: all jobs of the run.
        rows: those to answer for.
        gpus: of the cluster.
        end: last event of the run.
    """
    count = Count((job.submitted, end if job.ended is None else job.ended) for job in asking(jobs))
    due = []
    for job, took, _, _, p in rows:
        active = count.integral(job.submitted, job.submitted + took) / took if took > 0 else 1.0
        due.append(max(p, p * job.shape.total_gpus * active / gpus) if gpus else p)
    return due


def due_isolated(  # noqa: C901 - one loop, read once
    jobs: Sequence[Job], run_times: Mapping[int, float], gpus: int
) -> dict[int, float] | None:
    """JCT under an equal static split, simulated on the same jobs.

    While n jobs are active each owns GPUs / n and no more, so one of g GPUs progresses at the rate
    min(1, GPUs / (n g)); what a small job leaves of its share stays idle. Exact, and event by event.

    Returns:
        By job id; None where some job's run time is not known (it has not started and ended) or there are no GPUs.
    """
    if not gpus or any(job.ended is None or job.first_start is None for job in jobs):
        return None
    done = {job.id: run_times.get(job.id, 0.0) for job in jobs if not job.shape.total_gpus}
    arrivals = sorted(asking(jobs), key=lambda job: (job.submitted, job.id))
    # A job that was always there and never slowed would have progressed by the time itself. Each size lags behind that;
    # the jobs of a size are sorted by the progress that such a job of their size will have made when they end.
    behind = {job.shape.total_gpus: 0.0 for job in arrivals}
    ends: dict[float, list[tuple[float, int, float]]] = {size: [] for size in sorted(behind, reverse=True)}
    now, following, active = 0.0, 0, 0
    while following < len(arrivals) or active:
        share = gpus / active if active else inf
        arrival = arrivals[following].submitted if following < len(arrivals) else inf
        until, first = arrival, 0.0
        for size, heap in ends.items():
            if heap:
                left = heap[0][0] + behind[size] - now
                end = now + (left * size / share if size > share else left)
                if end <= until:
                    until, first = end, size
        for size, heap in ends.items():
            if size <= share:
                break
            if heap:
                behind[size] += (until - now) * (1 - share / size)
        now = until
        if first:
            heap = ends[first]
            reached = heap[0][0]
            behind[first] = now - reached  # exactly, whatever the products were rounded to
            while heap and heap[0][0] <= reached:
                _, job_id, since = heappop(heap)
                done[job_id] = now - since
                active -= 1
            continue
        while following < len(arrivals) and arrivals[following].submitted <= now:
            job = arrivals[following]
            size = job.shape.total_gpus
            heappush(ends[size], (now - behind[size] + run_times.get(job.id, 0.0), job.id, job.submitted))
            active += 1
            following += 1
    return done


def asking(jobs: Iterable[Job]) -> Iterator[Job]:
    """Those that ask for GPUs: only they compete for a share of them."""
    return (job for job in jobs if job.shape.total_gpus)


class Count:
    """How many intervals cover each moment, and the integral of it: n log n to build, log n to ask."""

    def __init__(self, intervals: Iterable[tuple[float, float]]) -> None:
        steps: dict[float, int] = defaultdict(int)
        for start, end in intervals:
            steps[start] += 1
            steps[end] -= 1
        self._times = sorted(steps)
        self._levels = list(accumulate(steps[time] for time in self._times))
        areas = (
            level * (after - time)
            for level, time, after in zip(self._levels, self._times, self._times[1:], strict=False)
        )
        self._areas = list(accumulate(areas, initial=0.0))

    def integral(self, start: float, end: float) -> float:
        """The integral of the count from `start` to `end`."""
        return self._until(end) - self._until(start)

    def _until(self, time: float) -> float:
        at = bisect_right(self._times, time) - 1
        return self._areas[at] + self._levels[at] * (time - self._times[at]) if at >= 0 else 0.0
