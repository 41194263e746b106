"""What the faces show of jobs, attempts, events and nodes: plain JSON values, times in ISO 8601 UTC (docs/api.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..jobs.arrays import Tasks
from ..jobs.errors import BusyError, GpuschedError, SpecError, StandbyError
from ..jobs.job import HOLDING, Job, Shape, State
from ..policies.plan import Token, Why
from .explain import Eta, Reason
from .shortage import held_words, needs, why_words
from .store.cluster import GpuNow
from .store.queries import AttemptInfo, EventInfo, JobInfo

JSON = dict[str, Any]


FIRST, LAST = -62_135_596_800.0, 253_402_300_799.0
"""UTC seconds of the first and the last moment that a calendar has."""


def iso(time: float | None) -> str | None:
    """Seconds as ISO 8601 in UTC, to the millisecond; None stays None."""
    if time is None or not math.isfinite(time):
        return None
    return datetime.fromtimestamp(round(time, 3), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """A time as UTC seconds, from a number of them or from ISO 8601 (UTC if it names no zone).

    Raises:
        ValueError: it is neither.
    """
    try:
        time = float(text)
    except ValueError:
        found = datetime.fromisoformat(text)
        try:
            time = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except OverflowError:
            raise ValueError(text) from None
    if not FIRST <= time <= LAST:  # nor is what is no number
        raise ValueError(text)
    return time


def error_view(error: GpuschedError) -> JSON:
    """An error as `{"code", "message", "hint", "problems"?, "leader"?}`."""
    found: JSON = {"code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, StandbyError):
        found["leader"] = error.leader
    if isinstance(error, BusyError):
        found["retry_after"] = error.retry_after
    if isinstance(error, SpecError):
        names = ("file", "line", "column", "key", "message", "hint")
        found["problems"] = [{name: getattr(problem, name) for name in names} for problem in error.problems]
    return found


def resources_view(shape: Shape) -> JSON:
    """What each piece asks for."""
    return {
        "num_nodes": shape.num_nodes,
        "gpus": shape.gpu_milli / 1000 if shape.gpu_milli else float(shape.gpus),
        "gpu_types": list(shape.gpu_types),
        "cpus": shape.cpu_milli / 1000,
        "memory": shape.memory,
        "labels": dict(shape.labels),
        "avoid": list(shape.avoid),
    }


def waiting_reason(job: JobInfo | Job, why: Why | None, now: float) -> tuple[str, str]:
    """(token, words) of a job's reason to be where it is; the token is empty when it does not wait."""
    if job.state is State.HELD:
        return Token.HELD.value, held_words(job.reason)
    if job.state is not State.QUEUED:
        return "", job.reason
    if job.not_before > now:
        return Token.BEGIN_TIME.value, back_off_words(job)
    if why is None:
        return "", job.reason or "not looked at yet"
    return why.token.value, why_words(why, job.shape)


def back_off_words(job: JobInfo | Job) -> str:
    """Until when a job waits for its next attempt, and why."""
    until = f"the next attempt is not before {iso(job.not_before)}"
    return f"{until}: {job.reason}" if job.attempt and job.reason else until


def array_view(tasks: Tasks) -> JSON:
    """How far an array is."""
    states = tasks.states
    return {
        "indices": tasks.text,
        "tasks": tasks.count,
        "limit": tasks.indices.limit or None,
        "waiting": tasks.count - tasks.made + states[State.QUEUED] + states[State.HELD],
        "running": sum(states[state] for state in HOLDING),
        "succeeded": states[State.SUCCEEDED],
        "failed": sum(states[state] for state in (State.FAILED, State.TIMEOUT, State.LOST)),
        "cancelled": states[State.CANCELLED],
    }


def progress(array: JSON) -> str:
    """The same in a few words."""
    words = [f"{array['succeeded']:,} of {array['tasks']:,} tasks done"]
    words += [f"{array[key]:,} {key}" for key in ("running", "failed", "cancelled", "waiting") if array[key]]
    return ", ".join(words)


