"""The columns of listings of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...jobs.job import FINAL, WAITING
from ..output import Column, clock, hours, moment, number, percent, plain, relative, span

JSON = dict[str, Any]

STATE_COLOURS = {
    "HELD": "dim",
    "QUEUED": "yellow",
    "STARTING": "cyan",
    "RUNNING": "green",
    "PREEMPTING": "yellow",
    "STOPPING": "yellow",
    "SUCCEEDED": "dim",
    "FAILED": "red",
    "CANCELLED": "dim",
    "TIMEOUT": "red",
    "LOST": "red",
}


def job_columns(now: float) -> Sequence[Column]:
    """The columns as they read at `now`, UTC seconds."""
    return (
        Column("id", lambda job: job["id"], right=True),
        Column("name", lambda job: job["name"]),
        Column("user", lambda job: job["user"]),
        Column("queue", lambda job: job["queue"]),
        Column("priority", lambda job: job["priority"], right=True, heading="PRI"),
        Column("gpus", lambda job: job["gpus"], lambda job: number(job["gpus"]), right=True),
        Column("state", lambda job: job["state"], colour=lambda state: STATE_COLOURS.get(state, "")),
        Column("reason", _reason, where, flexible=True, heading="REASON/NODES"),
        Column(
            "elapsed",
            lambda job: elapsed(job, now),
            lambda job: span(elapsed(job, now)),
            right=True,
            heading="WAIT/ELAPSED",
        ),
        Column(
            "utilization",
            lambda job: job.get("utilization"),
            lambda job: percent(job.get("utilization")),
            right=True,
            heading="UTIL",
        ),
        Column("eta", eta, lambda job: relative(eta(job), now)),
        Column("position", lambda job: job.get("position"), right=True, wide=True),
        Column("request", lambda job: job["request"], wide=True),
        Column("attempt", lambda job: job["attempt"] or None, right=True, wide=True),
        Column("exit_code", lambda job: job["exit_code"], right=True, wide=True, heading="EXIT"),
        Column("cause", lambda job: job.get("cause") or "", wide=True),
        Column("gpu_hours", lambda job: job["gpu_hours"], lambda job: hours(job["gpu_hours"]), right=True, wide=True),
        Column("submitted", lambda job: job["submitted"], lambda job: clock(job["submitted"]), wide=True),
        Column("started", lambda job: job["started"], lambda job: clock(job["started"]), wide=True),
        Column("ended", lambda job: job["ended"], lambda job: clock(job["ended"]), wide=True),
        Column("nodes", lambda job: ",".join(Counter(job["nodes"])), wide=True),
        Column("message", lambda job: job["message"], wide=True),
        Column("uid", lambda job: job["uid"], wide=True),
    )


def _reason(job: JSON) -> str:
    return plain(job["reason"]) or ",".join(Counter(job["nodes"]))


def where(job: JSON) -> str:
    """Why it waits, where it runs, or how it ended; of an array how far it is."""
    if job.get("array"):
        return str(job["message"])
    if job["state"] in WAITING:
        message = job["message"] or ""
        return f"{job['reason']}: {message}" if job["reason"] and message else job["reason"] or message
    nodes = nodes_of(job)
    if job["state"] in FINAL and job["state"] != "SUCCEEDED":
        code = f"exit {job['exit_code']}" if job["exit_code"] else ""
        cause = job.get("cause") or ""
        code = cause if cause and not cause.startswith("exit:") else code
        message = (job["message"] or "").removeprefix(f"exit code {job['exit_code']}; ")
        return ", ".join(filter(None, (code, message))) or nodes
    return nodes


def nodes_of(job: JSON) -> str:
    """The nodes of a job, with how many pieces each holds if more than one."""
    counts: Counter[str] = Counter(job["nodes"])
    names = [name if count == 1 else f"{name} x{count}" for name, count in counts.items()]
    return ",".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")  # noqa: PLR2004 - what a line holds


def elapsed(job: JSON, now: float) -> float | None:
    """Seconds that a job has waited, or that its last attempt has run."""
    if job["state"] in WAITING:
        begun = moment(job["queued"] or job["submitted"])
    else:
        begun = moment(job["started"] or job["placed"])
    if begun is None:
        return None
    return max((moment(job["ended"]) or now) - begun, 0.0)


def eta(job: JSON) -> str | None:
    """When a waiting job is expected to start, or a running one to end; None = not known."""
    if job["state"] in WAITING:
        start: str | None = job.get("eta")
        return start
    begun = moment(job["started"])
    if begun is None or job["ended"] or not job["estimate"]:
        return None
    from datetime import UTC, datetime  # noqa: PLC0415 - for jobs with an estimate alone

    end = datetime.fromtimestamp(begun + job["estimate"], UTC)
    return end.isoformat(timespec="milliseconds").replace("+00:00", "Z")
