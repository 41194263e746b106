"""A JSON list read one entry at a time: the original Philly log has 1 GB in one list."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from ..errors import TraceError
from .source import Source

_GAP = re.compile(r"[\s,]*")
_LONGEST = 1 << 25
"""Characters of the longest entry that is read."""


class Entry(NamedTuple):
    """One entry of the list: its value, its place from 1, and the line that it starts on."""

    value: Any
    number: int
    row: int


def entries(source: Source) -> Iterator[Entry]:
    """The entries of the one list in `source`, or one JSON value after another where there is no list.

    Raises:
        TraceError: the text is no JSON, stops in the middle, or holds an absurdly long entry.
    """
    decoder = json.JSONDecoder()
    text, at = "", 0
    row, number = 1, 0
    listed = False
    for block in chain(source.blocks(), ("",)):  # the empty block says that no more will come
        text, at = text[at:] + block, 0
        while True:
            gap = _gap(text, at)
            row += text.count("\n", at, gap)
            at = gap
            if at == len(text):
                break
            if text[at] == "[" and number == 0 and not listed:
                listed, at = True, at + 1
                continue
            if text[at] == "]" and listed:
                return
            try:
                value, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                if isinstance(error, json.JSONDecodeError) and block and len(text) - at < _LONGEST:
                    break  # the entry goes on in the next block
                raise _broken(source, row, number + 1, error) from error
            if end == len(text) and block:
                break  # a number may go on
            number += 1
            yield Entry(value, number, row)
            row += text.count("\n", at, end)
            at = end
    if listed:
        raise _broken(source, row, number + 1, None)


def _gap(text: str, at: int) -> int:
    found = _GAP.match(text, at)
    return found.end() if found else at


def _broken(source: Source, row: int, number: int, error: Exception | None) -> TraceError:
    what = "nested too deep" if isinstance(error, RecursionError) else "the list stops before it is closed"
    if isinstance(error, ValueError):
        what = getattr(error, "msg", "") or str(error)
    return TraceError(
        f"{source.name}, row {row} (entry {number}): is no JSON: {what}",
        hint="the file may be cut off: copy or download it again",
    )
