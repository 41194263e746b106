"""What is wrong with a YAML text before it is a document: its bytes, its size, its syntax."""

from __future__ import annotations

import re
from collections.abc import Iterable

import yaml

from .errors import Problem

MAX_BYTES = 1 << 20
MAX_PROBLEMS = 1000
"""After this many the rest of a file is not read: it is not what it was taken for."""

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class YamlError(Exception):
    """The text cannot be read any further. Carries the one problem that stops it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def stop(file: str, line: int, column: int, message: str, hint: str = "") -> YamlError:
    """The error that ends the reading of `file` at a place."""
    return YamlError(Problem(file, line, column, "", message, hint))


def too_many(file: str, line: int, column: int) -> YamlError:
    """The end of the reading of a file that has too many problems."""
    return stop(file, line, column, f"{MAX_PROBLEMS:,} problems or more; the rest was not read")


def key_path(path: Iterable[str | int]) -> str:
    """The path as people write it: `resources.accelerators[1]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step[:128]}" for step in path).removeprefix(".")


def decode(data: str | bytes, file: str) -> str:
    """The text of a file: UTF-8, with or without a byte order mark, at most 1 MiB, no control characters.

    Raises:
        YamlError: it is something else; one message says what.
    """
    if len(data) > MAX_BYTES:
        raise stop(file, 1, 1, "is larger than 1 MiB", "keep data out of it, or split it in several files")
    text = data if isinstance(data, str) else _utf8(data, file)
    text = text.removeprefix("\ufeff")
    if odd := _UNPRINTABLE.search(text):
        message = f"contains the control character U+{ord(odd[0]):04X}"
        raise stop(file, *_place(text, odd.start()), message, "remove it, or write it as an escape in quotes")
    return text


def _utf8(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        message = f"is not UTF-8 text: byte 0x{data[error.start]:02x}"
        raise stop(file, *_place(before, len(before)), message, "save it as UTF-8") from None


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


_SYNTAX_HINTS = {
    "mapping values are not allowed in this context": "check the indentation, and quote a text that contains `: `",
    "block sequence entries are not allowed in this context": "begin the list on a line of its own",
    "did not find expected key": "check the indentation, and that quotes are closed",
    "did not find expected '-' indicator": "check the indentation: a list goes on with `- `",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "found unexpected end of stream": "close the quotes",
    "found character that cannot start any token": "quote a text that begins with this character",
}
_OPENERS = {"while parsing a flow sequence": "[", "while parsing a flow mapping": "{"}


def syntax_error(error: yaml.MarkedYAMLError, text: str, file: str, line: int, column: int) -> YamlError:
    """The parser's complaint in words that help; `line` and `column` shift the places of a text inside a text."""
    mark = error.problem_mark or error.context_mark
    at_line, at_column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.rstrip().split("\n")
    if at_line >= len(lines):  # at the end of the text: say where its last line ends
        at_line, at_column = len(lines) - 1, len(lines[-1])
    rest = lines[at_line][at_column:]
    opener = _OPENERS.get(error.context or "")
    if rest.startswith("\t"):
        message, hint = "a tab in the indentation", "YAML is indented with spaces"
    elif opener and error.context_mark:
        at_line, at_column = error.context_mark.line, error.context_mark.column
        message, hint = (
            f"this `{opener}` is not closed, or a comma is missing in it",
            "quote a text that begins with it",
        )
    else:
        message, hint = f"is not valid YAML: {error.problem}", _SYNTAX_HINTS.get(error.problem or "", "")
        if error.context_mark and "end of stream" in message:
            at_line, at_column = error.context_mark.line, error.context_mark.column
    return stop(file, at_line + 1 + line, at_column + 1 + column, message, hint)
