"""How each figure for a paper is drawn: one function a kind, on axes that are handed in.

The data are those of the page (charts.py), so that a figure and the page cannot disagree. matplotlib is imported where
a figure is drawn: it takes longer to import than a small replay takes to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .charts import RANKS
from .metric import duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#6a3d9a", "#5b5b5b")
"""The page's, told apart by the colour-blind too (Okabe and Ito)."""
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
"""Line styles, for who prints without colour."""
WASTE = (("overhead", "#7a8b9c"), ("lost work", "#c0392b"), ("failed", "#6b3fa0"), ("held idle", "#d9a520"))

_DURATIONS = (
    *((0.001, "1ms"), (0.01, "10ms"), (0.1, "0.1s"), (1, "1s"), (10, "10s"), (60, "1m"), (600, "10m"), (3600, "1h")),
    *((86400, "1d"), (864000, "10d"), (8640000, "100d")),
)
_SOFT = "#57606a"
_UNITS = ((172800, 86400, "days"), (7200, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))


def named(text: str, most: int = 28) -> str:
    """A name as a label: cut where it is long, and never taken for one that matplotlib hides (it begins with _)."""
    text = "".join(character if character.isprintable() else "?" for character in text) or "(none)"
    text = text if len(text) <= most else text[: most - 1] + "…"
    return f" {text}" if text.startswith("_") else text


def colour(i: int) -> str:
    """The colour of the i-th policy."""
    return COLOURS[i % len(COLOURS)]


def cdf(axes: Axes, data: dict[str, Any], key: str, label: str, *, factor: bool = False) -> None:
    """Cumulative distributions, one line a policy, on a logarithmic axis; with run times as the least possible JCT."""
    values = [run[key] for run in data["runs"]]
    least_possible = data["runTimes"] if key == "jct" else None
    floor = _log_axis(axes, "x", [*values, least_possible or [], [1.0] if factor else []], factor=factor)
    for i, (run, sample) in enumerate(zip(data["runs"], values, strict=True)):
        if sample:
            _curve(axes, sample, floor, color=colour(i), linestyle=DASHES[i % len(DASHES)], label=named(run["policy"]))
    if least_possible:
        _curve(axes, least_possible, floor, color=_SOFT, linestyle=":", linewidth=0.9, label="run time")
    if factor and key == "rho":
        axes.axvline(1, color=_SOFT, linestyle=":", linewidth=0.9)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    axes.set_xlabel(f"{label} (log scale)")
    axes.set_ylabel("share of jobs")


def _curve(axes: Axes, sample: Sequence[float], floor: float, **style: Any) -> None:  # noqa: ANN401 - matplotlib's own
    shares = [(k + 1) / len(sample) for k in range(len(sample))]
    axes.plot([floor, *(max(value, floor) for value in sample)], [0, *shares], **style)


def over_time(axes: Axes, data: dict[str, Any], key: str, label: str) -> None:
    """A series over time, one line a policy; the cluster's GPUs as a dotted line, the measured window tinted."""
    unit, name = next((unit, name) for least, unit, name in _UNITS if data["span"] >= least)
    for i, run in enumerate(data["runs"]):
        series = run[key]
        times = series["t"] if "t" in series else [k * series["bin"] for k in range(len(series["v"]))]
        axes.step(
            [time / unit for time in times],
            series["v"],
            where="post",
            color=colour(i),
            linestyle=DASHES[i % len(DASHES)],
            linewidth=0.9,
            label=named(run["policy"]),
        )
    if key == "allocated":
        axes.axhline(max(run["gpus"] for run in data["runs"]), color=_SOFT, linestyle=":", linewidth=0.9)
    window = next((run["window"] for run in data["runs"] if run["window"]), None)
    if window:
        axes.axvspan(window[0] / unit, window[1] / unit, color=COLOURS[0], alpha=0.08, linewidth=0)
    axes.set_xlim(0, max(data["span"], 1e-9) / unit)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{name} since the first submission")
    axes.set_ylabel(label)


def by_size(axes: Axes, data: dict[str, Any], key: str, label: str) -> None:
    """Boxes by GPUs of the job: middle half, median, whiskers to p10 and p90, a dot at p99."""
    boxes = [[entry and entry[key] for entry in run["bySize"]] for run in data["runs"]]
    floor = _log_axis(axes, "y", [box[1:] for run in boxes for box in run if box], factor=False)
    wide = 0.8 / max(len(boxes), 1)
    for i, run in enumerate(boxes):
        for place, box in enumerate(run):
            if box is None:
                continue
            p10, p25, p50, p75, p90, p99 = (max(value, floor) for value in box[1 : 1 + len(RANKS)])
            x = place + (i - (len(boxes) - 1) / 2) * wide
            axes.vlines(x, p10, p90, color=colour(i), linewidth=0.8)
            axes.bar(x, p75 - p25, wide * 0.85, bottom=p25, color=colour(i), alpha=0.35, linewidth=0)
            axes.hlines(p50, x - wide * 0.42, x + wide * 0.42, color=colour(i), linewidth=1.6)
            axes.plot([x], [p99], marker=".", markersize=3, color=colour(i), linestyle="none")
    for i, run in enumerate(data["runs"]):
        axes.bar(0, 0, 0, color=colour(i), label=named(run["policy"]))  # for the legend alone
    axes.set_xlim(-0.5, max(len(data["sizes"]), 1) - 0.5)
    axes.set_xticks(range(len(data["sizes"])), data["sizes"])
    axes.set_xlabel("GPUs of the job")
    axes.set_ylabel(f"{label} (log scale)")


