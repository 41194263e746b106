"""`gpusched nodes`, `cordon` and `resume`."""

from __future__ import annotations

import time
from typing import Any

import click

from ..output import Column, Listing, Style, number, percent, plain, relative, safe, size
from .refs import NODE, each
from .session import Session, pass_session
from .verb import output_options, verb
from .watching import redraw, watch_option

JSON = dict[str, Any]

COLOURS = {"up": "green", "cordoned": "yellow", "unhealthy": "red", "gone": "red"}


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
        Column("why", lambda node: node["why"], flexible=True),
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


def _cpus(node: JSON) -> str:
    return "" if node["cpus_free"] is None else f"{number(node['cpus_free'])}/{number(node['cpus'])}"


def _jobs(node: JSON) -> str:
    return ", ".join(f"{job['id']} {job['name']} ({number(job['gpus'])})" for job in node["jobs"])


NODES = """
gpusched nodes
gpusched nodes -o wide
gpusched nodes --columns name,free,jobs --sort-by -free
"""


@verb("nodes", examples=NODES)
@watch_option
@click.option("-q", "--quiet", is_flag=True, help="Print the names alone.")
@output_options
@pass_session
def nodes(session: Session, *, watch: float | None, quiet: bool, style: Style) -> None:
    """List the nodes: what is free, and who holds the rest.

    UTIL is what the GPUs were measured to do; `-` where nothing measures it. JOBS names each job with the GPUs that it
    holds there.
    """

    def picture(_style: Style) -> Listing:
        return Listing("nodes", node_columns(time.time()), session.client().nodes(), empty="no nodes yet")

    if quiet:
        for node in session.client().nodes():
            click.echo(safe(node["name"]))
    elif watch is not None:
        redraw(session, style, picture, watch)
    else:
        session.show(picture(style), style)


@verb("cordon", examples='\ngpusched cordon n1 --reason "fan is loud"\n')
@click.argument("names", nargs=-1, required=True, metavar="NODE...", type=NODE)
@click.option("--reason", default="", metavar="TEXT", help="Shown in `gpusched nodes`.")
@pass_session
def cordon(session: Session, *, names: tuple[str, ...], reason: str) -> None:
    """Give nodes no new work; what runs there goes on.

    `gpusched resume` ends it. It outlives a restart of the control plane.
    """
    client = session.client()

    def act(name: str) -> None:
        node = client.cordon(name, reason)
        jobs = len(node["jobs"])
        held = f"; {jobs} job{'s go' if jobs > 1 else ' goes'} on there" if jobs else ""
        click.echo(safe(f"node {node['name']} is cordoned{held}"))

    each(names, act)


@verb("resume", examples="\ngpusched resume n1\n")
@click.argument("names", nargs=-1, required=True, metavar="NODE...", type=NODE)
@pass_session
def resume(session: Session, *, names: tuple[str, ...]) -> None:
    """Give cordoned nodes work again."""
    client = session.client()
    each(names, lambda name: click.echo(safe(f"node {client.resume(name)['name']} takes new work")))
