"""The figures of one job, each in the words of the field. Times in seconds."""

from __future__ import annotations

from ...jobs.job import Job

MIN_RUN = 10.0
"""Seconds below which a run time is raised before a slowdown is divided by it (the bound of bounded slowdown)."""


def completion_time(job: Job) -> float:
    """JCT of a job that ended: end - submission; preemptions and restarts included."""
    assert job.ended is not None, f"{job!r} has not ended"
    return job.ended - job.submitted


def queueing_delay(job: Job) -> float:
    """First start - submission of a job that started."""
    assert job.first_start is not None, f"{job!r} has not started"
    return job.first_start - job.submitted


def waiting_time(job: Job, held: float) -> float:
    """JCT - time holding GPUs: the queueing delay and every wait between attempts."""
    return max(completion_time(job) - held, 0.0)


def slowdown(job: Job, run_time: float) -> float | None:
    """JCT / run time; None for a job that did no work."""
    return completion_time(job) / run_time if run_time > 0 else None


def bounded_slowdown(job: Job, run_time: float) -> float:
    """max(1, JCT / max(run time, 10 s)) (Feitelson's bound, so that jobs of a second do not decide the mean)."""
    return max(1.0, completion_time(job) / max(run_time, MIN_RUN))
