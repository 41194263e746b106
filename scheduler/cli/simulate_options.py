"""The options of `gpusched simulate`, by what they are about; handed over as one value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, Literal, TypeVar

import click

from .trace_options import trace_options

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a user asks `gpusched simulate` for, as it was written."""

    traces: tuple[str, ...]
    policies: tuple[str, ...]
    nodes: tuple[str, ...]
    clusters: tuple[str, ...]
    trace_form: dict[str, Any]
    estimates: Literal["exact", "trace", "none"]
    profile: str | None
    start_up: str | None
    queues: str | None
    window: str | None
    bounds: bool
    sweep: tuple[str, ...]
    seed: int
    seeds: int | None
    bootstrap: str | None
    processes: int | None
    ray_address: str | None
    results: str | None
    per_job: bool
    form: str | None
    html: str | None
    figures: str | None
    timing: bool
    quiet: bool

    def many(self) -> bool:
        """Whether this is a study of many runs rather than one trace on one cluster."""
        several = len(self.traces) > 1 or len(self.nodes) + len(self.clusters) > 1
        spread = self.processes is not None or self.ray_address is not None or self.results is not None
        return several or bool(self.sweep) or self.seeds is not None or self.bootstrap is not None or spread


_INPUTS = (
    click.option(
        "--policy", "policies", multiple=True, metavar="NAME", help="May repeat; left out: fifo, binpack and gang."
    ),
    click.option(
        "--nodes",
        multiple=True,
        metavar="NxG[:TYPE],...",
        help="The cluster: 54x8, or 10x8:H100,4x4:A100. May repeat, to compare clusters.",
    ),
    click.option(
        "--cluster",
        "clusters",
        multiple=True,
        metavar="FILE",
        help="The cluster as a YAML or CSV file of nodes. May repeat.",
    ),
    trace_options,
    click.option(
        "--estimates",
        type=click.Choice(["exact", "trace", "none"]),
        default="exact",
        show_default=True,
        help="What policies are told of run times: the truth, what the trace's users asked for, or nothing.",
    ),
    click.option("--profile", metavar="FILE", help="Costs and failures of the cluster, YAML; left out: none."),
    click.option(
        "--start-up",
        metavar="TIME",
        help="From a start to the first second of work; left out: as the profile says, else 0s.",
    ),
    click.option("--queues", metavar="FILE", help="Queues with weights, quotas and limits, YAML; left out: no limits."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="Of all chance."),
)
_STUDY = (
    click.option(
        "--sweep",
        multiple=True,
        metavar="KEY=VALUES",
        help="One run for each value: load=0.7:1.3:0.1, estimates=exact,none. Keys: load, rate, seed, estimates, "
        "start_up, generate.OPTION, policy.OPTION. May repeat, for every combination.",
    ),
    click.option(
        "--seeds", type=click.IntRange(1), metavar="N", help="N runs of each, from --seed on; figures get intervals."
    ),
    click.option(
        "--bootstrap", metavar="TIME", help="Each seed draws the arrivals anew from blocks of this length, 1d."
    ),
    click.option(
        "-j", "--processes", type=click.IntRange(1), metavar="N", help="Runs at a time; left out: a core each."
    ),
    click.option(
        "--ray-address", metavar="HOST:PORT", help="Spread the runs over this Ray cluster; auto = this machine's."
    ),
    click.option(
        "--results", metavar="FOLDER", help="Keep each run in Parquet as it ends; the same command goes on from there."
    ),
    click.option("--per-job", is_flag=True, help="Keep a row of every job of every run too."),
)
_REPORT = (
    click.option("--window", metavar="WINDOW", help="Jobs that are measured: full, batch:1d..5d, steady:1000..5000."),
    click.option("--bounds", is_flag=True, help="Lower bounds that no schedule can beat, and how far above them."),
    click.option(
        "-o", "--output", "form", type=click.Choice(["table", "json", "csv"]), metavar="FORM", help="table, json, csv."
    ),
    click.option(
        "--html", metavar="FILE", type=click.Path(dir_okay=False), help="Write a page with all charts; works offline."
    ),
    click.option("--figures", metavar="FOLDER", help="Write each figure as PNG and SVG."),
    click.option("--timing", is_flag=True, help="Wall time of the replay in json, csv and the page too."),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no notes."),
)


def simulate_options(function: F) -> F:
    """All options but TRACE, handed over as `asked`."""

    @wraps(function)
    def gathered(*args: Any, **given: Any) -> Any:  # noqa: ANN401 - whatever the verb takes and gives
        asked = Asked(**{field.name: given.pop(field.name) for field in fields(Asked)})
        return function(*args, asked=asked, **given)

    command: Any = gathered
    for option in reversed((*_INPUTS, *_STUDY, *_REPORT)):
        command = option(command)
    return command  # type: ignore[no-any-return]  # click.option is typed to hand its function through


def input_options(function: F) -> F:
    """The options that say what is run, without --policy: for verbs that take the policies in another way."""
    command: Any = function
    for option in reversed(_INPUTS[1:]):
        command = option(command)
    return command  # type: ignore[no-any-return]  # as above
