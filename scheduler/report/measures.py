"""The figures of one job, each in the words of the field. Times in seconds."""

from __future__ import annotations

from typing import NamedTuple

from ...jobs.job import Job

MIN_RUN = 10.0
"""Seconds below which a run time is raised before a slowdown is divided by it (the bound of bounded slowdown)."""


class Row(NamedTuple):
    """A job that started and ended. Times in seconds.

    Attributes:
        job: the job.
        jct, delay: its completion time and queueing delay.
        held: time that it held its GPUs.
        run_time: work that it need not do again, as the GPUs that it asked for would have done it.
    """

    job: Job
    jct: float
    delay: float
    held: float
    run_time: float


def completion_time(job: Job) -> float:
    """JCT of a job that ended: end - submission; preemptions and restarts included."""
    assert job.ended is not None, f"{job!r} has not ended"
    return job.ended - job.submitted


def queueing_delay(job: Job) -> float:
    """First start - submission of a job that started."""
    assert job.first_start is not None, f"{job!r} has not started"
    return job.first_start - job.submitted


def slowdown(jct: float, run_time: float) -> float | None:
    """JCT / run time; None for a job that did no work."""
    return jct / run_time if run_time > 0 else None


def bounded_slowdown(jct: float, run_time: float) -> float:
    """max(1, JCT / max(run time, 10 s)) (Feitelson's bound, so that jobs of a second do not decide the mean)."""
    return max(1.0, jct / max(run_time, MIN_RUN))
