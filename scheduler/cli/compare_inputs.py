"""What `gpusched policy compare` runs on: a trace, the control plane's own history, or the shipped example."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from ...cluster.backend import Node
from ...cluster.inventory import read_cluster
from ...cluster.profile import ZERO, Profile, read_profile
from ...jobs.errors import NotFoundError, UnreachableError
from ...jobs.traces.catalog import read_trace
from ...jobs.traces.generate import EXAMPLE
from ...jobs.traces.trace import Trace
from ...policies.tree import Tree
from ..queues.reading import parse_queues, read_queues
from ..sweep.vary import GENERATED, generated, generator_options
from .session import Session
from .simulate import EXAMPLE_CLUSTER, seconds

if TYPE_CHECKING:
    from ..client import Client

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is run. Attributes: source: trace, history or example; said: the same for people."""

    source: str
    said: str
    trace: Trace
    nodes: list[Node]
    tree: Tree | None
    profile: Profile | None
    estimates: str
    seed: int


def inputs(
    session: Session,
    trace: str | None,
    *,
    history: bool,
    since: str,
    nodes: tuple[str, ...],
    clusters: tuple[str, ...],
    trace_form: JSON,
    estimates: str,
    profile: str | None,
    start_up: str | None,
    queues: str | None,
    seed: int,
) -> Inputs:
    """What a user asks for, read.

    Raises:
        UnreachableError: history was asked for, and no control plane answers.
        NotFoundError: history was asked for, and there is none.
        TraceError, SpecError: something cannot be read.
    """
    context = click.get_current_context()
    if len(nodes) + len(clusters) > 1:
        raise click.UsageError("give one cluster: --nodes or --cluster, once", context)
    if history and trace is not None:
        raise click.UsageError("give TRACE or --history, not both", context)
    cluster = next(iter((*nodes, *clusters)), None)
    if trace is not None and cluster is None:
        raise click.UsageError("say on which cluster: --nodes 54x8, or --cluster FILE", context)
    costs = _costs(profile, start_up)
    tree = None if queues is None else read_queues(queues)
    why = ""
    if trace is None:
        try:
            recorded, live = _recorded(session.client(), since)
        except (UnreachableError, NotFoundError) as error:
            if history:
                raise
            why = error.message
        else:
            said, tree = ("", tree) if tree is not None else _queues_of(session.client(), recorded)
            where = live if cluster is None else read_cluster(cluster)
            return Inputs(
                "history", f"this control plane's history{said}", recorded, where, tree, costs, estimates, seed
            )
    source = EXAMPLE if trace is None else trace
    found = read_cluster(cluster or EXAMPLE_CLUSTER)
    if str(source).startswith(GENERATED):
        gpus = sum(node.gpus for node in found)
        read = generated(generator_options(str(source), gpus, seed=seed), str(source))
    else:
        read = read_trace(source, **trace_form)
    said = Path(str(source)).name if trace is not None else f"the shipped example ({why})"
    return Inputs("trace" if trace is not None else "example", said, read, found, tree, costs, estimates, seed)


def _costs(profile: str | None, start_up: str | None) -> Profile | None:
    from dataclasses import replace  # noqa: PLC0415 - the standard library's, and small

    read = None if profile is None else read_profile(profile)
    return read if start_up is None else replace(read or ZERO, start_up=seconds(start_up, "--start-up"))


def _recorded(client: Client, since: str) -> tuple[Trace, list[Node]]:
    """The jobs that a control plane has recorded, and its nodes."""
    lines = list(client.export(since=since))
    if len(lines) <= 1:  # the first line is the format's mark
        raise NotFoundError(
            "the control plane has no job that has ended yet", hint="give a TRACE, or come back when some have"
        )
    nodes = [_node(row) for row in client.nodes() if row["state"] != "gone"]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "history.jsonl"
        file.write_text("".join(lines), encoding="utf-8")
        return read_trace(file), nodes


def _node(row: JSON) -> Node:
    return Node(
        row["name"],
        int(row["gpus"]),
        row["gpu_type"] or "",
        cpu_milli=round(1000 * (row["cpus"] or 0)),
        memory=int(row["memory"] or 0),
        labels=dict(row["labels"] or {}),
    )


def _queues_of(client: Client, recorded: Trace) -> tuple[str, Tree | None]:
    """(what is to be said, the queues as they hold now). None where the history is of other queues, or of none."""
    if not client.queues()["configured"]:
        return "", None
    tree = parse_queues(client.queue_file()["text"], file="the control plane's queues")
    gone = sum(not tree.home(job.queue) for job in recorded.jobs)
    if gone:
        return f", without its queues ({gone:,} of the jobs named some that there are not now)", None
    return "", tree
