"""Cells of a trace to values: seconds, instants, counts of GPUs, sizes. Each says what is wrong and how to mend it.

Whole numbers stay `int`, also when they are written `66.0`. These functions run once a cell on millions of rows: the
common case comes first in each.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import isfinite

MAX_SECONDS = 100 * 366 * 86400
"""Longest believable run time: a century. More is a mistake of unit."""
MAX_INSTANT = 10**11
"""Latest believable Unix time (year 5138). More is milliseconds."""
MAX_GPUS = 1_000_000
MAX_CPU_MILLI = 10**12
MAX_BYTES = 2**63 - 1

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - traces have naive times; they are compared naively
_DAY = 86400
_EXACT_DIGITS = 19
"""Longer whole numbers are above every bound here, and Python bounds what it converts."""
_FAST_DIGITS = 9
"""Longer numbers may be beyond MAX_INSTANT."""
_CLOCK = re.compile(r"(?:(\d{1,6})-)?(?:(\d{1,5}):)?(?:(\d{1,6}):)?(\d{1,9}(?:\.\d+)?)", re.ASCII)
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class CellError(Exception):
    """A cell that cannot be read; the reader adds file and row and raises `TraceError`."""

    def __init__(self, column: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.column = column
        self.message = message
        self.hint = hint


def shown(text: str) -> str:
    """A cell in quotes for a message, cut to a length that fits a line."""
    return repr(text if len(text) <= 60 else text[:57] + "...")  # noqa: PLR2004 - fits a line with the file's name


def number(text: str, column: str) -> int | float:
    """A finite number; `int` if it is whole.

    Raises:
        CellError: empty, not a number, or not finite.
    """
    if text.isdecimal() and len(text) <= _EXACT_DIGITS:
        return int(text)
    text = text.strip()
    if not text:
        raise CellError(column, "is empty", "give a number")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or "_" in text:
        raise CellError(column, f"{shown(text)} is not a number", "give a finite number, such as 3600")
    return int(value) if value.is_integer() else value


def seconds(text: str, column: str) -> int | float:
    """A run time in seconds, 0 or more.

    Raises:
        CellError: not a number, negative, or longer than a century.
    """
    value = number(text, column)
    if value < 0:
        raise CellError(column, f"{shown(text)} is negative", "a run time is 0 or more seconds: mend or delete the row")
    if value > MAX_SECONDS:
        raise CellError(
            column, f"{shown(text)} seconds is over a century", "give seconds, not milliseconds or a time of day"
        )
    return value


def whole(text: str, column: str, most: int = MAX_GPUS) -> int:
    """A count, 0 or more; `4` and `4.0` are the same.

    Raises:
        CellError: not a whole number, negative, or above `most`.
    """
    value = number(text, column)
    if not isinstance(value, int):
        raise CellError(column, f"{shown(text)} is not a whole number", "give a count such as 4")
    if value < 0:
        raise CellError(column, f"{shown(text)} is negative", "give 0 or more")
    if value > most:
        raise CellError(column, f"{shown(text)} is absurdly large", f"the most that is accepted is {most:,}")
    return value


def gpus(text: str, column: str) -> tuple[int, int]:
    """An ask for GPUs as (whole GPUs, thousandths of one shared GPU): `4` -> (4, 0), `0.5` -> (0, 500).

    Raises:
        CellError: negative, absurd, or a fraction of more than one GPU.
    """
    if text.isdecimal() and len(text) <= 4:  # noqa: PLR2004 - the common case
        return int(text), 0
    value = number(text, column)
    if isinstance(value, int):
        return whole(text, column), 0
    milli = round(value * 1000)
    if not 0 < milli < 1000:  # noqa: PLR2004 - thousandths
        raise CellError(
            column, f"{shown(text)} GPUs cannot be asked for", "a job takes whole GPUs, or a fraction of one below 1"
        )
    return 0, milli


def instant(text: str, column: str) -> int | float:
    """A point in time as seconds: a number as it is; a time of day as Unix time, UTC where it names no zone.

    Raises:
        CellError: neither a number nor an ISO 8601 time, or out of range.
    """
    if text.isdecimal():  # always seconds, although 20200618 is an ISO date too
        return int(text) if len(text) <= _FAST_DIGITS else _numeric_instant(text, column)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return _numeric_instant(text, column)
    if when.tzinfo is not None:
        when = when.astimezone(UTC).replace(tzinfo=None)
    gap = when - _EPOCH
    if gap.days < 0:
        raise CellError(column, f"{shown(text)} is before 1970", "give the real date")
    whole_seconds = gap.days * _DAY + gap.seconds
    return whole_seconds + gap.microseconds / 1e6 if gap.microseconds else whole_seconds


def _numeric_instant(text: str, column: str) -> int | float:
    try:
        value = number(text, column)
    except CellError as error:
        raise CellError(
            column,
            f"{shown(text.strip())} is not a time" if text.strip() else "is empty",
            "give seconds, or a time such as 2026-01-31 13:45:00",
        ) from error
    if value < 0:
        raise CellError(column, f"{shown(text)} is negative", "count from the first submission or from 1970")
    if value > MAX_INSTANT:
        raise CellError(column, f"{shown(text)} is too large for seconds", "milliseconds? divide by 1000")
    return value


def clock(text: str, column: str) -> int | float:
    """A length of time as batch systems write it: `D-HH:MM:SS`, `HH:MM:SS`, `MM:SS`, `D days HH:MM:SS`, or seconds.

    Raises:
        CellError: none of these.
    """
    found = _CLOCK.fullmatch(re.sub(r" days? ", "-", text.strip()))
    if found is None:
        raise CellError(column, f"{shown(text)} is not a length of time", "give D-HH:MM:SS or seconds")
    days, first, second, last = found.groups()
    minutes = int(second or first or 0)
    hours = int(first or 0) if second else 0
    if days and not second:  # D-HH or D-HH:MM, which the batch system also accepts as a limit
        hours, minutes, last = (int(first), int(float(last)), "0") if first else (int(float(last)), 0, "0")
    return seconds(repr(int(days or 0) * _DAY + hours * 3600 + minutes * 60 + float(last)), column)


def size(text: str, column: str, unit: int = 1) -> int:
    """An amount of memory in bytes; a bare number counts in `unit` bytes. Units are of 1024: `4G`, `512 MiB`.

    Raises:
        CellError: not a size, negative, or beyond 8 EiB.
    """
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        raise CellError(column, f"{shown(text)} is not an amount of memory", "give one such as 512G")
    amount, letter, _ = found.groups()
    value = float(amount) * (1024 ** _POWERS[letter.lower()] if letter else unit)
    if value > MAX_BYTES:
        raise CellError(column, f"{shown(text)} is absurdly large", "give one such as 512G")
    return int(value)
