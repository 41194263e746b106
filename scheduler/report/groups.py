"""The figures of a run by user and by queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ...jobs.job import Job
from .distribution import mean, percentile
from .fairness import JUST_ABOVE
from .load import first_wait
from .measures import Row


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
    jobs: Iterable[Job], rows: Sequence[Row], due: Sequence[float], owner: Callable[[Job], str], end: float
) -> tuple[Group, ...]:
    """One group an owner, the one with most GPU time first.

    Args:
        jobs: the jobs of the report.
        rows: those of them that started and ended.
        due: the time on 1/N of the cluster of each of these (see `due_themis`).
        owner: a job's user or queue.
        end: last event of the run; until then a job that has not started has waited.
    """
    owned: dict[str, list[Job]] = defaultdict(list)
    ended: dict[str, list[Row]] = defaultdict(list)
    rho: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        owned[owner(job)].append(job)
    for row, time in zip(rows, due, strict=True):
        name = owner(row.job)
        ended[name].append(row)
        if time > 0:
            rho[name].append(row.jct / time)
    made = [_group(name, of, ended.get(name, []), rho.get(name, []), end) for name, of in owned.items()]
    return tuple(sorted(made, key=lambda group: (-group.gpu_seconds, group.name)))


def _group(name: str, jobs: list[Job], ended: list[Row], rho: list[float], end: float) -> Group:
    return Group(
        name=name,
        jobs=len(jobs),
        measured=len(ended),
        gpu_seconds=sum([job.gpu_seconds for job in jobs]),
        jct_mean=mean([row.jct for row in ended]),
        delay_mean=mean([row.delay for row in ended]),
        delay_p95=percentile([row.delay for row in ended], 95),
        longest_wait=max([first_wait(job, end) for job in jobs], default=None),
        slowdown_mean=mean([row.jct / row.run_time for row in ended if row.run_time > 0]),
        rho_themis_mean=mean(rho),
        rho_themis_worst=max(rho, default=None),
    )
