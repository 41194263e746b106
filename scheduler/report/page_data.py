"""What the report page draws, packed for a script to read: the charts, and the Gantt.

Each bar of the Gantt is kept as long as the page stays small, above that the occupancy by node and bin stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .charts import chart_data, measured_of, quantiles, series, steps
from .gantt import bars, heat, holds, job_table, size_class
from .run import Run
from .summary import Summary, summarize

__all__ = ["page_data", "quantiles", "series", "steps"]

BARS = 220_000
"""Bars of all runs together that the page carries; about 11 bytes each."""


def page_data(runs: Sequence[Run], summaries: Sequence[Summary] | None = None) -> dict[str, Any]:
    """Everything that the page's script draws, JSON-able, the same for the same runs.

    Args:
        runs: what to draw.
        summaries: theirs, in the same order; left out: of the full window.
    """
    if summaries is None:
        summaries = [summarize(run) for run in runs]
    measured = measured_of(runs, summaries)
    data = chart_data(measured, summaries)
    span = data["span"]
    unit = data["unit"] = 1.0 if span >= 3600 else 0.001  # noqa: PLR2004 - an hour; below it, parts of a second show
    classes = sorted({size_class(job.shape.total_gpus) for run in runs for job in run.jobs})
    held = [holds(run) for run in runs]
    with_bars = sum(len(hold.pieces) for attempts in held for hold in attempts) <= BARS
    tables: list[dict[str, Any]] = []
    for run, found, attempts, drawn in zip(runs, measured, held, data["runs"], strict=True):
        jobs = sorted(run.jobs, key=lambda job: (job.submitted, job.id))
        table = job_table(jobs, found.first, unit, classes) if with_bars else None
        if table is not None and table not in tables:
            tables.append(table)
        index = {job.id: i for i, job in enumerate(jobs)}
        drawn["nodes"] = [[node.name, node.gpus, node.gpu_type] for node in run.cluster]
        drawn["heat"] = heat(attempts, run.cluster, span)
        drawn["bars"] = bars(attempts, index, unit) if table is not None else None
        drawn["jobs"] = tables.index(table) if table is not None else None
    data["tables"] = tables
    _share_nodes(data["runs"])
    return data


def _share_nodes(drawn: list[dict[str, Any]]) -> None:
    """Leave a cluster out where it is the first run's."""
    for run in drawn[1:]:
        if run["nodes"] == drawn[0]["nodes"]:
            run["nodes"] = None
