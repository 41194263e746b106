"""How far a replay is, on standard error: a bar with the time that is left, once it takes more than a second."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..output import span
from .session import Session

if TYPE_CHECKING:
    from rich.progress import Progress

BEGIN = 1.0
"""Seconds before anything is said."""
EVERY = 4.0
"""Seconds between two lines where there is no terminal."""


class Bar:
    """Progress of one thing that takes a while.

    Args:
        session: whether there may be colours.
        label: what it is.
        silent: say nothing.
        unit: what is counted.
    """

    def __init__(self, session: Session, label: str, *, silent: bool = False, unit: str = "jobs") -> None:
        self._session = session
        self._label = label
        self._silent = silent
        self._unit = unit
        self._begun = time.monotonic()
        self._next = self._begun + BEGIN
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def at(self, done: int, total: int) -> None:
        """So many of so many are done."""
        now = time.monotonic()
        if self._silent or now < self._next or not done:
            return
        if sys.stderr.isatty():
            self._next = now + 0.1
            self._draw(done, total)
        else:
            self._next = now + EVERY
            left = (now - self._begun) * (total - done) / done
            sys.stderr.write(
                f"{self._label}: {done:,} of {total:,} {self._unit}, {100 * done // total} %, {span(left)} left\n"
            )
            sys.stderr.flush()

    def _draw(self, done: int, total: int) -> None:
        if self._progress is None:
            from rich.console import Console  # noqa: PLC0415 - only for what takes long
            from rich.progress import (  # noqa: PLC0415 - likewise
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            console = Console(stderr=True, no_color=not self._session.colour_on(sys.stderr))
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=console, transient=True)
            self._progress.add_task(self._label, total=total)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=done)