def job_view(
    job: JobInfo,
    now: float,
    *,
    why: Why | None = None,
    position: int | None = None,
    labels: Mapping[str, str] | None = None,
    kind: str = "",
) -> JSON:
    """A job as listings show it."""
    reason, message = waiting_reason(job, why, now)
    array = None if job.array_state is None else array_view(Tasks.of(job.array_state))
    if array is not None:
        message = progress(array)
    held = (now - job.placed) * job.gpus if job.state in HOLDING else 0.0
    return {
        "id": job.id,
        "uid": job.uid,
        "name": job.name,
        "user": job.user,
        "queue": job.queue,
        "priority": job.priority,
        "kind": kind,
        "state": job.state.value,
        "reason": reason,
        "message": message,
        "position": position,
        "request": needs(job.shape),
        "resources": resources_view(job.shape),
        "array": array,
        "array_id": job.array_id,
        "array_index": job.array_index,
        "gpus": job.gpus,
        "labels": dict(labels or {}),
        "nodes": [piece.node for piece in job.pieces],
        "attempt": job.attempt,
        "failures": job.failures,
        "cause": job.cause,
        "exit_code": job.exit_code,
        "gpu_hours": (job.gpu_seconds + held) / 3600,
        "preemptible": job.preemptible,
        "estimate": job.estimate,
        "limit": job.limit,
        "submitted": iso(job.submitted),
        "queued": iso(job.queued),
        "not_before": iso(job.not_before) if job.not_before > now else None,
        "placed": iso(job.placed) if job.attempt else None,
        "started": iso(job.started),
        "first_start": iso(job.first_start),
        "ended": iso(job.ended),
    }


def accepted_view(job: Job, now: float, *, why: Why | None, position: int | None, eta: Eta | None) -> JSON:
    """A job that was just queued: what its submitter wants to know."""
    reason, message = waiting_reason(job, why, now)
    return {
        "id": job.id,
        "uid": job.uid,
        "name": job.name,
        "user": job.user,
        "queue": job.queue,
        "state": job.state.value,
        "reason": reason,
        "message": message,
        "position": position,
        "gpus": job.shape.total_gpus,
        "eta": None if eta is None else iso(eta.time),
    }


def known_view(job: JobInfo, now: float) -> JSON:
    """A job that was queued before under the same key, as `accepted_view` shows it."""
    reason, message = waiting_reason(job, None, now)
    return {
        "id": job.id,
        "uid": job.uid,
        "name": job.name,
        "user": job.user,
        "queue": job.queue,
        "state": job.state.value,
        "reason": reason,
        "message": message,
        "position": None,
        "gpus": job.gpus,
        "eta": None,
        "repeated": True,
    }


def attempt_view(attempt: AttemptInfo) -> JSON:
    """One attempt."""
    planned = [{"rank": rank, "node": piece.node} for rank, piece in enumerate(attempt.pieces)]
    return {
        "attempt": attempt.attempt,
        "placed": iso(attempt.placed),
        "started": iso(attempt.started),
        "stopping": iso(attempt.stopping),
        "ended": iso(attempt.ended),
        "result": attempt.result,
        "exit_code": attempt.exit_code,
        "message": attempt.message,
        "gpus": attempt.gpus,
        "gpu_type": attempt.gpu_type,
        "checkpoint": attempt.checkpoint,
        "lost_work": attempt.lost_work,
        "cause": attempt.cause,
        "cause_detail": attempt.cause_detail,
        "failed_node": attempt.failed_node,
        "ranks": attempt.ranks or planned,
    }


def event_view(event: EventInfo) -> JSON:
    """One line of the journal."""
    return {
        "seq": event.seq,
        "time": iso(event.time),
        "kind": event.kind,
        "job": event.job,
        "attempt": event.attempt,
        "data": event.data,
    }


def reason_view(reason: Reason) -> JSON:
    """One reason with its numbers."""
    return {"token": reason.token.value, "message": reason.message, **reason.numbers}


def used_view(gpus: list[GpuNow]) -> JSON:
    """What was measured of a node's GPUs."""
    if not gpus:
        return {}
    busy = [gpu.utilization for gpu in gpus if gpu.utilization is not None]
    memory = [gpu.memory_used for gpu in gpus if gpu.memory_used is not None]
    return {
        "utilization": 100 * sum(busy) / len(busy) if busy else None,
        "memory_used": sum(memory) if memory else None,
        "sampled": iso(max(gpu.time for gpu in gpus)) if busy else None,
    }


def gpu_view(gpu: GpuNow) -> JSON:
    """The latest sample of one GPU."""
    return {
        "node": gpu.node,
        "gpu": gpu.gpu,
        "model": gpu.model,
        "job": gpu.job or None,
        "utilization": None if gpu.utilization is None else 100 * gpu.utilization,
        "memory_used": gpu.memory_used,
        "memory_total": gpu.memory_total,
        "power": gpu.power,
        "temperature": gpu.temperature,
        "sampled": iso(gpu.time),
    }
