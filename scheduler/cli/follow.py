"""Follow a job's output to its end, across restarts of the control plane."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ...jobs.errors import UnreachableError
from ...jobs.job import State
from .narrator import EVERY, FIRST, Narrator

if TYPE_CHECKING:
    from ..client import Client

JSON = dict[str, Any]

PATIENCE = 120.0
"""Seconds for which a control plane that does not answer is waited for."""
PAUSE = 0.5
RUNNING = "running: no output"


class Printer:
    """Prints pieces of output as they come; the ranks of a gang line by line, each marked with its rank.

    Args:
        narrator: through which everything is printed.
        marked: whether lines carry their rank.
    """

    def __init__(self, narrator: Narrator, *, marked: bool) -> None:
        self._narrator = narrator
        self._marked = marked
        self._begun: dict[int, str] = {}

    def piece(self, rank: int, text: str) -> None:
        """Print what a rank said."""
        if not self._marked:
            self._narrator.output(text)
            return
        text = self._begun.pop(rank, "") + text
        whole, _, rest = text.rpartition("\n")
        if rest:
            self._begun[rank] = rest
        if whole or text.startswith("\n"):
            self._narrator.output("".join(f"[{rank}] {line}\n" for line in whole.split("\n")))

    def finish(self) -> None:
        """Print lines that were not ended."""
        for rank, text in sorted(self._begun.items()):
            self._narrator.output(f"[{rank}] {text}\n")
        self._begun.clear()


@dataclass(slots=True)
class Place:
    """How far output was read: the attempt, and the next byte of each rank."""

    attempt: int = 0
    offsets: dict[int, int] = field(default_factory=dict)

    def fresh(self, rank: int, offset: int, text: str) -> str:
        """The part of a piece that was not seen before."""
        seen = self.offsets.get(rank, 0)
        data = text.encode("utf-8", "surrogatepass")
        self.offsets[rank] = max(seen, offset + len(data))
        if offset >= seen:
            return text
        return data[seen - offset :].decode("utf-8", "replace")


def follow(
    connect: Callable[[], Client],
    job: int,
    *,
    narrator: Narrator,
    printer: Printer,
    rank: int | Literal["all"] = "all",
    attempt: int | None = None,
    tail: int | None = None,
) -> JSON:
    """Print a job's output until it ends; the stream's last line, `{"end": state, "exit_code": code}`.

    Raises:
        UnreachableError: the control plane does not answer for PATIENCE seconds.
        NotFoundError: no such job, rank or attempt.
    """
    place = Place(attempt or 0)
    lost: float | None = None
    while True:
        try:
            client = connect()
            offset = _offset(client, job, place, attempt) if place.offsets else 0
            stream = client.logs(
                job, rank=rank, attempt=attempt, offset=offset, tail=None if place.offsets else tail, follow=True
            )
            for line in stream:
                lost = None
                if "end" in line:
                    printer.finish()
                    return line
                _take(line, place, narrator, printer)
        except UnreachableError:
            if lost is not None and time.monotonic() - lost > PATIENCE:
                raise
        # The stream was cut, or ended without its last line.
        lost = time.monotonic() if lost is None else lost
        narrator.say("the control plane does not answer: waiting for it; the job goes on")
        time.sleep(PAUSE)


def _offset(client: Client, job: int, place: Place, attempt: int | None) -> int:
    """Where to go on after the stream was cut: from the start if another attempt has begun."""
    if attempt is None and client.job(job)["attempt"] != max(place.attempt, 1):
        place.offsets = {}
        return 0
    return min(place.offsets.values(), default=0)


def _take(line: JSON, place: Place, narrator: Narrator, printer: Printer) -> None:
    if "text" in line:
        printer.piece(line["rank"], place.fresh(line["rank"], line["offset"], line["text"]))
        narrator.say(RUNNING, patience=EVERY)
    elif "attempt" in line:
        if line["attempt"] != place.attempt:
            printer.finish()
            if place.attempt or place.offsets:
                narrator.note(f"attempt {line['attempt']} begins")
            place.attempt, place.offsets = line["attempt"], {}
    elif "error" in line:
        narrator.note(f"error: {line['error'].get('message', '')}")
    elif "state" in line:
        words = words_of(line["state"], line.get("message", ""))
        narrator.say(words, patience=EVERY if words == RUNNING else FIRST)


def words_of(state: str, message: str) -> str:
    """What a job in a state is waiting for."""
    if state == State.RUNNING:
        return RUNNING
    return (
        f"{state.lower()}: {message}" if message and not message.startswith(state.lower()) else message or state.lower()
    )


def ended(job: JSON, state: str, exit_code: int | None, message: str) -> str:
    """One sentence on how a job ended."""
    name = f"job {job['id']} ({job['name']})"
    if state == State.SUCCEEDED:
        return f"{name} succeeded"
    code = "" if exit_code is None else f" with exit code {exit_code}"
    what = {
        State.FAILED: "failed",
        State.CANCELLED: "was cancelled",
        State.TIMEOUT: "was stopped at its time limit",
        State.LOST: "was lost",
    }.get(State(state), f"is {state}")
    return f"{name} {what}{code}" + (f": {message}" if message else "")


def exit_code_of(state: str, exit_code: int | None) -> int:
    """The code to exit with for a job that ended: its own, 128+n for signal n, 1 where it has none."""
    if state == State.SUCCEEDED:
        return 0
    if not exit_code:
        return 1
    return 128 - exit_code if exit_code < 0 else exit_code
