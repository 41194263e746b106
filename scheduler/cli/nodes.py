"""`gpusched nodes`, `cordon`, `drain` and `resume`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ..output import SCHEMA_VERSION, Listing, Style, clock, safe, to_json, to_lines, to_yaml
from .node_columns import node_columns, node_lines
from .refs import NODE, each
from .session import Session, pass_session
from .verb import node_selector, output_options, verb
from .watching import redraw, watch_option

if TYPE_CHECKING:
    from ..client import Client

JSON = dict[str, Any]

NODES = """
gpusched nodes
gpusched nodes n1              # one node with its history
gpusched nodes -o wide
gpusched nodes --columns name,free,jobs --sort-by -free
"""
DRAIN = """
gpusched drain n1 --reason "new memory"        # what runs there may end by itself
gpusched drain n1 n2 --deadline 2h             # by then it is gone: checkpointed and moved
gpusched drain -l rack=7 --by 2026-03-01T06:00:00Z
gpusched drain n1 --now
"""


@verb("nodes", examples=NODES)
@click.argument("names", nargs=-1, metavar="[NODE...]", type=NODE)
@watch_option
@click.option("-q", "--quiet", is_flag=True, help="Print the names alone.")
@click.option("-a", "--all", "gone", is_flag=True, help="Those that left the cluster too.")
@output_options
@pass_session
def nodes(
    session: Session, *, names: tuple[str, ...], watch: float | None, quiet: bool, gone: bool, style: Style
) -> None:
    """List the nodes: what is free, and who holds the rest; or all on one node.

    UTIL is what the GPUs were measured to do; `-` where nothing measures it. JOBS names each job with the GPUs that it
    holds there. WHY says who keeps work away and until when. A node that is named is shown with its history: when it
    joined, left, was cordoned, drained or unhealthy, and by whom.
    """

    def picture(_style: Style) -> Listing:
        found = session.client().nodes(gone=gone)
        return Listing("nodes", node_columns(time.time()), found, empty="no nodes yet")

    if names:
        describe_nodes(session, names, style)
    elif quiet:
        for node in session.client().nodes(gone=gone):
            click.echo(safe(node["name"]))
    elif watch is not None:
        redraw(session, style, picture, watch)
    else:
        session.show(picture(style), style)


def describe_nodes(session: Session, names: tuple[str, ...], style: Style) -> None:
    """Print all on these nodes, with their history."""
    client = session.client()
    found = each(tuple(dict.fromkeys(names)), client.node)
    if style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, "nodes": found}
        sys.stdout.write(to_json(document) if style.form == "json" else to_yaml(document))
    elif style.form == "jsonl":
        sys.stdout.write(to_lines(found))
    elif style.form in {"csv", "name"}:
        session.show(Listing("nodes", node_columns(time.time()), found), style)
    else:
        sys.stdout.write("\n".join("\n".join(node_lines(node, time.time())) + "\n" for node in found))


def chosen(client: Client, names: tuple[str, ...], labels: dict[str, str]) -> list[str]:
    """The nodes that are named, or those that carry all these labels.

    Raises:
        UsageError: neither is given, or both.
        NotFoundError: no node carries the labels.
    """
    from ...jobs.errors import NotFoundError  # noqa: PLC0415 - the help does not need it

    if bool(names) == bool(labels):
        raise click.UsageError(
            "give nodes or a selector, not both" if names else "name a node, or select some by -l KEY=VALUE",
            click.get_current_context(),
        )
    if names:
        return list(dict.fromkeys(names))
    found = [
        node["name"]
        for node in client.nodes()
        if all(node["labels"].get(key) == value for key, value in labels.items())
    ]
    if not found:
        wanted = ", ".join(f"{key}={value}" for key, value in labels.items())
        raise NotFoundError(f"no node carries {wanted}", hint="`gpusched nodes -o wide` shows their labels")
    return found


_names = click.argument("names", nargs=-1, metavar="[NODE...]", type=NODE)
_reason = click.option("--reason", default="", metavar="TEXT", help="Shown in `gpusched nodes` and to who waits.")


@verb("cordon", examples='\ngpusched cordon n1 --reason "fan is loud"\ngpusched cordon -l rack=7\n')
@_names
@node_selector
@_reason
@pass_session
def cordon(session: Session, *, names: tuple[str, ...], labels: dict[str, str], reason: str) -> None:
    """Give nodes no new work; what runs there goes on.

    `gpusched resume` ends it. It outlives a restart of the control plane, and a node that leaves and comes back.
    """
    client = session.client()

    def act(name: str) -> None:
        node = client.cordon(name, reason, user=session.user)
        jobs = len(node["jobs"])
        held = f"; {jobs} job{'s go' if jobs > 1 else ' goes'} on there" if jobs else ""
        already = "" if node["changed"] else " already"
        click.echo(safe(f"node {node['name']} is cordoned{already}{held}"))

    each(chosen(client, names, labels), act)


@verb("drain", examples=DRAIN)
@_names
@node_selector
@click.option("--deadline", metavar="DURATION", help="What runs there is gone by then: 2h from now.")
@click.option(
    "--by", "until", metavar="TIME", help="The same as a time: 2026-03-01T06:00:00Z (UTC if it names no zone)."
)
@click.option("--now", "at_once", is_flag=True, help="Move what runs there at once.")
@_reason
@pass_session
def drain(
    session: Session,
    *,
    names: tuple[str, ...],
    labels: dict[str, str],
    deadline: str | None,
    until: str | None,
    at_once: bool,
    reason: str,
) -> None:
    """Give nodes no new work, and have what runs there gone in time.

    Jobs there may end by themselves. One that would not be gone by the deadline is told to checkpoint its grace before
    it, whether it is preemptible or not; it waits for another place, and that counts as no failure. Without a deadline
    nothing is moved: the node is drained when its last job has ended. Asked again, it takes over another deadline or
    reason. `gpusched resume` ends it. It outlives a restart of the control plane.
    """
    if sum((deadline is not None, until is not None, at_once)) > 1:
        raise click.UsageError("--deadline, --by and --now exclude each other", click.get_current_context())
    within = 0.0 if at_once else None if deadline is None else duration(deadline, "--deadline")
    client = session.client()

    def act(name: str) -> None:
        node = client.drain(name, reason, within=within, deadline=until or "", user=session.user)
        click.echo(safe(_drained(node)))

    each(chosen(client, names, labels), act)


def _drained(node: JSON) -> str:
    already = "" if node["changed"] else " already"
    jobs = len(node["jobs"])
    if node["state"] == "drained":
        return f"node {node['name']} is drained{already}"
    have = f"{jobs} job{'s have' if jobs > 1 else ' has'}"
    until = f"until {clock(node['deadline'])} UTC" if node["deadline"] else "until they end by themselves"
    return f"node {node['name']} drains{already}; {have} {until}" if jobs else f"node {node['name']} {node['state']}"


def duration(text: str, option: str) -> float:
    """Seconds of a duration on the command line."""
    from ...jobs.units import UnitError, parse_duration  # noqa: PLC0415 - the help does not need it

    try:
        return parse_duration(text)
    except UnitError as error:
        raise click.UsageError(f"{option}: {error}", click.get_current_context()) from None


@verb("resume", examples="\ngpusched resume n1\ngpusched resume -l rack=7\n")
@_names
@node_selector
@pass_session
def resume(session: Session, *, names: tuple[str, ...], labels: dict[str, str]) -> None:
    """Give cordoned and drained nodes work again.

    Jobs that were told to leave go all the same. A maintenance window goes on: `gpusched maintenance cancel` ends it.
    """
    client = session.client()

    def act(name: str) -> None:
        node = client.resume(name, user=session.user)
        words = "takes new work" if node["changed"] else "was not cordoned or drained"
        if node["state"] not in {"up", "draining", "drained", "cordoned"}:
            words += f"; it is {node['state']}: {node['why'] or 'it left the cluster'}"
        click.echo(safe(f"node {node['name']} {words}"))

    each(chosen(client, names, labels), act)
