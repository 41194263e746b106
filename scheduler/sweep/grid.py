"""What `--sweep KEY=VALUES` may say: which numbers of a simulation are varied, and over which values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from itertools import product
from math import isfinite

from ...jobs.errors import GpuschedError
from ...jobs.traces.generate import Options
from ...jobs.units import UnitError, parse_duration

Value = float | int | str
Point = tuple[tuple[str, Value], ...]
"""What is swept, at one point of the grid: (key, value) in the order in which they were asked for."""

MOST = 10_000
"""Values of one key; more is a typing error."""
_RANGE = 3


class SweepError(GpuschedError):
    """A sweep asks for what there is not; the message says what there is."""

    code = "usage"
    exit_code = 2


def _positive(text: str) -> float:
    value = float(text)
    if not (isfinite(value) and value > 0):
        raise ValueError("give a number above 0, such as 0.9")
    return value


def _whole(text: str) -> int:
    if not text.isdigit():
        raise ValueError("give a whole number, 0 or more")
    return int(text)


def _estimates(text: str) -> str:
    if text not in (known := ("exact", "trace", "none")):
        raise ValueError(f"give one of {', '.join(known)}")
    return text


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except UnitError as error:
        raise ValueError(f"{error.message}: {error.hint}") from None


@dataclass(frozen=True, slots=True)
class Key:
    """A number of a simulation that can be swept: how its values are read, and what it is."""

    read: Callable[[str], Value]
    meaning: str


KEYS: dict[str, Key] = {
    "load": Key(_positive, "offered load: GPU time submitted, of what the cluster has while jobs arrive; 1 fills it"),
    "rate": Key(_positive, "arrivals come so many times as fast as in the trace"),
    "seed": Key(_whole, "what chance depends on; the table shows the mean over seeds"),
    "estimates": Key(_estimates, "what policies are told of run times: exact, trace or none"),
    "start_up": Key(_duration, "from a start to the first second of work, such as 0s,30s,2m"),
}
"""Key -> how it is read. Besides these: `generate.OPTION` for made-up traces and `policy.OPTION` for policies."""

GENERATED = tuple(field.name for field in fields(Options) if field.name not in {"seed", "load", "queues"})
"""Options of a made-up trace that can be swept as `generate.OPTION`."""


def parse(texts: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """`KEY=FROM:TO:STEP` (both ends included) or `KEY=A,B,...`, several of them, as key -> values.

    Steps are counted in decimals, so that 0.7:1.3:0.1 is seven values and the fourth of them is 1.0.

    Raises:
        SweepError: an unknown key, the same key twice, or values that cannot be; the message says what there is.
    """
    found: dict[str, tuple[Value, ...]] = {}
    for text in texts:
        key, equals, words = text.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key or not words.strip():
            raise SweepError(
                f"--sweep {text}: is not KEY=VALUES", hint="such as load=0.7:1.3:0.1, or estimates=exact,none"
            )
        if key in found:
            raise SweepError(f"--sweep {key}: is given twice", hint="put all its values into one")
        read = _reader(key)
        values: list[Value] = []
        for word in _words(text, words):
            try:
                values.append(read(word))
            except ValueError as error:
                why = str(error)
                hint = "give a number" if why.startswith("could not convert") else why
                raise SweepError(f"--sweep {key}: {word!r} cannot be", hint=hint) from None
        found[key] = tuple(dict.fromkeys(values))
    if "load" in found and "rate" in found:
        raise SweepError("--sweep load and --sweep rate both say how fast jobs arrive", hint="sweep one of them")
    return found


def points(swept: dict[str, tuple[Value, ...]]) -> list[Point]:
    """Every combination of the swept values, the last key fastest; seeds are none of it. One empty point for none."""
    keys = [key for key in swept if key != "seed"]
    return [tuple(zip(keys, values, strict=True)) for values in product(*(swept[key] for key in keys))]


def trace_point(point: Point) -> Point:
    """The part of a point that changes the trace itself."""
    return tuple((key, value) for key, value in point if key in {"load", "rate"} or key.startswith("generate."))


def _reader(key: str) -> Callable[[str], Value]:
    if key in KEYS:
        return KEYS[key].read
    family, dot, option = key.partition(".")
    if family == "policy" and dot and option.isidentifier():
        return str
    if family == "generate" and option in GENERATED:
        return str
    if family == "generate" and dot:
        raise SweepError(f"--sweep {key}: made-up traces have no {option!r}", hint=f"one of {', '.join(GENERATED)}")
    raise SweepError(
        f"--sweep {key}: cannot be swept", hint=f"one of {', '.join(KEYS)}, generate.OPTION or policy.OPTION"
    )


def _words(text: str, words: str) -> list[str]:
    """The values as they were written; a range written out."""
    parts = [part.strip() for part in words.split(":")]
    if len(parts) == 1:
        return [word.strip() for word in words.split(",")]
    wrong = SweepError(f"--sweep {text}: is no range", hint="FROM:TO:STEP with a step above 0, such as 0.7:1.3:0.1")
    try:
        low, high, step = (Decimal(part) for part in parts)
    except (InvalidOperation, ValueError):
        raise wrong from None
    if len(parts) != _RANGE or not all(number.is_finite() for number in (low, high, step)) or step <= 0 or high < low:
        raise wrong
    count = int((high - low) / step) + 1
    if count > MOST:
        raise SweepError(f"--sweep {text}: has {count:,} values", hint=f"at most {MOST:,}")
    return [f"{(low + step * i).normalize():f}" for i in range(count)]
