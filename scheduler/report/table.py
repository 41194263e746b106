"""Summaries as a table for a terminal; the machine forms are in machine.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .aggregate import Aggregate, best_mean
from .machine import SCHEMA_VERSION, to_csv, to_dict, to_json
from .metric import METRICS, SPEED, Metric, best, count, duration, percent, shown
from .summary import Summary

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "METRICS",
    "SCHEMA_VERSION",
    "SPEED",
    "Metric",
    "SummaryTable",
    "aggregate_table",
    "best",
    "count",
    "duration",
    "percent",
    "table",
    "to_csv",
    "to_dict",
    "to_json",
]


@dataclass(frozen=True, slots=True)
class SummaryTable:
    """Metrics as rows and policies as columns, for a rich console; the best value of a row carries a star.

    As many policies stand side by side as the console is wide; the others follow in further tables. Rich leaves colours
    out by itself where NO_COLOR is set or no terminal is there, so the star is what counts.

    Attributes:
        metrics: the rows.
        columns: for each policy its name and the text of each row.
        winners: for each row the columns that carry a star.
    """

    metrics: Sequence[Metric]
    columns: Sequence[tuple[str, Sequence[str]]]
    winners: Sequence[frozenset[int]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw it on `console` (rich calls this)."""
        columns = [self._column(i) for i in range(len(self.columns))]
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
        if any(self.winners):
            yield "* best of the row"

    def _column(self, i: int) -> tuple[str, list[Text]]:
        from rich.text import Text  # noqa: PLC0415 - slow to import, and machine formats do not need it

        name, texts = self.columns[i]
        cells = [
            Text(f"{text} *", style="bold green") if i in winners else Text(f"{text}  ")
            for text, winners in zip(texts, self.winners, strict=True)
        ]
        return name, cells

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
    rows = rows_of(summaries, (*METRICS, *SPEED) if timing else METRICS)
    columns = []
    for summary in summaries:
        values = [metric.value(summary) for metric in rows]
        texts = ["-" if value is None else metric.text(value) for metric, value in zip(rows, values, strict=True)]
        columns.append((summary.policy, texts))
    return SummaryTable(rows, columns, [best(metric, summaries) for metric in rows])


def aggregate_table(aggregates: Sequence[Aggregate]) -> SummaryTable:
    """Aggregates over seeds for a terminal, each figure as mean ± half width of its 95 % confidence interval.

    The star marks the best mean. A column is headed by the aggregate's label and its number of seeds.
    """
    samples = [summary for aggregate in aggregates for summary in aggregate.summaries]
    rows = rows_of(samples, METRICS)
    columns = [
        (f"{aggregate.label} (n = {len(aggregate.summaries)})", [aggregate.text(metric) for metric in rows])
        for aggregate in aggregates
    ]
    return SummaryTable(rows, columns, [best_mean(metric, aggregates) for metric in rows])


def rows_of(summaries: Sequence[Summary], metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The rows of a terminal's table: what says something there, without details."""
    return tuple(metric for metric in shown(metrics, summaries) if not metric.detail)
