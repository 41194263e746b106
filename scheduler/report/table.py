"""Summaries for people (a terminal table) and for machines (JSON and CSV)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import Distribution, Summary

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

SCHEMA_VERSION = 1
"""Version of the JSON and CSV forms; it rises when a field changes its meaning or goes away, not when one is added."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the tables.

    Attributes:
        section: heading that it stands under.
        label: its name for people.
        value: takes it out of a summary; None = it has no meaning there.
        text: writes a value for people.
        better: -1 = lower is better, 1 = higher is better, 0 = neither is.
        meaning: one line for whoever has not met it before.
    """

    section: str
    label: str
    value: Callable[[Summary], float | None]
    text: Callable[[float], str]
    better: int = 0
    meaning: str = ""


def duration(seconds: float) -> str:
    """Seconds for people, in the two largest units that matter: 0.25s, 42s, 12m 05s, 3h 12m, 2d 04h.

    Each is rounded to its smallest unit shown.
    """
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < _MINUTE - 0.5:
        return f"{seconds:.0f}s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.2g}s"  # noqa: PLR2004 - two digits are enough
    if (whole := round(seconds)) < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02d}s"
    if (minutes := round(seconds / _MINUTE)) < _DAY // _MINUTE:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / _HOUR)
    return f"{hours // 24}d {hours % 24:02d}h"


def count(value: float) -> str:
    """A whole number with thousands apart."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """A share from 0 to 1 in per cent."""
    return f"{100 * share:.1f}%"


def _spread(section: str, of: Callable[[Summary], Distribution], meaning: str) -> tuple[Metric, ...]:
    return (
        Metric(section, "mean", lambda s: of(s).mean, duration, -1, meaning),
        Metric(section, "p50", lambda s: of(s).p50, duration, -1, meaning),
        Metric(section, "p90", lambda s: of(s).p90, duration, -1, meaning),
        Metric(section, "p99", lambda s: of(s).p99, duration, -1, meaning),
    )


METRICS: tuple[Metric, ...] = (
    *_spread("JCT", lambda s: s.jct, "job completion time: end - submission"),
    *_spread("Queueing delay", lambda s: s.delay, "first start - submission"),
    Metric("Cluster", "makespan", lambda s: s.makespan, duration, -1, "last end - first submission"),
    Metric(
        "Cluster",
        "allocation ratio",
        lambda s: s.allocation_ratio,
        percent,
        1,
        "GPU time held by jobs / (GPUs x span); not device utilization",
    ),
    Metric(
        "Cluster",
        "fragmentation (gang)",
        lambda s: s.fragmentation,
        percent,
        -1,
        "share of idle GPUs in nodes that cannot host a piece of k GPUs, averaged over time and k = 1, 2, 4, 8",
    ),
    Metric(
        "Jobs",
        "bounded slowdown",
        lambda s: s.slowdown_mean,
        lambda x: f"{x:.2f}",
        -1,
        "mean of max(1, JCT / max(run time, 10 s))",
    ),
    Metric(
        "Jobs", "fairness (Jain)", lambda s: s.fairness, lambda x: f"{x:.3f}", 0, "evenness of GPU time held by users"
    ),
    Metric("Jobs", "preemptions", lambda s: s.preemptions, count, -1, "running jobs told to give their GPUs back"),
    Metric("Jobs", "restarts", lambda s: s.restarts, count, -1, "attempts after which the job queued again"),
    Metric("Jobs", "finished", lambda s: s.finished, count, 1, "jobs in a final state"),
    Metric("Jobs", "unfinished", lambda s: len(s.unfinished), count, -1, "jobs that had not ended; no JCT counts them"),
    Metric("Jobs", "rejected", lambda s: len(s.rejected), count, -1, "jobs that were not accepted"),
)

SPEED = Metric("Replay", "jobs/s", lambda s: s.jobs_per_second, count, 0, "jobs replayed a second of wall time")


def best(metric: Metric, summaries: Sequence[Summary]) -> frozenset[int]:
    """Which summaries show the best value of a metric; none when all show the same or it knows no better."""
    texts: dict[int, str] = {}
    values: dict[int, float] = {}
    for i, summary in enumerate(summaries):
        if (value := metric.value(summary)) is not None:
            values[i], texts[i] = value, metric.text(value)
    if not metric.better or len(values) < 2 or len(set(texts.values())) == 1:  # noqa: PLR2004 - one alone is not best
        return frozenset()
    top = (max if metric.better > 0 else min)(values.values())
    return frozenset(i for i, text in texts.items() if text == metric.text(top))


@dataclass(frozen=True, slots=True)
class SummaryTable:
    """Metrics as rows and policies as columns, for a rich console; the best value of a row carries a star.

    As many policies stand side by side as the console is wide; the others follow in further tables. Rich leaves colours
    out by itself where NO_COLOR is set or no terminal is there, so the star is what counts.
    """

    summaries: Sequence[Summary]
    metrics: Sequence[Metric]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw it on `console` (rich calls this)."""
        columns = [self._column(i) for i in range(len(self.summaries))]
        room = options.max_width - max(len(_name(metric)) for metric in self.metrics)
        begin = 0
        while begin < len(columns):
            end, left = begin + 1, room - _width(columns[begin])
            while end < len(columns) and (left := left - _width(columns[end])) >= 0:
                end += 1
            if begin:
                yield ""
            yield self._grid(columns[begin:end])
            begin = end
        if any(text.plain.endswith("*") for _, cells in columns for text in cells):
            yield "* best of the row"

    def _column(self, i: int) -> tuple[str, list[Text]]:
        from rich.text import Text  # noqa: PLC0415 - slow to import, and machine formats do not need it

        cells = []
        for metric in self.metrics:
            value = metric.value(self.summaries[i])
            text = "-" if value is None else metric.text(value)
            if i in best(metric, self.summaries):
                cells.append(Text(f"{text} *", style="bold green"))
            else:
                cells.append(Text(f"{text}  "))
        return self.summaries[i].policy, cells

    def _grid(self, columns: Sequence[tuple[str, list[Text]]]) -> Table:
        from rich.table import Table  # noqa: PLC0415 - as above
        from rich.text import Text  # noqa: PLC0415 - as above

        grid = Table(show_edge=False, pad_edge=False, header_style="bold")
        grid.add_column("", no_wrap=True)
        for policy, _ in columns:
            grid.add_column(Text(policy), justify="right", overflow="fold")
        for row, metric in enumerate(self.metrics):
            if row and metric.section != self.metrics[row - 1].section:
                grid.add_section()
            grid.add_row(_name(metric), *(cells[row] for _, cells in columns))
        return grid