def bars(axes: Axes, data: dict[str, Any], key: str, label: str) -> None:
    """One bar a policy, with its bound as a dashed line where it is known."""
    shown = [(i, run, run["means"][key]) for i, run in enumerate(data["runs"]) if run["means"][key][0] is not None]
    top = max([value for _, _, (value, _) in shown] or [1.0])
    unit, name = next((unit, name) for least, unit, name in _UNITS if top >= least)
    for place, (i, run, (value, bound)) in enumerate(shown):
        axes.barh(place, value / unit, 0.7, color=colour(i))
        axes.annotate(
            duration(value), (value / unit, place), (3, 0), textcoords="offset points", va="center", fontsize=7
        )
        if bound is not None:
            line = axes.vlines(bound / unit, place - 0.48, place + 0.48, color="black", linestyle="--", linewidth=1)
            if run is shown[0][1]:
                line.set_label("clairvoyant preemptive bound")
    axes.set_yticks(range(len(shown)), [named(run["policy"]) for _, run, _ in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, top / unit * 1.18)
    axes.set_xlabel(f"{label} ({name})")


def waste(axes: Axes, data: dict[str, Any]) -> None:
    """GPU-hours that were wasted, by kind, one bar a policy."""
    runs = data["runs"]
    for kind, (name, tint) in enumerate(WASTE):
        if any(run["waste"][kind] for run in runs):
            before = [sum(run["waste"][:kind]) for run in runs]
            axes.barh(range(len(runs)), [run["waste"][kind] for run in runs], 0.7, left=before, color=tint, label=name)
    axes.set_yticks(range(len(runs)), [named(run["policy"]) for run in runs])
    axes.invert_yaxis()
    axes.set_xlabel("wasted GPU time (GPU-hours)")


def owners(axes: Axes, data: dict[str, Any], group: str, figure: int, label: str) -> None:
    """A row a user or queue, a dot a policy; figure 2 is the mean rho, 4 the mean queueing delay."""
    of, factor = data[group], figure == 2  # noqa: PLR2004 - as said above
    points = [[row and row[figure] for row in rows] for rows in of["runs"]]
    known = [[value for value in row if value is not None] for row in points]
    floor = _log_axis(axes, "x", [*known, [1.0] if factor else []], factor=factor)
    for row in range(len(of["names"])):
        ends = [max(points[i][row], floor) for i in range(len(points)) if points[i][row] is not None]
        if ends:
            axes.hlines(row, min(ends), max(ends), color="#c8ced6", linewidth=2, zorder=1)
    for i, (run, values) in enumerate(zip(data["runs"], points, strict=True)):
        there = [(max(value, floor), row) for row, value in enumerate(values) if value is not None]
        size = 22 + 9 * min(len(points) - 1 - i, 3)  # the first are the largest, so that one under another still shows
        axes.scatter(
            [x for x, _ in there],
            [y for _, y in there],
            s=size,
            color=colour(i),
            edgecolors="white",
            linewidths=0.5,
            zorder=2 + i,
            label=named(run["policy"]),
        )
    if factor:
        axes.axvline(1, color=_SOFT, linestyle=":", linewidth=0.9)
    axes.set_yticks(range(len(of["names"])), [named(name, 20) for name in of["names"]])
    axes.invert_yaxis()
    axes.set_xlabel(f"{label} (log scale)")


def _log_axis(axes: Axes, which: str, samples: Sequence[Sequence[float]], *, factor: bool) -> float:
    """Make an axis logarithmic with ticks that people read; what is below its floor (a delay of 0) is drawn on it."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator  # noqa: PLC0415 - see the module

    values = [value for sample in samples for value in (min(sample, default=None), max(sample, default=None)) if value]
    most = max(values, default=1.0)
    zero = any(sample and min(sample) <= 0 for sample in samples)
    steps = [(10.0**k, f"{10.0**k:,g}" if k < 0 else f"{10**k:,}") for k in range(-3, 10)] if factor else _DURATIONS
    lowest = 0.001 if factor or most <= 10 else 1.0  # noqa: PLR2004 - seconds: below, parts of one show
    least = max(min(values, default=1.0), lowest) if not zero else lowest
    floor = max((value for value, _ in steps if value <= least), default=lowest)
    top = max(most, 10 * floor) * 1.25
    ticks = [(value, text) for value, text in steps if floor <= value <= top]
    if zero or min(values, default=1.0) < floor:
        ticks[0] = (ticks[0][0], f"≤ {ticks[0][1]}")
    axis = axes.xaxis if which == "x" else axes.yaxis
    if which == "x":
        axes.set_xscale("log")
        axes.set_xlim(floor, top)
    else:
        axes.set_yscale("log")
        axes.set_ylim(floor, top)
    axis.set_major_locator(FixedLocator([value for value, _ in ticks]))
    axis.set_major_formatter(FixedFormatter([text for _, text in ticks]))
    axis.set_minor_locator(NullLocator())
    return floor
