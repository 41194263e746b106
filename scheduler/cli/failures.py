"""Errors in words, or as JSON, and the exit codes that go with them. No traceback unless it is asked for."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ...jobs.errors import GpuschedError, SpecError

if TYPE_CHECKING:
    from .session import Session

USAGE = 2
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE


def explain_failure(error: BaseException, arguments: Sequence[str], session: Session) -> int:
    """Print an error and return the exit code."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):  # completion, `--help` of a library
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone, as `head` does. Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED
    said, code = describe(error)
    if session.verbose and not isinstance(error, click.ClickException):
        import traceback  # noqa: PLC0415 - asked for with -v

        traceback.print_exception(error)
    write(said, as_json=_wants_json(arguments, session), session=session)
    return code


def describe(error: BaseException) -> tuple[dict[str, Any], int]:
    """An error as `{"code", "message", "hint", "problems"?}`, and its exit code."""
    if isinstance(error, GpuschedError):
        said: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
        if isinstance(error, SpecError):
            names = ("file", "line", "column", "key", "message", "hint")
            said["problems"] = [{name: getattr(problem, name) for name in names} for problem in error.problems]
        return said, error.exit_code
    if isinstance(error, click.ClickException):
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else ""
        message = error.format_message().rstrip(".")
        message = message[:1].lower() + message[1:]
        return {"code": "usage", "message": message, "hint": f"see `{path} --help`" if path else ""}, USAGE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return {"code": "error", "message": f"{where}{error.strerror or error}", "hint": ""}, 1
    if isinstance(error, MemoryError):
        return {"code": "error", "message": "out of memory", "hint": ""}, 1
    return {
        "code": "internal",
        "message": f"{type(error).__name__}: {error}",
        "hint": "this is a fault of gpusched; `-v` shows where, please report it",
    }, 1


def write(said: dict[str, Any], *, as_json: bool, session: Session) -> None:
    """Print an error to standard error."""
    from ..output import safe  # noqa: PLC0415 - not needed where nothing went wrong

    if as_json:
        print(json.dumps({"error": said}, ensure_ascii=False), file=sys.stderr)
        return
    mark = "\x1b[1;31merror:\x1b[0m" if session.colour_on(sys.stderr) else "error:"
    lines = str(said["message"]).splitlines() or [""]
    print(mark, "\n       ".join(map(safe, lines)), file=sys.stderr)
    if said["hint"]:
        print("hint:", safe(str(said["hint"])), file=sys.stderr)


def _wants_json(arguments: Sequence[str], session: Session) -> bool:
    """Whether `-o json` was asked for, told from the words themselves: the error may be about them."""
    for number, word in enumerate(arguments):
        if word == "--":
            break
        if word in {"-o", "--output"} and number + 1 < len(arguments):
            return arguments[number + 1] in {"json", "jsonl"}
        if word.startswith("--output="):
            return word.partition("=")[2] in {"json", "jsonl"}
        if word.startswith("-o") and not word.startswith("--"):
            return word[2:] in {"json", "jsonl"}
    try:
        return session.config["output"] in {"json", "jsonl"}
    except GpuschedError:
        return False  # the configuration is what is wrong, and is being reported