def _name(metric: Metric) -> str:
    """A metric's name where no heading stands above it."""
    return f"{metric.section} {metric.label}" if metric.label in {"mean", "p50", "p90", "p99"} else metric.label


def _width(column: tuple[str, list[Text]]) -> int:
    """Columns of text that a policy takes: its figures and the line before them; a long name is folded."""
    policy, cells = column
    return max(min(len(policy), 16), *(len(cell) for cell in cells)) + 3


def table(summaries: Sequence[Summary], *, timing: bool = True) -> SummaryTable:
    """The summaries for a terminal: hand it to a rich console's `print`. With `timing`, jobs replayed a second too."""
    return SummaryTable(summaries, (*METRICS, SPEED) if timing else METRICS)


def to_dict(summary: Summary, *, timing: bool = False) -> dict[str, Any]:
    """One summary as JSON-able values: seconds and shares from 0 to 1, keys in a fixed order.

    Wall time is left out unless asked for, so that the same input gives the same bytes.
    """
    whole: dict[str, Any] = {
        "policy": summary.policy,
        "trace": summary.trace,
        "cluster": summary.cluster,
        "nodes": summary.nodes,
        "gpus": summary.gpus,
        "submitted": summary.submitted,
        "finished": summary.finished,
        "measured": summary.measured,
        "unfinished": list(summary.unfinished),
        "rejected": [{"name": name, "why": why} for name, why in summary.rejected],
        "jct": _spread_dict(summary.jct),
        "queueing_delay": _spread_dict(summary.delay),
        "makespan": _number(summary.makespan),
        "allocation_ratio": _number(summary.allocation_ratio),
        "fragmentation": _number(summary.fragmentation),
        "fragmentation_by_size": {str(k): _number(share) for k, share in summary.fragmentation_by_size.items()},
        "preemptions": summary.preemptions,
        "restarts": summary.restarts,
        "bounded_slowdown": _number(summary.slowdown_mean),
        "fairness_jain": _number(summary.fairness),
        "notes": list(summary.notes),
    }
    if timing:
        whole["replay_seconds"] = summary.seconds
        whole["jobs_per_second"] = summary.jobs_per_second
    return whole


def to_json(summaries: Sequence[Summary], *, timing: bool = False) -> str:
    """All summaries as one JSON document that ends in a line break; times in seconds."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "units": {"time": "s", "share": "0..1"},
        "runs": [to_dict(summary, timing=timing) for summary in summaries],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(summaries: Sequence[Summary], *, timing: bool = False) -> str:
    """A header and one row a summary; times in seconds, an empty cell = the figure has no meaning there.

    Unfinished and rejected jobs are counted; their names are in the JSON form. A cell that a spreadsheet would take
    for a formula (a name that begins with = + - @) starts with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    rows = [_flat(summary, timing=timing) for summary in summaries]
    header = _flat(_EMPTY, timing=timing) if not rows else rows[0]
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if value is None else _cell(value) for value in row.values()])
    return out.getvalue()


def _flat(summary: Summary, *, timing: bool) -> dict[str, Any]:
    whole = to_dict(summary, timing=timing)
    row: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for key, value in whole.items():
        if key in {"unfinished", "rejected"}:
            row[key] = len(value)
        elif key == "fragmentation_by_size":
            row.update({f"fragmentation_{k}": value.get(str(k)) for k in (1, 2, 4, 8)})
        elif isinstance(value, dict):
            row.update({f"{key}_{part}": number for part, number in value.items()})
        elif key != "notes":
            row[key] = value
    return row


def _spread_dict(spread: Distribution) -> dict[str, float | None]:
    return {
        "mean": _number(spread.mean),
        "p50": _number(spread.p50),
        "p90": _number(spread.p90),
        "p99": _number(spread.p99),
    }


def _number(value: float | None) -> float | None:
    """Whole values as integers: a trace in whole seconds reads as such, whatever type its reader used."""
    if value is None or not float(value).is_integer():
        return value
    return int(value)


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"} else value


_EMPTY = Summary(
    policy="",
    trace="",
    cluster="",
    nodes=0,
    gpus=0,
    submitted=0,
    finished=0,
    measured=0,
    unfinished=(),
    rejected=(),
    jct=Distribution(),
    delay=Distribution(),
    makespan=None,
    allocation_ratio=None,
    fragmentation=None,
    fragmentation_by_size={},
    preemptions=0,
    restarts=0,
    slowdown_mean=None,
    fairness=None,
    seconds=0.0,
)
