"""The kinds of figure that can be asserted: how a bound is written in a file, and how a value is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from ...jobs.spec.fields import refuse, shown
from ...jobs.units import UnitError, bare_duration, parse_duration
from ..report.metric import duration, gpu_hours, percent

_PERCENT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?%")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `read` raises pydantic's error with our words; `text` is for people; `form` says how it is written."""

    name: str
    read: Callable[[object], float]
    text: Callable[[float], str]
    form: str


def _seconds(value: object) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise bare_duration(value)
        if not isinstance(value, str):
            raise refuse(f"must be a duration, not {shown(value)}", "write it like 30m or 24h")
        return parse_duration(value)
    except UnitError as error:
        raise refuse(error.message, error.hint) from None


def _share(value: object) -> float:
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value.strip())):
        return float(found[1]) / 100
    number = _finite(value, "a share", "write it like 0.9 or 90%")
    if number > 1:
        raise refuse(f"must be a share from 0 to 1, not {shown(value)}", f"write {number:g}% if you mean per cent")
    return number


def percent_of(value: object) -> float:
    """`10%` as 0.1; a bare number is refused, for 10 could mean either."""
    if isinstance(value, str) and (found := _PERCENT.fullmatch(value.strip())):
        return float(found[1]) / 100
    raise refuse(f"must be a percentage, not {shown(value)}", "write it like 10%")


def _number(value: object) -> float:
    return _finite(value, "a number", "write it like 3")


def _finite(value: object, what: str, hint: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise refuse(f"must be {what}, 0 or more, not {shown(value)}", hint)
    return float(value)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.3f}"


def _index(value: float) -> str:
    return f"{value:.3f}"


TIME = Kind("time", _seconds, duration, "a duration such as 30m")
SHARE = Kind("share", _share, percent, "a share such as 90% or 0.9")
INDEX = Kind("index", _share, _index, "a share such as 0.9")
NUMBER = Kind("number", _number, _count, "a number")
GPU_TIME = Kind("GPU time", _seconds, gpu_hours, "GPU time as a duration: 10h are 10 GPU-hours")
