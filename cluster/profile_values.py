"""The values of a profile as a file writes them: durations with units, rates, shares, words."""

from __future__ import annotations

import math

from ..jobs.units import bare_duration, parse_duration
from ..jobs.yaml_marks import Node as Value
from .profile import NEVER

MAX_RATE = 1000.0
MAX_RETRIES = 1000


class WrongValueError(Exception):
    """A value that cannot be: what is wrong with it, and how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def shown(value: Value) -> str:
    """The value in a message."""
    if value.kind != "scalar":
        return f"a {value.kind}"
    return "nothing" if value.scalar is None else f"`{value.text[:40]}`"


def _whole(number: float) -> float:
    """Whole numbers as such, so that whole seconds stay whole."""
    return int(number) if number == int(number) else number


def duration(value: Value) -> float:
    """Seconds."""
    if isinstance(value.scalar, int | float) and not isinstance(value.scalar, bool):
        if value.scalar == 0:
            return 0
        raise bare_duration(value.text)
    return _whole(parse_duration(value.text))


def span(value: Value) -> float:
    """Seconds, more than none."""
    seconds = duration(value)
    if not seconds:
        raise WrongValueError("must be longer than nothing", "leave the key out for never")
    return seconds


def interval(value: Value) -> float:
    """Seconds, more than none, or `never`."""
    if value.text.lower() == "never":
        return NEVER
    seconds = duration(value)
    if not seconds:
        raise WrongValueError("must be longer than nothing", "leave `checkpoint` out where no work is ever lost")
    return seconds


def number(value: Value) -> float:
    """Any finite number."""
    found = value.scalar
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        percent = value.text.strip().removesuffix("%")
        hint = (
            f"write {float(percent) / 100:g}" if percent != value.text and percent.replace(".", "", 1).isdigit() else ""
        )
        raise WrongValueError(f"must be a number, not {shown(value)}", hint)
    return _whole(found)


def rate(value: Value) -> float:
    """A rate or a factor of one."""
    found = number(value)
    if not 0 < found <= MAX_RATE:
        raise WrongValueError(
            f"must be above 0 and at most {MAX_RATE:g}, not {value.text}", "1 is the speed of the trace"
        )
    return found


def share(value: Value) -> float:
    """A probability."""
    found = number(value)
    if not 0 <= found <= 1:
        raise WrongValueError(f"must be from 0 to 1, not {value.text}", "0.05 is 5 %")
    return found


def factor(value: Value) -> float:
    """How many times as long."""
    found = number(value)
    if not 1 <= found <= MAX_RATE:
        raise WrongValueError(f"must be from 1 to {MAX_RATE:g}, not {value.text}", "3 = three times the duration")
    return found


def retries(value: Value) -> int:
    """A count."""
    found = number(value)
    if not isinstance(found, int) or not 0 <= found <= MAX_RETRIES:
        raise WrongValueError(f"must be a whole number from 0 to {MAX_RETRIES:,}, not {value.text}")
    return found


def truth(value: Value) -> bool:
    """True or false."""
    if isinstance(value.scalar, bool):
        return value.scalar
    raise WrongValueError(f"must be true or false, not {shown(value)}")


def limits(value: Value) -> bool:
    """Whether estimates are limits."""
    if value.text in {"trace", "estimates"}:
        return value.text == "estimates"
    raise WrongValueError(
        f"must be trace or estimates, not {shown(value)}",
        "trace: only limits that the trace knows; estimates: a job is stopped at its estimate",
    )


def text(value: Value) -> str:
    """As it is written."""
    return value.text
