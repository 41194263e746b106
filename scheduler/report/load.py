"""How much a run was asked for, and whether a window of it is a steady state at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ...jobs.job import Job
from ...jobs.traces.trace import counted
from .distribution import ratio
from .window import Window

FEW = 50
"""Jobs below which a whole trace or a batch has no load worth a warning: they all came at about once."""
GROWTH = 2.0
"""A queue that is so many times as long in the last quarter as in the first, and longer in each, keeps growing."""
LEAST_GROWTH = 5.0
"""Jobs by which it must have grown."""


def arrivals_of(window: Window, chosen: Sequence[Job], jobs: Sequence[Job]) -> tuple[float, float]:
    """From when to when the jobs of a window arrive: first submission to last, of a steady window to the next one."""
    if not chosen:
        return 0.0, 0.0
    start, stop = min(job.submitted for job in chosen), max(job.submitted for job in chosen)
    if window.kind == "steady":
        stop = min((job.submitted for job in jobs if job.submitted > stop), default=stop)
    return start, stop


def offered_load(
    chosen: Sequence[Job], run_times: Mapping[int, float], gpus: int, start: float, stop: float
) -> float | None:
    """GPU time that the jobs ask for / (GPUs x span of their arrivals); None where they all arrive at once.

    A job that has not ended counts with what it ran so far, so with such jobs the figure is a lower bound.
    """
    return ratio(sum(run_times.get(job.id, 0.0) * job.shape.total_gpus for job in chosen), gpus * (stop - start))


def cautions(
    window: Window, policy: str, *, chosen: Sequence[Job], jobs: Sequence[Job], load: float | None, end: float
) -> list[str]:
    """What a reader must know before believing the figures of a window; empty where there is nothing.

    Args:
        window: what is measured.
        policy: who decided, to be named where it matters.
        chosen: the jobs of the window.
        jobs: all jobs of the run.
        load: their offered load.
        end: last event of the run.
    """
    notes = []
    if window.kind != "full":
        notes.append(
            f"window {window.text}: {counted(len(chosen), 'jobs')} of {len(jobs):,} are measured; "
            "the others ran and are in no figure of jobs"
        )
    if window.kind == "steady":
        notes += _unsteady(window, policy, chosen=chosen, jobs=jobs, end=end)
    if load is None or load <= 1:
        return notes
    if window.kind == "steady":
        notes.append(
            f"overload: the jobs of window {window.text} ask for {load:.2f} times the cluster's GPU time while they "
            "arrive; there is no steady state, and delays grow with the length of the trace"
        )
    elif len(chosen) >= FEW and (lengths := _growth(chosen, jobs, window, end)):
        notes.append(
            f"overload: the jobs ask for {load:.2f} times the cluster's GPU time while they arrive, and under {policy} "
            f"the queue keeps growing ({_told(lengths)}); delays grow with the length of the trace"
        )
    return notes


def _unsteady(window: Window, policy: str, *, chosen: Sequence[Job], jobs: Sequence[Job], end: float) -> list[str]:
    notes = []
    last_arrival = max(job.submitted for job in jobs)
    outlived = sum(job.ended is None or job.ended > last_arrival for job in chosen)
    if outlived:
        verb = "was" if outlived == 1 else "were"
        notes.append(
            f"window {window.text}, {policy}: arrivals stopped while {counted(outlived, 'jobs')} of it {verb} still "
            "waiting or running: their end saw a cluster that empties; take an earlier window or a longer trace"
        )
    if lengths := _growth(chosen, jobs, window, end):
        notes.append(
            f"overload: under {policy} the queue keeps growing over window {window.text} ({_told(lengths)}); "
            "it is no steady state"
        )
    return notes


def _growth(chosen: Sequence[Job], jobs: Sequence[Job], window: Window, end: float) -> list[float]:
    """Mean length of the queue in each quarter of the arrivals, where it keeps growing; else nothing."""
    lengths = waiting_by_quarter(jobs, *arrivals_of(window, chosen, jobs), end)
    grows = (
        lengths
        and all(earlier < later for earlier, later in pairwise(lengths))
        and lengths[-1] >= max(GROWTH * lengths[0], lengths[0] + LEAST_GROWTH)
    )
    return lengths if grows else []


def _told(lengths: Sequence[float]) -> str:
    return f"jobs waiting in the mean of each quarter: {', '.join(f'{length:,.0f}' for length in lengths)}"


def waiting_by_quarter(jobs: Sequence[Job], start: float, stop: float, end: float) -> list[float]:
    """Mean number of jobs that wait for their first start in each quarter of `start` to `stop`; none for no span."""
    width = (stop - start) / 4
    if width <= 0:
        return []
    waited = [0.0] * 4
    for job in jobs:
        left = _left(job, end)
        if left <= job.submitted or left <= start or job.submitted >= stop:
            continue
        for i in range(4):
            a, b = start + i * width, start + (i + 1) * width
            waited[i] += max(min(left, b) - max(job.submitted, a), 0.0)
    return [time / width for time in waited]


def _left(job: Job, end: float) -> float:
    """When it first left the queue, or the end of the run if it never did."""
    if job.first_start is not None:
        return job.first_start
    return end if job.ended is None else job.ended


def first_wait(job: Job, end: float) -> float:
    """Seconds that it waited for its first start; one that never started waited until its end or that of the run."""
    return _left(job, end) - job.submitted
