"""An explanation as plain JSON values, of a job that waits and of one that does not."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..jobs.job import FINAL
from .explain import Explanation
from .shortage import needs
from .store import queries
from .store.queries import JobInfo
from .views import JSON, event_view, iso, reason_view


def waiting_view(job: JobInfo, said: Explanation, decided: queries.ShapeReason | None, last: list[Any]) -> JSON:
    """A job that waits: every reason, who is ahead, what would help, and when it may start."""
    reasons = [reason_view(reason) for reason in said.reasons]
    return {
        "job": job.id,
        "name": job.name,
        "state": job.state.value,
        "summary": said.reasons[0].message
        if said.reasons
        else "nothing is in its way: it starts with the next decision",
        "reasons": reasons,
        "position": said.position,
        "waiting": said.waiting,
        "waiting_ahead": None if said.position is None else said.position - 1,
        "ahead": [
            {"id": one.id, "name": one.name, "user": one.user, "request": needs(one.shape), "state": one.state.value}
            for one in said.ahead
        ],
        "decision": None
        if decided is None
        else {
            "reason": decided.why.token.value,
            "since": iso(max(decided.time, job.queued)),
            "policy": decided.policy,
            "behind": decided.why.behind or None,
        },
        "suggestions": [{"change": change, "effect": effect} for change, effect in said.suggestions],
        "eta": None if said.eta is None else {"time": iso(said.eta.time), "basis": said.eta.basis},
        "promised": iso(said.promised),
        "last_event": event_view(last[0]) if last else None,
        "exit_code": job.exit_code,
    }


def settled_view(job: JobInfo, last: list[Any], now: float) -> JSON:
    """A job that does not wait: where it runs, or how it ended."""
    nodes = Counter(piece.node for piece in job.pieces)
    where = ", ".join(nodes)
    if job.state in FINAL:
        code = "" if job.exit_code is None else f" with exit code {job.exit_code}"
        ran = "" if job.started is None or job.ended is None else f" after {job.ended - job.started:.0f} s on {where}"
        summary = f"{job.state} since {iso(job.ended)}{code}{ran}: {job.reason}"
    elif job.started is not None:
        summary = f"{job.state} on {where}, for {now - job.started:.0f} s"
    else:
        summary = f"{job.state} on {where}: its processes are being started"
    return {
        "job": job.id,
        "name": job.name,
        "state": job.state.value,
        "summary": summary,
        "reasons": [],
        "position": None,
        "waiting": None,
        "waiting_ahead": None,
        "ahead": [],
        "decision": None,
        "suggestions": [],
        "eta": None,
        "promised": None,
        "last_event": event_view(last[0]) if last else None,
        "exit_code": job.exit_code,
    }
