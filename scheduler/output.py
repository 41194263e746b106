"""Rows for people (tables) and for machines (JSON, YAML, CSV), the same for every verb.

The machine forms hold the API's values as they are: times in ISO 8601 UTC, durations in seconds. What comes from
strangers (names, reasons) is made harmless in tables: no control character reaches a terminal.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..jobs.errors import GpuschedError

JSON = dict[str, Any]

SCHEMA_VERSION = 1
"""Version of the machine forms; it rises when a key changes its meaning or goes away, not when one is added."""

NOTHING = "-"
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_GAP = "  "
_LEAST = 12
"""Characters below which no column is shortened."""


class UsageError(GpuschedError):
    """An option asks for what there is not."""

    code = "usage"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name for `--columns` and in CSV.
        value: what machines get and rows are sorted by.
        text: what people get; None = `plain` of the value.
        wide: shown with `-o wide` or by name only.
        right: flush right, as numbers are.
        flexible: the column that is shortened when a terminal is too narrow.
        colour: the colour of a cell by its text; empty = none.
        heading: of a table; empty = the name in capitals.
    """

    name: str
    value: Callable[[JSON], Any]
    text: Callable[[JSON], str] | None = None
    wide: bool = False
    right: bool = False
    flexible: bool = False
    colour: Callable[[str], str] | None = None
    heading: str = ""

    @property
    def title(self) -> str:
        """The heading."""
        return self.heading or self.name.upper().replace("_", " ")

    def cell(self, row: JSON) -> str:
        """What people get, harmless."""
        return safe(self.text(row) if self.text is not None else plain(self.value(row))) or NOTHING


@dataclass(frozen=True, slots=True)
class Listing:
    """Rows, what they are called in JSON, and how they are shown.

    Attributes:
        kind: the key of the rows in JSON, such as `jobs`.
        columns: all there are; the wide ones among them are shown on request.
        rows: as the API gave them.
        name: the key of a row that `-o name` prints.
        extra: further keys of the JSON document.
        empty: what a table without rows says instead, on standard error.
    """

    kind: str
    columns: Sequence[Column]
    rows: Sequence[JSON]
    name: str = "name"
    extra: Mapping[str, Any] | None = None
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Style:
    """How it is to be shown.

    Attributes:
        form: one of `config.FORMATS`.
        columns: names of the columns; empty = the usual ones.
        headers: whether a table or CSV has headings.
        sort_by: a column's name, `-` before it for descending; empty = as they come.
        colour: whether colours may be used.
        width: characters of a line of the terminal; None = not a terminal, nothing is cut.
    """

    form: str = "table"
    columns: tuple[str, ...] = ()
    headers: bool = True
    sort_by: str = ""
    colour: bool = False
    width: int | None = None


def render(listing: Listing, style: Style) -> str:
    """The listing in the form asked for; it ends in a line break unless it is empty.

    Raises:
        UsageError: there is no such column.
    """
    rows = _sorted(listing, style.sort_by)
    columns = _chosen(listing.columns, style)
    if style.form in {"json", "yaml"}:
        document = {"schema_version": SCHEMA_VERSION, **(listing.extra or {}), listing.kind: rows}
        return to_json(document) if style.form == "json" else to_yaml(document)
    if style.form == "jsonl":
        return to_lines(rows)
    if style.form == "name":
        return "".join(f"{safe(str(row[listing.name]))}\n" for row in rows)
    if style.form == "csv":
        return _csv(columns, rows, headers=style.headers)
    return _table(columns, rows, style)


def to_json(document: object) -> str:
    """One JSON document for people and machines."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def to_lines(rows: Iterable[object]) -> str:
    """One JSON value a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def to_yaml(document: object) -> str:
    """One YAML document."""
    import yaml  # noqa: PLC0415 - slow to import, and rarely asked for

    class Dumper(yaml.SafeDumper):
        """Scripts as they were written, line by line."""

    def script(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, script)
    text: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def _chosen(columns: Sequence[Column], style: Style) -> list[Column]:
    if not style.columns:
        return [column for column in columns if not column.wide or style.form in {"wide", "csv"}]
    known = {column.name: column for column in columns}
    return [known[_known(name, known)] for name in style.columns]


def _known(name: str, known: Mapping[str, Column]) -> str:
    """The name of a column from its name or heading."""
    wanted = name.strip().lower().replace(" ", "_").replace("-", "_")
    wanted = next((key for key, column in known.items() if column.heading.lower() == wanted), wanted)
    if wanted not in known:
        raise UsageError(f"there is no column {name.strip()!r}", hint=f"the columns are {', '.join(known)}")
    return wanted


def _sorted(listing: Listing, by: str) -> list[JSON]:
    rows = list(listing.rows)
    if not by:
        return rows
    known = {column.name: column for column in listing.columns}
    column = known[_known(by.removeprefix("-"), known)]
    filled = [row for row in rows if column.value(row) not in (None, "")]
    rest = [row for row in rows if column.value(row) in (None, "")]
    filled.sort(key=lambda row: _key(column.value(row)), reverse=by.startswith("-"))
    return filled + rest  # what is not known comes last in either direction


