"""The figures of a run by user and by queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ...jobs.job import Job
from .distribution import mean, percentile
from .fairness import JUST_ABOVE
from .measures import completion_time, queueing_delay, slowdown


@dataclass(frozen=True, slots=True)
class Group:
    """One user or one queue. Times in seconds over its jobs that started and ended; None where it has none.

    Attributes:
        name: of the user or the queue; empty where the trace names none.
        jobs: its jobs; measured: those of them that started and ended.
        gpu_seconds: GPU time that its ended attempts held.
        slowdown_mean: mean of JCT / run time.
        longest_wait: longest wait for a first start among all its jobs.
        rho_themis_mean, rho_themis_worst: finish-time fairness, as in `Rho`.
    """

    name: str
    jobs: int
    measured: int
    gpu_seconds: float
    jct_mean: float | None
    delay_mean: float | None
    delay_p95: float | None
    longest_wait: float | None
    slowdown_mean: float | None
    rho_themis_mean: float | None
    rho_themis_worst: float | None

    @property
    def above_due(self) -> bool:
        """Whether its jobs took longer, in the mean, than on an equal share of the cluster."""
        return self.rho_themis_mean is not None and self.rho_themis_mean > JUST_ABOVE


def groups(
    jobs: Iterable[Job],
    owner: Callable[[Job], str],
    *,
    waited: Mapping[int, float],
    run_times: Mapping[int, float],
    due: Mapping[int, float],
) -> tuple[Group, ...]:
    """One group an owner, the one with most GPU time first.

    Args:
        jobs: the jobs of the report.
        owner: a job's user or queue.
        waited: each job's wait for its first start, in seconds, by id.
        run_times: of the jobs that started and ended, by id.
        due: their time on 1/N of the cluster, by id (see `due_themis`).
    """
    owned: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        owned[owner(job)].append(job)
    made = [_group(name, of, waited, run_times, due) for name, of in owned.items()]
    return tuple(sorted(made, key=lambda group: (-group.gpu_seconds, group.name)))


def _group(
    name: str, jobs: list[Job], waited: Mapping[int, float], run_times: Mapping[int, float], due: Mapping[int, float]
) -> Group:
    measured = [job for job in jobs if job.id in run_times]
    delays = [queueing_delay(job) for job in measured]
    slow = [value for job in measured if (value := slowdown(job, run_times[job.id])) is not None]
    rho = [completion_time(job) / due[job.id] for job in measured if due[job.id] > 0]
    return Group(
        name=name,
        jobs=len(jobs),
        measured=len(measured),
        gpu_seconds=sum(job.gpu_seconds for job in jobs),
        jct_mean=mean([completion_time(job) for job in measured]),
        delay_mean=mean(delays),
        delay_p95=percentile(delays, 95),
        longest_wait=max((waited[job.id] for job in jobs), default=None),
        slowdown_mean=mean(slow),
        rho_themis_mean=mean(rho),
        rho_themis_worst=max(rho, default=None),
    )
