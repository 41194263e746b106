"""Options in a policy's name, as in `srtf?margin=60s&aging=0.1`: a factory's own parameters, read by their types."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from ..jobs.errors import NotFoundError
from ..jobs.units import UnitError, parse_duration

Duration = Annotated[float, "duration"]
"""Seconds, or GPU-seconds, that are written with a unit, as everywhere: `60s`, `16h`."""

_TRUTH = {"yes": True, "no": False, "true": True, "false": False}
_FOR_CODE = {"name", "by_class"}
_KINDS = {bool, int, float}


def split(name: str) -> tuple[str, str]:
    """A policy's name without its options, and the options as text."""
    plain, _, options = name.partition("?")
    return plain, options


def read(name: str, make: Callable[..., Any], *, of: str = "") -> dict[str, Any]:
    """The options in a policy's name as the arguments of what makes it.

    Numbers are numbers, durations have a unit, `all` and `inf` are without bound; `yes` and `no` are for what is one
    or the other; several values are parted by commas. Parameters of other types are for code alone.

    Args:
        name: with its options.
        make: what they are options of.
        of: the whole name that the user typed, if `name` is a part of it.

    Raises:
        NotFoundError: there is no such option, it is given twice, or its value is not of its kind.
    """
    _, text = split(name)
    if not text:
        return {}
    whole = of or name
    hints = get_type_hints(make.__init__ if inspect.isclass(make) else make, include_extras=True)
    known = {key: kind for key, kind in hints.items() if key not in _FOR_CODE | {"return"} and _readable(kind)}
    found: dict[str, Any] = {}
    for part in text.split("&"):
        key, _, value = part.partition("=")
        if key not in known:
            there = f"one of {', '.join(known)}" if known else "it has none"
            raise NotFoundError(f"policy {whole!r}: no option {key!r}", hint=there)
        if key in found:
            raise NotFoundError(f"policy {whole!r}: {key} is given twice", hint="give it once")
        try:
            found[key] = _value(value, known[key])
        except ValueError as error:
            raise NotFoundError(f"policy {whole!r}: {key} is {value!r}", hint=str(error)) from error
    return found


def _readable(kind: Any) -> bool:  # noqa: ANN401 - any annotation
    origin = get_origin(kind)
    return kind in _KINDS or kind == Duration or origin is Literal or (origin is tuple and _readable(get_args(kind)[0]))


def _value(text: str, kind: Any) -> Any:  # noqa: ANN401 - of the kind that the parameter is of
    """One value.

    Raises:
        ValueError: its message says what would do.
    """
    if get_origin(kind) is Literal:
        if text in get_args(kind):
            return text
        raise ValueError(f"one of {', '.join(get_args(kind))}")
    if get_origin(kind) is tuple:
        return tuple([_value(part, get_args(kind)[0]) for part in text.split(",")])
    if kind is bool:
        if text in _TRUTH:
            return _TRUTH[text]
        raise ValueError("yes or no")
    if text in {"all", "inf"} and kind is not int:
        return math.inf
    return _duration(text) if kind == Duration else _number(text, whole=kind is int)


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except UnitError as error:
        raise ValueError(error.hint) from error


def _number(text: str, *, whole: bool) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number >= 0 and (number.is_integer() or not whole):
        return int(number) if number.is_integer() else number
    raise ValueError("a whole number, 0 or more" if whole else "a number, 0 or more, or all")
