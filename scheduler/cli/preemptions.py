"""Why a job had to give its GPUs back, from its journal: `gpusched explain --preempted`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..output import relative, safe, span

JSON = dict[str, Any]


def preemptions(job: JSON, events: Callable[[int], list[JSON]]) -> JSON:
    """Each time that it was told to go: when, by what, and what became of its work."""
    attempts = {attempt["attempt"]: attempt for attempt in job["attempts"]}
    found = []
    for event in events(job["id"]):
        if event["kind"] != "preempted":
            continue
        data = event["data"] or {}
        attempt = attempts.get(event["attempt"], {})
        found.append(
            {
                "time": event["time"],
                "attempt": event["attempt"],
                "cause": _cause(data),
                "message": _words(data),
                "claimant": data.get("claimant"),
                "node": data.get("node"),
                "deadline": data.get("deadline"),
                "by": data.get("by"),
                "exit_code": attempt.get("exit_code"),
                "checkpoint": attempt.get("checkpoint"),
                "lost_work": attempt.get("lost_work"),
            }
        )
    return {"job": job["id"], "name": job["name"], "state": job["state"], "preemptions": found}


def _cause(data: JSON) -> str:
    """drain, maintenance, claim (another job's), request (a user's) or policy."""
    if data.get("cause"):
        return str(data["cause"])
    return "claim" if data.get("claimant") else "request" if data.get("by") else "policy"


def _words(data: JSON) -> str:
    if data.get("message"):
        return str(data["message"])
    if data.get("claimant"):
        return f"its GPUs went to job {data['claimant']}"
    return f"{data['by']} asked for it" if data.get("by") else "the policy took its GPUs back"


def preemption_lines(said: JSON, now: float) -> Iterator[str]:
    """The same for people."""
    yield safe(f"job {said['job']} ({said['name']}): {said['state']}")
    if not said["preemptions"]:
        yield "  it was never preempted"
    for one in said["preemptions"]:
        yield safe(f"  attempt {one['attempt']}, {relative(one['time'], now)}: {one['message']}")
        parts = [] if one["exit_code"] is None else [f"it left with exit code {one['exit_code']}"]
        parts += [f"checkpoint {one['checkpoint']}"] if one["checkpoint"] else []
        if one["lost_work"] is not None:
            parts.append(f"{span(one['lost_work'])} of GPU time lost" if one["lost_work"] else "no work lost")
        if parts:
            yield safe(f"    {', '.join(parts)}")
