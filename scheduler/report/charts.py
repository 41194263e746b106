"""What the charts of the page and the figures for a paper show, cut down to what a screen or a column can show.

Series are exact where they are short and averaged over equal bins of time where they are long.
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
from .distribution import rank
from .gantt import SIZE_CLASSES, size_class
from .groups import Group
from .measured import Measured
from .measures import Row, slowdown
from .occupancy import BACK_TO_QUEUE, FINAL_ENDS, GPU, IdleGPUs, changes, in_order
from .run import Run
from .summary import Summary, span_measured
from .window import Window

STEPS = 1200
"""Points of a series over time; a chart is about as many pixels wide."""
QUANTILES = 300
"""Points of a distribution."""
RANKS = (10, 25, 50, 75, 90, 99)
"""Percentiles of a box; the median is the upper one, as in `Distribution`."""
MEDIAN = 50
OWNERS = 12
"""Users or queues that have a row of their own; those with most GPU time."""


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


def by_size(rows: Iterable[Row], classes: Sequence[int]) -> list[dict[str, Any] | None]:
    """JCT and queueing delay by size class, each as [n, p10, p25, p50, p75, p90, p99]; None where no job is."""
    jct: dict[int, list[float]] = defaultdict(list)
    delay: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        kind = size_class(row.job.shape.total_gpus)
        jct[kind].append(row.jct)
        delay[kind].append(row.delay)
    return [{"jct": _box(jct[kind]), "delay": _box(delay[kind])} if kind in jct else None for kind in classes]


def _box(values: list[float]) -> list[float]:
    ordered = sorted(values)
    n = len(ordered)
    places = [n // 2 if percent == MEDIAN else rank(n, percent) for percent in RANKS]
    return [n, *(_short(ordered[place]) for place in places)]


def fragmentation_steps(run: Run, first: float, span: float) -> Iterator[tuple[float, float]]:
    """Fragmentation (gang) over time in per cent, as (from when, value), ending at `span`; 0 while nothing is idle."""
    idle = IdleGPUs(run.cluster)
    since, value = 0.0, _stranded(idle)
    for time, kind, _, pieces in changes(in_order(run.journal)):
        if time - first > since:
            yield since, value
            since = time - first
        idle.change(pieces, taken=kind is Kind.PLACED)
        value = _stranded(idle)
    yield since, value
    if span > since:
        yield span, value


def _stranded(idle: IdleGPUs) -> float:
    if not idle.total or not idle.sizes:
        return 0.0
    return 100 * sum(idle.stranded()) / (idle.total * len(idle.sizes))


def measured_of(runs: Sequence[Run], summaries: Sequence[Summary]) -> list[Measured]:
    """What each summary measured of its run."""
    return [Measured.of(run, Window.parse(summary.window)) for run, summary in zip(runs, summaries, strict=True)]


def chart_data(measured: Sequence[Measured], summaries: Sequence[Summary]) -> dict[str, Any]:
    """Everything that the charts show but the Gantt, JSON-able, the same for the same runs.

    Times in seconds since the first submission of each run, GPU time in GPU-hours, shares in per cent.
    """
    span = max((found.last - found.first for found in measured), default=0.0)
    classes = sorted({size_class(job.shape.total_gpus) for found in measured for job in found.run.jobs})
    drawn = [_run_data(found, summary, span, classes) for found, summary in zip(measured, summaries, strict=True)]
    run_times = [quantiles([row.run_time for row in found.rows]) for found in measured]
    return {
        "span": span,
        "sizes": [SIZE_CLASSES[kind][0] for kind in classes],
        "runTimes": run_times[0] if run_times and all(times == run_times[0] for times in run_times) else None,
        "users": owners([summary.by_user for summary in summaries]),
        "queues": owners([summary.by_queue for summary in summaries]),
        "runs": drawn,
    }


def _run_data(found: Measured, summary: Summary, span: float, classes: Sequence[int]) -> dict[str, Any]:
    run, first, rows = found.run, found.first, found.rows
    slow = (slowdown(row.jct, row.run_time) for row in rows)
    begin, end = span_measured(found)
    wasted = summary.waste
    return {
        "policy": run.policy,
        "gpus": sum(node.gpus for node in run.cluster),
        "window": None if found.window.kind == "full" else [_short(begin - first), _short(end - first)],
        "waiting": series(steps(waiting_changes(run, first), span), span),
        "allocated": series(((time, gpus / GPU) for time, gpus in steps(allocated_changes(run, first), span)), span),
        "fragmentation": series(fragmentation_steps(run, first, span), span),
        "jct": quantiles([row.jct for row in rows]),
        "delay": quantiles([row.delay for row in rows]),
        "slowdown": quantiles([value for value in slow if value is not None]),
        "rho": quantiles([row.jct / due for row, due in zip(rows, found.due, strict=True) if due > 0]),
        "bySize": by_size(rows, classes),
        "means": {
            "jct": [_maybe(summary.jct.mean), _maybe(summary.jct_bound)],
            "makespan": [_maybe(summary.makespan), _maybe(summary.makespan_bound)],
        },
        "waste": [_short(kind / 3600) for kind in (wasted.overhead, wasted.lost, wasted.failed, wasted.held_idle)],
    }


def owners(groups: Sequence[Sequence[Group]]) -> dict[str, Any] | None:
    """Users or queues with most GPU time, and for each run their figures; None where there is but one.

    A figure is [jobs, GPU-hours, mean rho (themis), worst rho, mean queueing delay], or None where the run has none.
    """
    held: dict[str, float] = defaultdict(float)
    for of_run in groups:
        for group in of_run:
            held[group.name] += group.gpu_seconds
    if len(held) < 2:  # noqa: PLR2004 - one has nobody to be compared with
        return None
    names = sorted(held, key=lambda name: (-held[name], name))[:OWNERS]
    return {
        "names": names,
        "more": len(held) - len(names),
        "hours": [_short(held[name] / 3600 / len(groups)) for name in names],
        "runs": [_owner_rows(of_run, names) for of_run in groups],
    }


def _owner_rows(groups: Sequence[Group], names: Sequence[str]) -> list[list[float | None] | None]:
    by_name = {group.name: group for group in groups}
    rows: list[list[float | None] | None] = []
    for name in names:
        group = by_name.get(name)
        rows.append(
            None
            if group is None
            else [
                group.measured,
                _short(group.gpu_seconds / 3600),
                _maybe(group.rho_themis_mean),
                _maybe(group.rho_themis_worst),
                _maybe(group.delay_mean),
            ]
        )
    return rows


def _maybe(value: float | None) -> float | None:
    return None if value is None else _short(value)