def _key(value: object) -> tuple[int, Any]:
    if isinstance(value, int | float):
        return 0, value
    return 1, plain(value).casefold()


# Tables -----------------------------------------------------------------------------------------------------------


def _table(columns: Sequence[Column], rows: Sequence[JSON], style: Style) -> str:
    if not rows:
        return ""
    grid = [[column.cell(row) for column in columns] for row in rows]
    if style.headers:
        grid.insert(0, [column.title for column in columns])
    widths = [max(map(cells, column)) for column in zip(*grid, strict=True)]
    _squeeze(columns, widths, style.width)
    lines = []
    for number_of_line, row in enumerate(grid):
        heading = style.headers and number_of_line == 0
        parts = [
            _pad(text, width, column, colour=style.colour, heading=heading)
            for text, width, column in zip(row, widths, columns, strict=True)
        ]
        lines.append(_GAP.join(parts).rstrip())
    return "\n".join(lines) + "\n"


def _squeeze(columns: Sequence[Column], widths: list[int], width: int | None) -> None:
    """Shorten the flexible columns so that a line fits."""
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - width if width is not None else 0
    for number_of_column, column in enumerate(columns):
        if column.flexible and over > 0:
            less = min(over, max(widths[number_of_column] - _LEAST, 0))
            widths[number_of_column] -= less
            over -= less


def _pad(text: str, width: int, column: Column, *, colour: bool, heading: bool) -> str:
    text = fit(text, width)
    space = " " * (width - cells(text))
    if colour and heading:
        text = f"\x1b[1m{text}\x1b[0m"
    elif colour and column.colour is not None and (code := _CODES.get(column.colour(text))):
        text = f"\x1b[{code}m{text}\x1b[0m"
    return space + text if column.right else text + space


_CODES = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "dim": "2"}


def cells(text: str) -> int:
    """Character cells that a terminal needs for a text: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def fit(text: str, width: int) -> str:
    """A text cut to so many cells, with three dots where something is left out."""
    if cells(text) <= width:
        return text
    if width <= 3:  # noqa: PLR2004 - room for the dots alone
        return "." * width
    kept = text
    while cells(kept) > width - 3:
        kept = kept[:-1]
    return kept.rstrip() + "..."


def safe(text: str) -> str:
    r"""A text without what would steer a terminal or turn it around: such characters as escapes (`\x1b`)."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape", "backslashreplace").decode("ascii"), text)


# CSV --------------------------------------------------------------------------------------------------------------


def _csv(columns: Sequence[Column], rows: Iterable[JSON], *, headers: bool) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if headers:
        writer.writerow(column.name for column in columns)
    for row in rows:
        writer.writerow(_csv_cell(column.value(row)) for column in columns)
    return out.getvalue()


def _csv_cell(value: object) -> str:
    """A spreadsheet takes a text that begins with = + - @ for a formula: an apostrophe goes before it."""
    text = repr(value) if isinstance(value, float) else plain(value)
    return f"'{text}" if not isinstance(value, int | float) and text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


# Values for people ------------------------------------------------------------------------------------------------


def plain(value: object) -> str:
    """A value as short text; empty = there is none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ",".join(map(plain, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={plain(inner)}" for key, inner in value.items())
    return str(value)


def number(value: float, digits: int = 3) -> str:
    """A number without needless digits: 8, 0.5, 12.25."""
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def hours(value: float | None) -> str:
    """GPU-hours to two digits that matter; empty = not known."""
    if not value:
        return "" if value is None else "0"
    return number(value, 2) if abs(value) >= 1 else f"{value:.2g}"


def percent(value: float | None) -> str:
    """A percentage; empty = not measured."""
    return "" if value is None else f"{value:.0f}%"


def size(value: float | None) -> str:
    """Bytes in the largest binary unit that leaves one digit or more; empty = not known."""
    if value is None:
        return ""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:  # noqa: PLR2004 - the step between binary units
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 10 else f"{value:.1f} {unit}"  # noqa: PLR2004 - two digits


def span(seconds: float | None) -> str:
    """A duration in its two largest units: 4s, 2m05s, 1h07m, 3d02h; empty = not known."""
    if seconds is None:
        return ""
    whole = max(int(seconds), 0)
    if whole < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{whole}s"
    if whole < 3600:  # noqa: PLR2004 - of an hour
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:  # noqa: PLR2004 - of a day
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def moment(text: str | None) -> float | None:
    """Seconds of an ISO 8601 time; None = there is none."""
    return None if not text else datetime.fromisoformat(text).timestamp()


def relative(text: str | None, now: float) -> str:
    """A time as people say it: `5m02s ago`, `in 3m00s`; empty = there is none."""
    time = moment(text)
    if time is None:
        return ""
    away = time - now
    return f"in {span(away)}" if away > 0 else f"{span(-away)} ago"


def clock(text: str | None) -> str:
    """An ISO 8601 time to the second, in UTC."""
    time = moment(text)
    return "" if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
