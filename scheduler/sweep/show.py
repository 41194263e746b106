"""A study's outcome for people (a terminal table) and for machines (JSON and CSV)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..report import Estimate
from ..report.aggregate import CONFIDENCE
from ..report.metric import METRICS, Metric
from .combine import Group, figures_of, leaders
from .grid import Value
from .row import SCHEMA_VERSION

if TYPE_CHECKING:
    from rich.table import Table

BY_KEY = {metric.key: metric for metric in METRICS if metric.key}
SHOWN = (
    "jct_mean",
    "jct_above_bound",
    "jct_p99",
    "queueing_delay_mean",
    "makespan",
    "makespan_above_bound",
    "allocation_ratio",
    "preemptions",
    "unfinished",
)
"""Figures of the terminal's table; all others are in the machine forms and in Parquet."""
_WHERE_SOME = {"jct_above_bound", "makespan_above_bound", "preemptions", "unfinished"}
"""Shown where some run has another value than 0."""


def heading(metric: Metric) -> str:
    """A metric's name where no section stands above it."""
    return f"{metric.section} {metric.label}" if metric.label in {"mean", "p50", "p90", "p99"} else metric.label


def figure_text(found: Estimate | None, text: Callable[[float], str]) -> str:
    """`1h 12m ± 4m 10s`, or without the ± where all seeds gave the same or there is but one."""
    if found is None:
        return "-"
    return text(found.mean) if found.least == found.most else f"{text(found.mean)} ± {text(found.half or 0.0)}"


def swept_text(value: Value) -> str:
    """A swept value for people."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def rivals(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that differ in their policy alone, in the order of the plan."""
    return [list(them) for _, them in groupby(groups, lambda group: (group.trace, group.cluster, group.point))]


def one_each(groups: Sequence[Group]) -> tuple[bool, bool]:
    """Whether all groups are of one trace, and of one cluster: then no column need tell them apart."""
    return len({group.trace for group in groups}) == 1, len({group.cluster for group in groups}) == 1


def columns(groups: Sequence[Group]) -> list[Metric]:
    """The figures that a table of these groups shows."""
    return [
        BY_KEY[key]
        for key in SHOWN
        if key in BY_KEY and (key not in _WHERE_SOME or any(any(group.values(key)) for group in groups))
    ]


def table(groups: Sequence[Group]) -> Table:
    """One row a policy at each point; the clear best of each point is starred."""
    from rich.table import Table  # noqa: PLC0415 - slow to import, and machine forms do not need it
    from rich.text import Text  # noqa: PLC0415 - likewise

    metrics = columns(groups)
    one_trace, one_cluster = one_each(groups)
    swept = [key for key, _ in groups[0].point]
    grid = Table(show_edge=False, pad_edge=False, header_style="bold")
    names = [*([] if one_trace else ["trace"]), *([] if one_cluster else ["cluster"]), *swept, "policy"]
    for name in names:
        grid.add_column(name, justify="right" if name in swept else "left", overflow="fold")
    for metric in metrics:
        grid.add_column(heading(metric), justify="right")
    for them in rivals(groups):
        stars = {metric.key: leaders(them, metric.key, metric.better) for metric in metrics}
        for i, group in enumerate(them):
            place = [*([] if one_trace else [group.trace]), *([] if one_cluster else [group.cluster])]
            place += [swept_text(value) for _, value in group.point]
            cells = []
            for metric in metrics:
                text = figure_text(group.figure(metric.key), metric.text)
                star = i in stars[metric.key]
                cells.append(Text(f"{text} *" if star else f"{text}  ", style="bold green" if star else ""))
            grid.add_row(*(Text(word if not i else "") for word in place), Text(group.policy), *cells)
        grid.add_section()
    return grid


def legend(groups: Sequence[Group], star: str = "*") -> list[str]:
    """What the table's marks mean."""
    lines = []
    most = max(len(group.rows) for group in groups)
    starred = any(leaders(them, "jct_mean", -1) for them in rivals(groups))
    if most > 1:
        lines.append(f"±: {CONFIDENCE:.0%} confidence interval of the mean over seeds (Student's t)")
        if starred:
            lines.append(f"{star}: better than each other policy there, in the interval of their differences by seed")
    elif starred:
        lines.append(f"{star}: best there")
    if any(any(group.values("jct_above_bound")) for group in groups):
        lines.append("above ... bound: above the clairvoyant preemptive bound, which no schedule can beat")
    return lines


def figures(group: Group, names: Sequence[str]) -> dict[str, dict[str, float | int | None]]:
    """Every figure of a group as mean, half width of the interval, number of seeds that have it, and extremes."""
    found = {name: group.figure(name) for name in names}
    return {
        name: {"mean": one.mean, "half": one.half, "n": one.n, "min": one.least, "max": one.most}
        for name, one in found.items()
        if one is not None
    }


def to_json(
    groups: Sequence[Group], failures: Sequence[tuple[str, str]], notes: Sequence[str], *, timing: bool = False
) -> str:
    """One JSON document that ends in a line break; times in seconds."""
    names = figures_of(groups, timing=timing)
    document = {
        "schema_version": SCHEMA_VERSION,
        "units": {"time": "s", "share": "0..1"},
        "confidence": CONFIDENCE,
        "groups": [
            {
                "policy": group.policy,
                "trace": group.trace,
                "cluster": group.cluster,
                "swept": dict(group.point),
                "seeds": group.seeds,
                "figures": figures(group, names),
            }
            for group in groups
        ],
        "failed": [{"run": name, "why": why} for name, why in failures],
        "notes": list(notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(groups: Sequence[Group], *, timing: bool = False) -> str:
    """A header and one row a group; `FIGURE` is its mean over seeds, `FIGURE_half` half its interval (mean ± half).

    A cell that a spreadsheet would take for a formula starts with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = figures_of(groups, timing=timing)
    swept = [key for key, _ in groups[0].point] if groups else []
    header = ["schema_version", "policy", "trace", "cluster", *(f"swept_{key}" for key in swept), "seeds"]
    writer.writerow(header + [column for name in names for column in (name, f"{name}_half")])
    for group in groups:
        row: list[Any] = [SCHEMA_VERSION, group.policy, group.trace, group.cluster, *dict(group.point).values()]
        row.append(len(group.seeds))
        for name in names:
            found = group.figure(name)
            row += ["", ""] if found is None else [found.mean, found.half]
        writer.writerow(["" if value is None else _cell(value) for value in row])
    return out.getvalue()


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"} else value
