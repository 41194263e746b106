"""Nodes as tables and as words, for `gpusched nodes` and what changes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..output import Column, clock, number, percent, plain, relative, safe, size

JSON = dict[str, Any]

COLOURS = {
    "up": "green",
    "cordoned": "yellow",
    "draining": "yellow",
    "drained": "yellow",
    "maintenance": "yellow",
    "unhealthy": "red",
    "gone": "red",
}


def node_columns(now: float) -> tuple[Column, ...]:
    """The columns as they read at `now`, UTC seconds."""
    return (
        Column("name", lambda node: node["name"]),
        Column("state", lambda node: node["state"], colour=lambda state: COLOURS.get(state, "")),
        Column("gpu_type", lambda node: node["gpu_type"], heading="TYPE"),
        Column("gpus", lambda node: node["gpus"], right=True),
        Column("free", lambda node: node["free"], right=True),
        Column(
            "utilization",
            lambda node: node["utilization"],
            lambda node: percent(node["utilization"]),
            right=True,
            heading="UTIL",
        ),
        Column("cpus_free", lambda node: node["cpus_free"], _cpus, right=True, heading="CPUS FREE"),
        Column(
            "memory_free",
            lambda node: node["memory_free"],
            lambda node: size(node["memory_free"]),
            right=True,
            heading="MEMORY FREE",
        ),
        Column("jobs", lambda node: ",".join(str(job["id"]) for job in node["jobs"]), _jobs, flexible=True),
        Column("why", lambda node: node["why"], lambda node: "; ".join(about(node, now)), flexible=True),
        Column("reason", lambda node: node["reason"], wide=True),
        Column("by", lambda node: node["by"], wide=True),
        Column("since", lambda node: node["since"], lambda node: relative(node["since"], now), wide=True),
        Column("deadline", lambda node: node["deadline"], lambda node: relative(node["deadline"], now), wide=True),
        Column("address", lambda node: node["address"], wide=True),
        Column("cpus", lambda node: node["cpus"], right=True, wide=True),
        Column("memory", lambda node: node["memory"], lambda node: size(node["memory"]), right=True, wide=True),
        Column(
            "memory_used",
            lambda node: node["memory_used"],
            lambda node: size(node["memory_used"]),
            right=True,
            wide=True,
            heading="GPU MEMORY USED",
        ),
        Column("labels", lambda node: plain(node["labels"]), wide=True),
        Column("sampled", lambda node: node["sampled"], lambda node: relative(node["sampled"], now), wide=True),
    )


def about(node: JSON, now: float) -> Iterator[str]:
    """All there is to know on why a node takes no work, or will take none."""
    if node["why"]:
        yield node["why"]
    if node["by"]:
        yield f"by {node['by']}, {relative(node['since'], now)}"
    if node["deadline"] and node["state"] == "draining":
        jobs = len(node["jobs"])
        yield f"{jobs} job{'s' * (jobs != 1)} until {clock(node['deadline'])} UTC ({relative(node['deadline'], now)})"
    window = node["maintenance"]
    if window is not None:
        when = (
            f"until {clock(window['end'])}" if window["on"] else f"{clock(window['start'])} to {clock(window['end'])}"
        )
        yield f"maintenance {window['id']}: {when} UTC"
    for one in node["fenced"]:
        yield f"GPU {one['gpu']} is fenced: {one['why']}"
    if node["flaps"]:
        yield f"it flaps: it left {node['left_recently']} times within the last hour"


def _cpus(node: JSON) -> str:
    return "" if node["cpus_free"] is None else f"{number(node['cpus_free'])}/{number(node['cpus'])}"


def _jobs(node: JSON) -> str:
    return ", ".join(f"{job['id']} {job['name']} ({number(job['gpus'])})" for job in node["jobs"])


def node_lines(node: JSON, now: float) -> Iterator[str]:
    """One node for people, with its history."""
    free = "" if node["free"] is None else f", {number(node['free'])} free"
    facts = {
        "Node": node["name"],
        "State": node["state"],
        "Why": "; ".join(about(node, now)),
        "Address": node["address"],
        "GPUs": f"{node['gpus']} {node['gpu_type']}".strip() + free,
        "CPUs": number(node["cpus"]),
        "Memory": size(node["memory"]),
        "Labels": plain(node["labels"]),
        "First seen": f"{clock(node['first_seen'])} UTC, {relative(node['first_seen'], now)}",
        "Jobs": _jobs(node),
    }
    width = max(map(len, facts)) + 2
    for label, value in facts.items():
        if value:
            yield f"{label + ':':<{width}}{safe(str(value))}"
    if node["events"]:
        yield ""
        yield "History:"
    for event in node["events"]:
        yield safe(f"  {clock(event['time'])}  {_told(event['data'])}")


def _told(data: JSON) -> str:
    """A line of a node's history in words."""
    by = f" by {data['by']}" if data.get("by") else ""
    words = f"{data['what']}{by}"
    if data.get("deadline") is not None:
        words += f" until {clock(_iso(data['deadline']))}"
    details = [str(data[key]) for key in ("reason", "why") if data.get(key)]
    details += [
        f"{key} {data[key]}"
        for key in ("window", "gpu", "gpus", "address", "evidence")
        if data.get(key) not in (None, "")
    ]
    return words + (f": {', '.join(details)}" if details else "")


def _iso(time: float) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - only where a drain has a deadline

    return datetime.fromtimestamp(time, UTC).isoformat()
