"""Durations and sizes as people write them, to seconds and bytes and back.

A bare number is refused everywhere: Slurm reads `60` as minutes, Kubernetes as seconds and `--mem 64` as MiB, so a
reader of the file could not tell what was meant.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

MAX_SECONDS = 3650 * 86400
"""Ten years: longer than any job, and short enough that milliseconds stay exact in a float."""
MAX_BYTES = 1 << 50
"""One PiB of memory on one node."""

_NUMBER = r"[0-9]{1,16}(?:\.[0-9]{1,9})?"
_UNITS = rf"(?:{_NUMBER}w ?)?(?:{_NUMBER}d ?)?(?:{_NUMBER}h ?)?(?:{_NUMBER}m(?:in)? ?)?(?:{_NUMBER}s)?"
_DAYS = r"[0-9]{1,6}-[0-9]{1,2}(?::[0-5]?[0-9]){0,2}"
_CLOCK = r"[0-9]{1,6}(?::[0-5]?[0-9]){2}"

DURATION_PATTERN = rf"^(?:(?=[0-9]){_UNITS}|{_DAYS}|{_CLOCK})$"
"""What a duration looks like, in the regular expressions that Python and JSON schema share."""
SIZE_PATTERN = rf"^{_NUMBER} ?(?:[kKmMgGtTpP]?[bB]|[kKmMgGtTpP][iI]?[bB]?)$"
"""What a size looks like, likewise."""

_DURATION = re.compile(DURATION_PATTERN)
_SIZE = re.compile(SIZE_PATTERN)
_PART = re.compile(rf"({_NUMBER})(min|[wdhms])")
_BARE = re.compile(r"[-+]?(?:[0-9.]+(?:[eE][-+]?[0-9]+)?)")
_LONGEST = 64

_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "min": 60, "m": 60, "s": 1}
_POWERS = "kmgtp"

DURATION_HINT = "write it like 90s, 15m, 2h, 3d, 1h30m or D-HH:MM:SS"
SIZE_HINT = "write it like 512MB, 64GB or 64GiB"


class UnitError(ValueError):
    """A quantity cannot be read. `message` says what is wrong with it and `hint` how to write it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} ({hint})")
        self.message = message
        self.hint = hint


def parse_duration(text: str) -> float:
    """Seconds in `text`, to the millisecond: `90s`, `1h30m`, `1.5h`, or Slurm's `HH:MM:SS`, `D-HH[:MM[:SS]]`.

    Raises:
        UnitError: it is no duration, has no unit, is negative, or is longer than ten years.
    """
    written = text.strip()
    if len(written) > _LONGEST or not _DURATION.match(written):
        raise _not_a_duration(written)
    seconds = _clock_seconds(written) if ":" in written or "-" in written else _unit_seconds(written)
    if seconds > MAX_SECONDS:
        raise UnitError(f"{_shown(text)} is longer than ten years", "the longest duration is 3650d")
    return float(round(seconds, 3))


def _unit_seconds(text: str) -> Decimal:
    return sum((Decimal(number) * _SECONDS[unit] for number, unit in _PART.findall(text)), start=Decimal(0))


def _clock_seconds(text: str) -> Decimal:
    days, dash, clock = text.rpartition("-")
    hours, minutes, seconds = (*map(int, clock.split(":")), 0, 0)[:3]
    if dash and hours >= 24:  # noqa: PLR2004 - hours of a day
        raise UnitError(f"{_shown(text)} has {hours} hours beside its days", "write D-HH:MM:SS with HH below 24")
    return Decimal(int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds)


def _not_a_duration(text: str) -> UnitError:
    if text.startswith("-"):
        return UnitError(f"{_shown(text)} is negative", DURATION_HINT)
    if _BARE.fullmatch(text):
        return bare_duration(text)
    if re.fullmatch(r"[0-9]+:[0-9]+", text):
        return UnitError(f"{_shown(text)} could mean hours or minutes", "write HH:MM:SS, or units such as 10m30s")
    if text.lower() in {"inf", "infinite", "infinity", "unlimited", "none", "off", "never"}:
        return UnitError(f"{_shown(text)} is no duration", "leave the key out where there is no limit")
    return UnitError(f"{_shown(text)} is no duration", DURATION_HINT)


def bare_duration(number: object) -> UnitError:
    """The refusal of a duration without a unit, with the likely meaning as its hint."""
    shown = _shown(str(number))
    if not shown.isdigit():
        return UnitError(f"{shown} is no duration with a unit", DURATION_HINT)
    return UnitError(f"{shown} has no unit", f"write {shown}s for seconds, {shown}m for minutes or {shown}h for hours")


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as `seconds` (kept to the millisecond)."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit in ("d", "h", "m"):
        count, milliseconds = divmod(milliseconds, _SECONDS[unit] * 1000)
        parts += [f"{count}{unit}"] if count else []
    whole, rest = divmod(milliseconds, 1000)
    if rest:
        parts.append(f"{whole}.{rest:03d}".rstrip("0") + "s")
    elif whole:
        parts.append(f"{whole}s")
    return "".join(parts)


def parse_size(text: str) -> int:
    """Bytes in `text`: `64GB` and `64G` are 64 x 10^9, `64GiB` and `64Gi` are 64 x 2^30; letter case is free.

    Raises:
        UnitError: it is no size, has no unit, is negative, or is over one PiB.
    """
    written = text.strip()
    if len(written) > _LONGEST or not _SIZE.match(written):
        raise _not_a_size(written)
    number = written.rstrip("kKmMgGtTpPiIbB ")
    unit = written[len(number) :].strip().lower()
    power = _POWERS.find(unit[0]) + 1
    size = Decimal(number) * Decimal(1024 if "i" in unit else 1000) ** power
    if size > MAX_BYTES:
        raise UnitError(f"{_shown(text)} is more memory than any node has", "the largest size is 1PiB")
    return round(size)


def _not_a_size(text: str) -> UnitError:
    if text.startswith("-"):
        return UnitError(f"{_shown(text)} is negative", SIZE_HINT)
    return bare_size(text) if _BARE.fullmatch(text) else UnitError(f"{_shown(text)} is no size", SIZE_HINT)


def bare_size(number: object) -> UnitError:
    """The refusal of a size without a unit, with the likely meaning as its hint."""
    shown = _shown(str(number))
    if not shown.isdigit():
        return UnitError(f"{shown} is no size with a unit", SIZE_HINT)
    return UnitError(f"{shown} has no unit", f"write {shown}GB, {shown}GiB or {shown}MB")


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads back as exactly `size` bytes."""
    best = f"{size}B"
    for base, suffix in ((1000, "B"), (1024, "iB")):
        for power, letter in enumerate("KMGTP", start=1):
            count, rest = divmod(size, base**power)
            text = f"{count}{letter}{suffix}"
            if count and not rest and len(text) <= len(best):
                best = text
    return best


def milli(number: float) -> int | None:
    """Thousandths in `number`, or None when it is not finite or finer than a thousandth."""
    if not math.isfinite(number):
        return None
    thousandths = round(number * 1000)
    return thousandths if math.isclose(thousandths, number * 1000, rel_tol=1e-12, abs_tol=1e-9) else None


def _shown(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
