"""A study's figures: each metric against what was swept, one line a policy, with the interval over seeds as a band."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...jobs.errors import GpuschedError
from ..report.aggregate import CONFIDENCE
from ..report.figures import COLUMN, FORMATS, PAGE, STYLE
from ..report.metric import Metric, duration, percent
from ..report.plots import DASHES, colour, named
from .combine import Group
from .grid import Point, Value
from .show import BY_KEY, heading, swept_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLOTTED = (
    "jct_mean",
    "jct_p99",
    "queueing_delay_mean",
    "bounded_slowdown",
    "makespan",
    "allocation_ratio",
    "jct_above_bound",
    "rho_themis_mean",
)
"""The metrics that are drawn, where any run has them."""
LABELS = {"load": "offered load", "rate": "rate of arrivals, of the trace's own", "start_up": "start-up (seconds)"}
_UNITS = ((172800, 86400, "days"), (7200, 3600, "hours"), (120, 60, "minutes"), (0, 1, "seconds"))


@dataclass(frozen=True, slots=True)
class Scene:
    """What one figure shows: the groups of one trace, one cluster and one value of all that is not on its axis."""

    title: str
    groups: Sequence[Group]


def write_figures(groups: Sequence[Group], folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write every figure into `folder`, which is made if it is not there: the same groups, the same bytes.

    Raises:
        GpuschedError: the folder cannot be written.
    """
    target = Path(folder)
    written: list[Path] = []
    with _style():
        for name, figure in figures_of(groups):
            for form in formats:
                file = target / f"{name}.{form}"
                try:
                    target.mkdir(parents=True, exist_ok=True)
                    figure.savefig(file, format=form, dpi=300, metadata={"Date" if form == "svg" else "Software": None})
                except OSError as error:
                    raise GpuschedError(
                        f"{file}: cannot be written: {error.strerror or error}", hint="check the path and the disk"
                    ) from error
                written.append(file)
    return written


def as_svg(groups: Sequence[Group]) -> list[tuple[str, bytes]]:
    """Every figure as (name, SVG), for the page."""
    found = []
    with _style():
        for name, figure in figures_of(groups):
            out = io.BytesIO()
            figure.savefig(out, format="svg", metadata={"Date": None})
            found.append((name, out.getvalue()))
    return found


def _style() -> Any:  # noqa: ANN401 - matplotlib's own context
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and only figures need it

    style: Any = {key: value for key, value in mpl.rcParamsDefault.items() if "backend" not in key} | STYLE
    return mpl.rc_context(style)


def figures_of(groups: Sequence[Group]) -> Iterator[tuple[str, Figure]]:
    """(name of its file, figure), metric by metric."""
    axis = swept_axis(groups)
    policies = list(dict.fromkeys(group.policy for group in groups))
    for key in PLOTTED:
        metric = BY_KEY.get(key)
        if metric is None or not any(any(group.values(key)) for group in groups):
            continue
        name = key.replace("_", "-")
        if axis is None:
            yield f"study-{name}", _dots(groups, metric, policies)
            continue
        scenes = scenes_of(groups, axis)
        for scene in scenes:
            suffix = f"-{_slug(scene.title)}" if len(scenes) > 1 else ""
            yield f"study-{name}-by-{_slug(axis)}{suffix}", _curves(scene, metric, axis, policies)


def swept_axis(groups: Sequence[Group]) -> str | None:
    """The first swept key that has more than one value and whose values are numbers; None = there is none."""
    values: dict[str, set[Value]] = {}
    for group in groups:
        for key, value in group.point:
            values.setdefault(key, set()).add(value)
    return next((key for key, found in values.items() if len(found) > 1 and all(map(_is_number, found))), None)


def scenes_of(groups: Sequence[Group], axis: str) -> list[Scene]:
    """One scene for each trace, cluster and value of what is not on the axis; named by what tells them apart."""
    found: dict[tuple[str, str, Point], list[Group]] = {}
    for group in groups:
        rest = tuple(pair for pair in group.point if pair[0] != axis)
        found.setdefault((group.trace, group.cluster, rest), []).append(group)
    return [
        Scene(", ".join([f"{trace} on {cluster}", *(f"{key} {swept_text(value)}" for key, value in rest)]), members)
        for (trace, cluster, rest), members in found.items()
    ]


