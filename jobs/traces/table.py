"""A CSV with a header line: columns found by name, rows counted by line, faults named by both."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Sequence
from typing import Protocol

from ..errors import TraceError
from .source import Source
from .values import CellError


def header_of(source: Source) -> list[str]:
    """The column names in the first line, whichever of `,`, `|`, tab and `;` parts them; none in what is no CSV."""
    line = source.head.split("\n", 1)[0].strip("\r")
    try:
        names = next(csv.reader([line], delimiter=delimiter_of(line)), []) if line else []
    except csv.Error:
        return []
    return [name.strip() for name in names]


def delimiter_of(line: str) -> str:
    """The delimiter that the line has most of; a comma where it has none."""
    return max(",|\t;", key=line.count)


class Rows(Protocol):
    """Rows as lists of cells, and how many lines they took so far; csv's readers are such."""

    @property
    def line_num(self) -> int:
        """The line that was read last, counted from 1."""
        ...

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


class Table:
    """The rows of a CSV.

    Attributes:
        names: the columns, in order.
    """

    def __init__(self, source: Source, reader: Rows | None = None, above: int = 0) -> None:
        """Read the header line of `source`.

        Args:
            source: the file.
            reader: its rows, if it is not a CSV from its first line on.
            above: lines that were taken from the file before `reader` began to count.

        Raises:
            TraceError: there is no header, it cannot be read, or names a column twice.
        """
        self._file = source.name
        self._above = above
        first = source.head.split("\n", 1)[0]
        delimiter = delimiter_of(first)
        bare = delimiter == "|"  # batch systems quote nothing
        self._reader: Rows = reader or csv.reader(
            source.lines(), delimiter=delimiter, quoting=csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL
        )
        try:
            header = next(self._reader, None)
        except csv.Error as error:
            raise TraceError(f"{self._file}, row 1: is no header line: {error}") from error
        if header is None:
            raise TraceError(
                f"{self._file}: ends before its header line", hint="the file was cut off: copy or write it again"
            )
        self.names = [name.strip() for name in header]
        named = [name for name in self.names if name]
        for name in named:
            if named.count(name) > 1:
                raise TraceError(f"{self._file}, row 1: two columns are named {name!r}", hint="rename one of them")

    @property
    def line(self) -> int:
        """The line of the file that was read last, counted from 1."""
        return self._reader.line_num + self._above

    def find(self, *names: str) -> int:
        """Index of the first of `names` that is a column, or -1."""
        return next((self.names.index(name) for name in names if name in self.names), -1)

    def need(self, *names: str, hint: str = "") -> int:
        """Index of the first of `names` that is a column.

        Raises:
            TraceError: none of them is; the message lists the columns that there are.
        """
        index = self.find(*names)
        if index < 0:
            raise self.missing(names, hint)
        return index

    def missing(self, names: Sequence[str], hint: str = "") -> TraceError:
        """The error that says that none of `names` is a column, with the nearest that is."""
        near = difflib.get_close_matches(names[0], self.names, n=1)
        advice = [f"did you mean {near[0]!r}?"] if near else []
        advice += [hint] if hint else []
        return TraceError(
            f"{self._file}, row 1: no column {' or '.join(map(repr, names))}; the columns are "
            + (", ".join(self.names)[:300] or "unnamed"),
            hint=" ".join(advice) or "add the column to the header line",
        )

    def rows(self) -> Iterator[list[str]]:
        """The rows after the header, blank lines left out.

        Raises:
            TraceError: a row has more or fewer fields than the header, or is no CSV.
        """
        width = len(self.names)
        try:
            for row in self._reader:
                if len(row) == width:
                    yield row
                elif row and (len(row) > 1 or row[0].strip()):
                    raise TraceError(
                        f"{self._file}, row {self.line}: has {len(row)} fields, the header has {width}",
                        hint="the row may be cut off, or a comma is not in quotes",
                    )
        except csv.Error as error:
            raise TraceError(f"{self._file}, row {self.line}: is no CSV: {error}") from error

    def fault(self, error: CellError) -> TraceError:
        """A cell's fault with the file and the current row."""
        return fault(self._file, self.line, error)


def fault(file: str, row: int, error: CellError) -> TraceError:
    """A cell's fault with its file and row, as the one error that users see."""
    return TraceError(f"{file}, row {row}, column {error.column!r}: {error.message}", hint=error.hint)
