"""What the report page draws, cut down to what a screen can show and packed for a script to read.

Series are exact where they are short and averaged over equal bins of time where they are long; each bar of the Gantt
is kept as long as the page stays small, above that the occupancy by node and bin stands alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, pairwise
from operator import itemgetter
from typing import Any

from ...jobs.events import Kind
from ...jobs.job import FINAL, Job
from . import Run, completion_time, queueing_delay, span_of
from .gantt import SIZE_CLASSES, bars, heat, holds, job_table, size_class
from .occupancy import BACK_TO_QUEUE, FINAL_ENDS, GPU, changes, in_order

STEPS = 1200
"""Points of a series over time; a chart is about as many pixels wide."""
QUANTILES = 300
"""Points of a distribution."""
BARS = 220_000
"""Bars of all runs together that the page carries; about 11 bytes each."""


def steps(deltas: Iterable[tuple[float, float]], end: float) -> Iterator[tuple[float, float]]:
    """A step function from its changes in order of time: (from when, value), ending at `end`; one step an instant."""
    since, value = 0.0, 0.0
    for time, delta in deltas:
        if time > since:
            yield since, value
            since = time
        value += delta
    yield since, value
    if end > since:
        yield end, value


def series(points: Iterable[tuple[float, float]], span: float, most: int = STEPS) -> dict[str, Any]:
    """A step function for a chart: its own steps when there are at most `most`, else mean, least and most by bin.

    Takes the steps as they come and keeps no more of them than it returns.

    Returns `{"t", "v"}` (value v from time t on) or `{"bin", "v", "lo", "hi"}` (bin i covers i * bin to (i + 1) * bin).
    """
    width = span / most
    exact: list[tuple[float, float]] = []
    area, low, high = [0.0] * most, [math.inf] * most, [0.0] * most
    for (since, value), (until, _) in pairwise(chain(points, ((span, 0.0),))):
        if len(exact) <= most:
            exact.append((since, value))
        i = min(int(since / width), most - 1) if width else most
        while i < most and i * width < until:
            left, right = max(since, i * width), min(until, (i + 1) * width)
            if right > left:
                area[i] += value * (right - left)
                low[i], high[i] = min(low[i], value), max(high[i], value)
            i += 1
    if len(exact) <= most:
        return {"t": [_short(t) for t, _ in exact], "v": [_short(v) for _, v in exact]}
    low = [value if value < math.inf else 0.0 for value in low]
    return {
        "bin": width,
        "v": [_short(total / width) for total in area],
        "lo": [_short(value) for value in low],
        "hi": [_short(value) for value in high],
    }


def waiting_changes(run: Run, first: float) -> Iterator[tuple[float, float]]:
    """Changes of the number of waiting jobs in order of time, as (seconds since `first`, +1 or -1)."""
    arrivals = ((submitted - first, 1.0) for submitted in sorted(job.submitted for job in run.jobs))
    moves = (
        (time - first, 1.0 if kind in BACK_TO_QUEUE else -1.0)
        for time, kind, _, _ in changes(in_order(run.journal))
        if kind not in FINAL_ENDS
    )
    return merge(arrivals, moves, key=itemgetter(0))


def allocated_changes(run: Run, first: float) -> Iterator[tuple[float, float]]:
    """Changes of the GPUs held, in thousandths of a GPU, in order of time, as (seconds since `first`, change)."""
    for time, kind, _, pieces in changes(in_order(run.journal)):
        amount = sum(GPU * gpus + milli for _, gpus, milli, _ in pieces)
        yield time - first, amount if kind is Kind.PLACED else -amount


def _short(value: float) -> float:
    """One decimal from a thousand on, four digits below: enough for a pixel and a tooltip, and short as text."""
    rounded = float(round(value, 1) if abs(value) >= 1000 else f"{value:.4g}")  # noqa: PLR2004 - as said above
    return int(rounded) if rounded.is_integer() else rounded


def quantiles(values: Sequence[float], points: int = QUANTILES) -> list[float]:
    """Values at the shares 0, 1/points, ..., 1 of the sorted list; all of them when there are fewer."""
    ordered = sorted(values)
    if len(ordered) <= points:
        return [_short(value) for value in ordered]
    last = len(ordered) - 1
    return [_short(ordered[i * last // points]) for i in range(points + 1)]


def by_size(jobs: Iterable[Job], classes: Sequence[int]) -> list[dict[str, Any] | None]:
    """JCT and queueing delay by size class, each as [n, p10, p25, p50, p75, p90, p99]; None where no job is."""
    jct: dict[int, list[float]] = defaultdict(list)
    delay: dict[int, list[float]] = defaultdict(list)
    for job in jobs:
        kind = size_class(job.shape.total_gpus)
        jct[kind].append(completion_time(job))
        delay[kind].append(queueing_delay(job))
    return [{"jct": _box(jct[kind]), "delay": _box(delay[kind])} if kind in jct else None for kind in classes]


def _box(values: list[float]) -> list[float]:
    ordered = sorted(values)
    n = len(ordered)
    ranks = [max(-(-p * n // 100) - 1, 0) for p in (10, 25, 50, 75, 90, 99)]
    ranks[2] = n // 2
    return [n, *(_short(ordered[rank]) for rank in ranks)]


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything that the page's script draws, JSON-able, the same for the same runs."""
    spans = [span_of(run, in_order(run.journal)) for run in runs]
    span = max((end - start for start, end in spans), default=0.0)
    unit = 1.0 if span >= 3600 else 0.001  # noqa: PLR2004 - an hour; below it, parts of a second show
    classes = sorted({size_class(job.shape.total_gpus) for run in runs for job in run.jobs})
    held = [holds(run) for run in runs]
    with_bars = sum(len(hold.pieces) for attempts in held for hold in attempts) <= BARS
    tables: list[dict[str, Any]] = []
    drawn = []
    for run, (first, _), attempts in zip(runs, spans, held, strict=True):
        jobs = sorted(run.jobs, key=lambda job: (job.submitted, job.id))
        measured = [job for job in jobs if job.state in FINAL and job.first_start is not None]
        table = job_table(jobs, first, unit, classes) if with_bars else None
        if table is not None and table not in tables:
            tables.append(table)
        index = {job.id: i for i, job in enumerate(jobs)}
        drawn.append(
            {
                "policy": run.policy,
                "gpus": sum(node.gpus for node in run.cluster),
                "nodes": [[node.name, node.gpus, node.gpu_type] for node in run.cluster],
                "waiting": series(steps(waiting_changes(run, first), span), span),
                "allocated": series(
                    ((time, gpus / GPU) for time, gpus in steps(allocated_changes(run, first), span)), span
                ),
                "jct": quantiles([completion_time(job) for job in measured]),
                "delay": quantiles([queueing_delay(job) for job in measured]),
                "bySize": by_size(measured, classes),
                "heat": heat(attempts, run.cluster, span),
                "bars": bars(attempts, index, unit) if table is not None else None,
                "jobs": tables.index(table) if table is not None else None,
            }
        )
    return {
        "span": span,
        "unit": unit,
        "sizes": [SIZE_CLASSES[kind][0] for kind in classes],
        "tables": tables,
        "runs": _share_nodes(drawn),
    }


def _share_nodes(drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave a cluster out where it is the first run's."""
    for run in drawn[1:]:
        if run["nodes"] == drawn[0]["nodes"]:
            run["nodes"] = None
    return drawn
