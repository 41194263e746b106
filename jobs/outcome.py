"""What the end of an attempt means for its job: done, failed, tried again, or stopped as asked."""

from __future__ import annotations

from typing import Any

from .events import Kind
from .job import Job, State

REQUEUE_ME = 75
"""Exit code by which a job says "checkpointed, requeue me" (EX_TEMPFAIL of sysexits.h); it does not count as failed."""

GOES_ON = frozenset({Kind.REQUEUED, Kind.RETRIED})
"""Ends after which there is another attempt."""

BACK_OFF = (5.0, 300.0)
"""Seconds before the second attempt of a job that failed, doubled each time, and the most it grows to."""


def outcome(job: Job, kind: Kind, data: dict[str, Any] | None) -> Kind:
    """What a FINISHED or VANISHED of the job's current attempt means, from its state and its retry rule."""
    code = (data or {}).get("exit_code", 0)
    if job.state is State.STOPPING:
        return Kind.TIMED_OUT if job.stop_cause == Kind.EXPIRED else Kind.STOPPED
    if job.state is State.PREEMPTING:
        return Kind.SUCCEEDED if kind is Kind.FINISHED and code == 0 else Kind.REQUEUED
    if kind is Kind.FINISHED and code == 0:
        return Kind.SUCCEEDED
    if kind is Kind.FINISHED and code == REQUEUE_ME:
        return Kind.REQUEUED
    if _granted(job, kind, code):
        return Kind.RETRIED
    return Kind.FAILED if kind is Kind.FINISHED else Kind.LOST


def account(job: Job, kind: Kind, time: float, data: dict[str, Any] | None) -> dict[str, Any] | None:
    """Details of the end of an attempt that another follows, with the seconds of its run that are `kept` and `lost`.

    Kept is what the next attempt need not repeat: from the start to the last checkpoint, as far as the job said so
    (`report_checkpoint`). A job that leaves with code 75 says that it has just saved. One that was preempted and never
    said anything counts as having lost all; of one that failed by itself nothing is said then. What the backend knows
    better is left as it is: a simulated one tells `kept` itself.

    Args:
        job: as it was until now.
        kind: one of GOES_ON.
        time: when the attempt ended, on the engine's clock.
        data: details of the end, as the backend gave them.
    """
    told = data or {}
    if "kept" in told or job.started is None:
        return data
    saved = max(job.saved, (told.get("checkpoint") or {}).get("time", 0.0))
    if told.get("exit_code") == REQUEUE_ME:
        saved = time
    elif kind is Kind.RETRIED and saved < job.started:
        return data
    kept = max(0.0, min(saved, time) - job.started)
    return {**told, "kept": kept, "lost": max(0.0, time - job.started - kept)}


def _granted(job: Job, kind: Kind, code: int) -> bool:
    """Whether the retry rule covers this end and has attempts left. A job without any rule is not retried."""
    rule = job.retry if job.spec is None else job.spec.retry
    if rule is None:
        return False
    causes = {"lost"} if kind is Kind.VANISHED else {"failure", f"exit:{code}"}
    return job.failures < rule.limit and not causes.isdisjoint(rule.on)


def back_off(failures: int) -> float:
    """Seconds to wait before the next attempt after so many failures."""
    first, most = BACK_OFF
    return min(first * 2.0 ** (failures - 1), most)
