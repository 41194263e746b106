"""`gpusched top`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import click

from ..output import (
    SCHEMA_VERSION,
    Column,
    Listing,
    Style,
    clock,
    number,
    percent,
    render,
    size,
    span,
    to_json,
    to_lines,
    to_yaml,
)
from .job_columns import STATE_COLOURS, elapsed, where
from .session import Session, pass_session
from .verb import output_options, verb
from .watching import EVERY, redraw_text

JSON = dict[str, Any]

BAR = 10
"""Characters of a bar."""
MOST = 30
"""Rows of a table in the live picture."""
EXAMPLES = """
gpusched top                      # live, until Ctrl-C
gpusched top --once
gpusched top -o json
"""


@verb("top", examples=EXAMPLES)
@click.option("--once", is_flag=True, help="One picture; so it is anyway where standard output is no terminal.")
@click.option(
    "-w",
    "--watch",
    "--interval",
    "every",
    type=click.FloatRange(0.2, 3600),
    default=EVERY,
    metavar="SECONDS",
    help="Pause between pictures.",
)
@output_options
@pass_session
def top(session: Session, *, once: bool, every: float, style: Style) -> None:
    """Watch nodes, GPUs and jobs: what is allocated and what is used.

    Columns of what is not measured (no NVML, no agent yet) stay empty: nothing is made up.
    """
    client = session.client()
    if style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, **client.top()}
        sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))
    elif style.form == "jsonl":
        sys.stdout.write(to_lines([client.top()]))
    elif style.form in {"csv", "name"}:
        session.show(Listing("gpu", _gpu_columns(), client.top()["gpu"], name="node"), style)
    elif once or not sys.stdout.isatty():
        sys.stdout.write("\n".join(picture(client.top(), style, time.time())) + "\n")
    else:
        redraw_text(lambda: _live(session, session.client().top(), style), every)


def _live(session: Session, found: JSON, style: Style) -> str:
    width = session.width()
    text = [line[:400] for line in picture(found, replace(style, width=width), time.time(), most=MOST)]
    return "\n".join(text) + "\n"


def picture(found: JSON, style: Style, now: float, *, most: int | None = None) -> Iterator[str]:
    """The live picture as text, line by line."""
    style = replace(style, columns=(), sort_by="", form="table")
    gpus, queue = found["gpus"], found["queue"]
    total = gpus["total"] or 0
    used = "not measured" if gpus["used"] is None else f"{number(gpus['used'], 1)} used"
    share = gpus["allocated"] / total if total else 0.0
    states = ", ".join(f"{count} {state}" for state, count in queue.items() if count) or "no jobs"
    held = f"GPUs {bar(share)} {number(gpus['allocated'])}/{total} allocated, {used}"
    yield f"{clock(found['time'])} UTC   {held}   {states}"
    for title, listing in (
        ("nodes", Listing("nodes", _node_columns(), found["nodes"])),
        ("GPUs", Listing("gpu", _gpu_columns(), found["gpu"])),
        ("jobs", Listing("jobs", _job_columns(now), found["jobs"])),
    ):
        rows = listing.rows if most is None else listing.rows[:most]
        if rows:
            yield ""
            yield from render(replace(listing, rows=rows), style).splitlines()
        if len(listing.rows) > len(rows):
            yield f"and {len(listing.rows) - len(rows)} {title} more"


def bar(share: float | None) -> str:
    """A share from 0 to 1 as a bar of BAR characters."""
    if share is None:
        return ""
    full = round(min(max(share, 0.0), 1.0) * BAR)
    return "[" + "#" * full + "." * (BAR - full) + "]"


def _node_columns() -> tuple[Column, ...]:
    return (
        Column("node", lambda node: node["name"]),
        Column("state", lambda node: node["state"]),
        Column("type", lambda node: node["gpu_type"]),
        Column("allocated", _allocated, _allocation),
        Column(
            "utilization", lambda node: node["utilization"], lambda node: _gauge(node["utilization"]), heading="UTIL"
        ),
        Column(
            "memory",
            lambda node: node["memory_used"],
            lambda node: size(node["memory_used"]),
            right=True,
            heading="GPU MEM",
        ),
    )


def _allocated(node: JSON) -> float | None:
    return None if node["free"] is None else node["gpus"] - node["free"]


def _allocation(node: JSON) -> str:
    held = _allocated(node)
    if held is None or not node["gpus"]:
        return ""
    return f"{bar(held / node['gpus'])} {number(held)}/{node['gpus']}"


def _gauge(share: float | None) -> str:
    return "" if share is None else f"{bar(share / 100)} {percent(share)}"


def _gpu_columns() -> tuple[Column, ...]:
    return (
        Column("node", lambda gpu: gpu["node"]),
        Column("gpu", lambda gpu: gpu["gpu"], right=True),
        Column("job", lambda gpu: gpu["job"], right=True),
        Column("utilization", lambda gpu: gpu["utilization"], lambda gpu: _gauge(gpu["utilization"]), heading="UTIL"),
        Column("memory_used", lambda gpu: gpu["memory_used"], _gpu_memory, right=True, heading="MEMORY"),
        Column("power", lambda gpu: gpu["power"], lambda gpu: _with(gpu["power"], "W"), right=True),
        Column(
            "temperature",
            lambda gpu: gpu["temperature"],
            lambda gpu: _with(gpu["temperature"], "C"),
            right=True,
            heading="TEMP",
        ),
    )


def _gpu_memory(gpu: JSON) -> str:
    if gpu["memory_used"] is None:
        return ""
    total = "" if gpu["memory_total"] is None else f" / {size(gpu['memory_total'])}"
    return f"{size(gpu['memory_used'])}{total}"


def _with(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.0f} {unit}"


def _job_columns(now: float) -> tuple[Column, ...]:
    return (
        Column("id", lambda job: job["id"], right=True),
        Column("name", lambda job: job["name"]),
        Column("user", lambda job: job["user"]),
        Column("gpus", lambda job: job["gpus"], lambda job: number(job["gpus"]), right=True),
        Column("state", lambda job: job["state"], colour=lambda state: STATE_COLOURS.get(state, "")),
        Column(
            "utilization",
            lambda job: job["utilization"],
            lambda job: percent(job["utilization"]),
            right=True,
            heading="UTIL",
        ),
        Column(
            "cpu",
            lambda job: job["cpu"],
            lambda job: "" if job["cpu"] is None else number(job["cpu"], 1),
            right=True,
            heading="CPUS",
        ),
        Column("memory", lambda job: job["memory"], lambda job: size(job["memory"]), right=True),
        Column(
            "elapsed",
            lambda job: elapsed(job, now),
            right=True,
            text=lambda job: span(elapsed(job, now)),
            heading="WAIT/ELAPSED",
        ),
        Column("reason", lambda job: job["reason"], where, flexible=True, heading="REASON/NODES"),
    )
