"""ULIDs (github.com/ulid/spec): names that are unique without asking anybody and sort by the time of their making."""

from __future__ import annotations

import hashlib
import os
import re

LENGTH = 26
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
_VALUES = {letter: value for value, letter in enumerate(_CROCKFORD)}
_FORM = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_ALL = (1 << 128) - 1


def ulid(time: float) -> str:
    """A new one: 48 bits of milliseconds (of `time`, UTC seconds), 80 random bits; 26 letters."""
    return _letters((max(0, int(time * 1000)) & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big"))


def is_ulid(text: str) -> bool:
    """Whether a text is one, in capitals."""
    return _FORM.fullmatch(text) is not None


def following(first: str, count: int) -> list[str]:
    """So many that follow each other, `first` being the first: the same for the same, whoever works them out."""
    value = 0
    for letter in first:
        value = value << 5 | _VALUES[letter]
    return [_letters(value + number & _ALL) for number in range(count)]


def ulid_of(key: str) -> str:
    """The one that stands for a key: itself if it is one, else made of a digest of it."""
    if is_ulid(key.upper()):
        return key.upper()
    return _letters(int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:16], "big"))


def _letters(value: int) -> str:
    return "".join([_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)])
