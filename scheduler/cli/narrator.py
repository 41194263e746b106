"""Says on standard error what is being waited for, so that a command is never silent for long."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from ..output import fit, safe, span
from ..terminal import TerminalFilter

FIRST = 1.0
"""Seconds that something takes before it is worth a word."""
EVERY = 4.0
"""Seconds after which it speaks again."""
PATIENT = 180.0
"""Seconds of the same thing after which it speaks less, where lines stay: each SELDOM seconds."""
SELDOM = 30.0


class Narrator:
    """One line about what is going on: rewritten in place on a terminal, repeated now and then elsewhere.

    All output goes through it, so that line and output do not mix.

    Args:
        width: of the terminal that standard error is; None = it is none.
        silent: print output only.
        errors: where to speak.
    """

    def __init__(self, *, width: int | None, silent: bool = False, errors: TextIO | None = None) -> None:
        self._width = width
        self._silent = silent
        self._errors = errors if errors is not None else sys.stderr
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._filter: TerminalFilter | None = None
        self._text = ""
        self._patience = FIRST
        self._told = False
        self._since = self._spoken = time.monotonic()
        self._drawn = 0
        self._thread = threading.Thread(target=self._tick, name="narrator", daemon=True)

    def __enter__(self) -> Self:
        if not self._silent:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._clear()
            if self._filter is not None:
                sys.stdout.write(self._filter.finish())
                sys.stdout.flush()

    def say(self, text: str, *, patience: float = FIRST) -> None:
        """What is waited for from now on, told once it takes `patience` seconds. The same again changes nothing."""
        text = safe(" ".join(text.split()))
        with self._lock:
            if text != self._text:
                self._text, self._patience, self._told = text, patience, False
                self._since = time.monotonic()
                if self._drawn and not self._silent:
                    self._speak(self._since)

    def note(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._clear()
            if not self._silent:
                self._errors.write(f"{safe(text)}\n")
                self._errors.flush()
            self._spoken = time.monotonic()

    def output(self, text: str) -> None:
        """Output of the job to standard output: as it is, or without what would steer a terminal if that is one."""
        with self._lock:
            self._clear()
            if self._filter is None and sys.stdout.isatty():
                self._filter = TerminalFilter()
            sys.stdout.write(text if self._filter is None else self._filter.clean(text))
            sys.stdout.flush()
            # Time is counted from the last output on.
            self._since = self._spoken = time.monotonic()
            self._told = False

    def _tick(self) -> None:
        while not self._end.wait(0.2):
            with self._lock:
                now = time.monotonic()
                if self._text and self._due(now):
                    self._speak(now)

    def _due(self, now: float) -> bool:
        """Whether it is time for a word."""
        silence = now - self._spoken
        if not self._told:
            return min(silence, now - self._since) >= self._patience or silence >= EVERY
        if self._width is not None:
            return silence >= 1
        return silence >= (EVERY if now - self._since < PATIENT else SELDOM)

    def _speak(self, now: float) -> None:
        seconds = now - self._since
        words = f"{self._text} ({span(seconds)})" if seconds >= 1 else self._text
        self._spoken, self._told = now, True
        if self._width is None:
            self._errors.write(f"{words}\n")
        else:
            self._clear()
            words = fit(words, self._width - 1)
            self._errors.write(f"\x1b[2m{words}\x1b[0m")
            self._drawn = len(words)
        self._errors.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._errors.write("\r\x1b[K")
            self._errors.flush()
            self._drawn = 0
