"""The curves of the inflation experiment as SVG, and the page around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

JSON = dict[str, Any]
COLOURS = ("#999999", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00", "#000000")
"""Okabe and Ito's, told apart by colour-blind readers too."""
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "", "7 3", "2 3")
_FONT = 'font-family="sans-serif" font-size="12"'
_WIDTH, _HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 34, 52
_ZOOM = 70
"""Percent of the load from which the allocation is drawn: before that every rule places all that comes."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: a figure of the curves in percent, over the GPUs asked for in percent."""

    key: str
    title: str
    label: str
    low_x: int
    ideal: bool = False


PANELS = (
    Panel("allocation", "GPUs allocated as the load grows", "GPUs allocated (% of all)", _ZOOM, ideal=True),
    Panel("fragmentation_rate", "Fragments as the load grows", "fragments (% of idle GPUs)", 0),
)


def svg(rows: Sequence[JSON], panel: Panel) -> str:
    """One chart with a line a rule and a band for its 95 % confidence interval."""
    high_x = max([1, *(round(100 * point["load"]) for row in rows for point in row["curve"])])
    low_x = panel.low_x if panel.low_x < high_x else 0
    drawn = [_points(row, panel.key, low_x) for row in rows]
    lowest = min((y - half for points in drawn for _, y, half in points), default=0.0)
    low_y = max(0.0, 10 * (lowest // 10)) if panel.ideal else 0.0
    frame = _Frame(low_x, high_x, low_y, 100.0)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" {_FONT}>',
        f"<title>{escape(panel.title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="20" font-size="14" font-weight="bold">{escape(panel.title)}</text>',
        *frame.axes(panel.label),
    ]
    if panel.ideal:
        ends = [(x, float(min(x, 100))) for x in sorted({low_x, 100, high_x}) if x >= low_x]
        lines.append(f'<polyline points="{frame.path(ends)}" fill="none" stroke="#555" stroke-dasharray="1 3"/>')
    for number, (row, points) in enumerate(zip(rows, drawn, strict=True)):
        colour, dash = COLOURS[number % len(COLOURS)], _DASHES[number % len(_DASHES)]
        band = [(x, y + half) for x, y, half in points] + [(x, y - half) for x, y, half in reversed(points)]
        line = [(x, y) for x, y, _ in points]
        lines += [
            f'<polygon points="{frame.path(band)}" fill="{colour}" opacity="0.2"/>',
            f'<polyline points="{frame.path(line)}" fill="none" {_stroke(colour, dash)}/>',
            _legend(number, colour, dash, row["paper"] or row["rule"]),
        ]
    if panel.ideal:
        lines.append(_legend(len(rows), "#555", "1 3", "all that came"))
    return "\n".join([*lines, "</svg>\n"])


def _points(row: JSON, key: str, low_x: int) -> list[tuple[int, float, float]]:
    """(load, mean, half of the interval) in percent."""
    found: list[tuple[int, float, float]] = []
    for point in row["curve"]:
        value, x = point[key], round(100 * point["load"])
        if value is not None and x >= low_x:
            found.append((x, 100 * value["mean"], 100 * (value["half"] or 0.0)))
    return found


def _stroke(colour: str, dash: str) -> str:
    return f'stroke="{colour}" stroke-width="2"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _legend(number: int, colour: str, dash: str, name: str) -> str:
    y = _TOP + 14 + 20 * number
    x = _WIDTH - _RIGHT + 12
    return (
        f'<line x1="{x}" x2="{x + 28}" y1="{y}" y2="{y}" {_stroke(colour, dash)}/>'
        f'<text x="{x + 34}" y="{y + 4}">{escape(name)}</text>'
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    low_x: float
    high_x: float
    low_y: float
    high_y: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a value is, in the drawing's units."""
        wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        y = min(max(y, self.low_y), self.high_y)
        return (
            _LEFT + wide * (x - self.low_x) / (self.high_x - self.low_x),
            _TOP + high * (self.high_y - y) / (self.high_y - self.low_y),
        )

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        """Points as SVG writes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))

    def axes(self, label: str) -> list[str]:
        """Grid, ticks and what the axes are."""
        lines: list[str] = []
        for value in _ticks(self.low_x, self.high_x):
            x, bottom = self.at(value, self.low_y)
            lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom:.1f}" stroke="#ddd"/>')
            lines.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{value:g}</text>')
        for value in _ticks(self.low_y, self.high_y):
            left, y = self.at(self.low_x, value)
            lines.append(f'<line x1="{left}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        lines.append(
            f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">GPUs asked for so far (% of all)</text>'
        )
        height = (_TOP + _HEIGHT - _BOTTOM) / 2
        lines.append(
            f'<text transform="rotate(-90 16 {height})" x="16" y="{height}" text-anchor="middle">{label}</text>'
        )
        return lines


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (2, 5, 10, 20, 25, 50, 100, 200, 500) if (high - low) / step <= 8)  # noqa: PLR2004 - legible
    first = -(-low // step) * step
    return [first + step * number for number in range(int((high - first) // step) + 1)]


def page(rows: Sequence[JSON], title: str, notes: Sequence[str]) -> str:
    """Both charts and the table as one page that loads nothing from anywhere."""
    head = "".join(f"<th>{name}</th>" for name in ("rule", "in the paper", *_FIGURES))
    body = "".join(
        f"<tr><td>{escape(row['rule'])}</td><td>{escape(row['paper'])}</td>"
        + "".join(f"<td class=n>{text(row[key], percent=percent)}</td>" for key, percent in _FIGURES.values())
        + "</tr>"
        for row in rows
    )
    charts = "".join(f"<figure>{svg(rows, panel)}</figure>" for panel in PANELS)
    noted = "".join(f"<p>note: {escape(note)}</p>" for note in notes)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n'
        "<style>body{font-family:sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}figure{margin:1rem 0}"
        "td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}.n{text-align:right}</style>\n"
        f"<h1>{escape(title)}</h1>{charts}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        "<p>Means over seeds, ± half of the 95 % confidence interval, which the bands show too.</p>"
        f"{noted}</html>\n"
    )


_FIGURES = {
    "allocated at 100 %": ("allocation_at_full_load", True),
    "allocated at the end": ("allocation_at_end", True),
    "fragments at 100 %": ("fragmentation_rate_at_full_load", True),
    "pods dropped": ("dropped", False),
}


def text(value: JSON | None, *, percent: bool) -> str:
    """`95.2 ± 0.1 %`, or a count likewise."""
    if value is None:
        return "-"
    scale, unit, digits = (100, " %", 2) if percent else (1, "", 0)
    half = "" if value["half"] is None else f" ± {scale * value['half']:.{digits}f}"
    return f"{scale * value['mean']:,.{digits}f}{half}{unit}"