def _curves(scene: Scene, metric: Metric, axis: str, policies: Sequence[str]) -> Figure:
    """A line a policy, and the interval of each point as a band around it."""
    figure, axes = _figure(COLUMN, 2.3)
    scale, unit = _scale(scene.groups, metric)
    for i, policy in enumerate(policies):
        points = sorted(
            (float(dict(group.point)[axis]), found)
            for group in scene.groups
            if group.policy == policy and (found := group.figure(metric.key)) is not None
        )
        xs = [x for x, _ in points]
        mean = [found.mean / scale for _, found in points]
        half = [(found.half or 0.0) / scale for _, found in points]
        dash = DASHES[i % len(DASHES)]
        axes.plot(xs, mean, color=colour(i), linestyle=dash, marker=".", markersize=4, label=named(policy))
        if any(half):
            low = [max(y - h, 0.0) for y, h in zip(mean, half, strict=True)]
            high = [y + h for y, h in zip(mean, half, strict=True)]
            axes.fill_between(xs, low, high, color=colour(i), alpha=0.15, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(LABELS.get(axis, axis) + _seeds(scene.groups, "band"))
    axes.set_ylabel(f"{heading(metric)}{unit}")
    _legend(figure, axes, COLUMN)
    return figure


def _dots(groups: Sequence[Group], metric: Metric, policies: Sequence[str]) -> Figure:
    """A row a trace, cluster and point, a dot a policy, the interval as a bar through it."""
    places: dict[tuple[str, str, Point], int] = {}
    for group in groups:
        places.setdefault((group.trace, group.cluster, group.point), len(places))
    figure, axes = _figure(PAGE, 0.7 + (0.14 * len(policies) + 0.12) * len(places))
    scale, unit = _scale(groups, metric)
    step = 0.7 / len(policies)
    for i, policy in enumerate(policies):
        shown = [
            (places[group.trace, group.cluster, group.point] + (i - (len(policies) - 1) / 2) * step, found)
            for group in groups
            if group.policy == policy and (found := group.figure(metric.key)) is not None
        ]
        axes.errorbar(
            [found.mean / scale for _, found in shown],
            [y for y, _ in shown],
            xerr=[(found.half or 0.0) / scale for _, found in shown],
            fmt="o",
            markersize=4,
            capsize=2,
            color=colour(i),
            label=named(policy),
        )
    titles = [
        named(", ".join([f"{trace} on {nodes}", *(f"{key} {swept_text(value)}" for key, value in point)]), 48)
        for trace, nodes, point in places
    ]
    axes.set_yticks(range(len(places)), titles)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{heading(metric)}{unit}{_seeds(groups, 'bar')}")
    _legend(figure, axes, PAGE)
    return figure


def _seeds(groups: Sequence[Group], mark: str) -> str:
    """What a band or a bar is, where there is one."""
    most = max(len(group.rows) for group in groups)
    return f"\n{mark}: {CONFIDENCE:.0%} interval over {most} seeds" if most > 1 else ""


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import, and only figures need it

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure, axes: Axes, width: float) -> None:
    """The legend above the axes, in as many rows as it takes."""
    handles, labels = axes.get_legend_handles_labels()
    most = max(1, int(width / (0.45 + 0.055 * max(map(len, labels)))))  # inches of a line and of a letter
    rows = -(-len(labels) // most)
    figure.set_figheight(figure.get_figheight() + 0.16 * rows)
    figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(labels) // rows), handlelength=2.2)


def _scale(groups: Sequence[Group], metric: Metric) -> tuple[float, str]:
    """What values are divided by, and the unit that says so."""
    if metric.text is percent:
        return 0.01, " (%)"
    if metric.text is not duration:
        return 1.0, ""
    top = max(found.mean for group in groups if (found := group.figure(metric.key)) is not None)
    return next((size, f" ({name})") for least, size, name in _UNITS if top >= least)


def _is_number(value: Value) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _slug(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.").lower()[:80]
