"""Each chart of the page as a figure for a paper: PNG and SVG, the same bytes for the same runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...jobs.errors import GpuschedError
from . import plots
from .charts import chart_data, measured_of
from .run import Run
from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
COLUMN, PAGE = 3.5, 7.0
"""Widths of a column and of a page of a two-column paper, in inches."""

STYLE: dict[str, Any] = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # matplotlib brings it: the same letters on every machine
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6eaef",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in the name of a user is a $
    "svg.hashsalt": "gpusched",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure: the name of its file, its size in inches, what draws it on axes."""

    name: str
    width: float
    height: float
    draw: Callable[[Axes, dict[str, Any]], None]


def write_figures(
    runs: Sequence[Run], summaries: Sequence[Summary], folder: str | Path, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write every figure that has something to show into `folder`, which is made if it is not there.

    Args:
        runs: what to compare.
        summaries: theirs, in the same order; their windows and bounds are those of the figures.
        folder: where to; files of the same names are written over.
        formats: endings, of FORMATS.

    Returns:
        The files, in the order of the page.

    Raises:
        GpuschedError: the folder cannot be written.
        ValueError: no run, not one summary for each, or a format that is not one of FORMATS.
    """
    if not runs or len(runs) != len(summaries):
        raise ValueError(f"figures need one summary a run and at least one; got {len(runs)} and {len(summaries)}")
    if unknown := [form for form in formats if form not in FORMATS]:
        raise ValueError(f"no figures as {', '.join(unknown)}; there are {', '.join(FORMATS)}")
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only figures need it

    data = chart_data(measured_of(runs, summaries), summaries)
    target = Path(folder)
    written: list[Path] = []
    style: Any = {key: value for key, value in mpl.rcParamsDefault.items() if "backend" not in key} | STYLE
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in letters that the font lacks
        try:
            target.mkdir(parents=True, exist_ok=True)
            for plot in plots_of(data):
                figure = _drawn(plot, data)
                for form in formats:
                    file = target / f"{plot.name}.{form}"
                    # No date and no version: the same runs give the same bytes.
                    figure.savefig(file, format=form, dpi=300, metadata={"Date" if form == "svg" else "Software": None})
                    written.append(file)
        except OSError as error:
            raise GpuschedError(
                f"{folder}: figures cannot be written there: {error.strerror or error}",
                hint="check the path and the disk",
            ) from error
    return written


def plots_of(data: dict[str, Any]) -> Iterator[Plot]:
    """The figures that these data have, in the order of the page."""
    tall = 0.5 + 0.22 * max(len(data["runs"]), 2)
    yield Plot("mean-jct", COLUMN, tall + 0.35, partial(plots.bars, key="jct", label="mean JCT"))
    yield Plot("makespan", COLUMN, tall + 0.35, partial(plots.bars, key="makespan", label="makespan"))
    if any(any(run["waste"]) for run in data["runs"]):
        yield Plot("waste", COLUMN, tall + 0.35, plots.waste)
    yield Plot("queue-length", PAGE, 1.9, partial(plots.over_time, key="waiting", label="jobs waiting"))
    yield Plot("allocation", PAGE, 1.9, partial(plots.over_time, key="allocated", label="GPUs held"))
    yield Plot(
        "fragmentation",
        PAGE,
        1.9,
        partial(plots.over_time, key="fragmentation", label="fragmentation (gang),\n% of idle GPUs"),
    )
    yield Plot("jct-cdf", COLUMN, 2.3, partial(plots.cdf, key="jct", label="JCT"))
    yield Plot("queueing-delay-cdf", COLUMN, 2.3, partial(plots.cdf, key="delay", label="queueing delay"))
    yield Plot("slowdown-cdf", COLUMN, 2.3, partial(plots.cdf, key="slowdown", label="slowdown", factor=True))
    yield Plot("rho-cdf", COLUMN, 2.3, partial(plots.cdf, key="rho", label="rho (themis)", factor=True))
    yield Plot("jct-by-size", PAGE, 2.3, partial(plots.by_size, key="jct", label="JCT"))
    yield Plot("queueing-delay-by-size", PAGE, 2.3, partial(plots.by_size, key="delay", label="queueing delay"))
    for group in ("users", "queues"):
        if data[group]:
            height = 0.6 + 0.2 * len(data[group]["names"])
            rho = partial(plots.owners, group=group, figure=2, label="mean rho (themis)")
            yield Plot(f"{group}-rho", COLUMN, height, rho)
            delay = partial(plots.owners, group=group, figure=4, label="mean queueing delay")
            yield Plot(f"{group}-queueing-delay", COLUMN, height, delay)


def _drawn(plot: Plot, data: dict[str, Any]) -> Figure:
    """The figure with its legend above it, where its lines leave no corner free for sure."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    figure = Figure(figsize=(plot.width, plot.height), layout="constrained")
    axes = figure.subplots()
    plot.draw(axes, data)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        most = max(1, int(plot.width / (0.45 + 0.055 * max(map(len, labels)))))  # inches of a line and of a letter
        rows = -(-len(labels) // most)
        columns = -(-len(labels) // rows)
        figure.set_figheight(plot.height + 0.16 * rows)
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, handlelength=2.2, columnspacing=1.2)
    return figure
