"""Lines of progress that never pause for long, so that whoever follows a job's log sees that it lives."""

from __future__ import annotations

import threading
import time
from typing import Self


class Progress:
    """Prints what a job does; while nothing is printed for some seconds, says what it is busy with.

    To be used in a `with` block, at whose end the signs of life end too.

    Args:
        speaks: False for the workers that keep quiet (all but rank 0), so that a line is not printed by each of them.
        every: seconds of silence after which a sign of life is printed.
    """

    def __init__(self, *, speaks: bool, every: float = 3.0) -> None:
        self._speaks = speaks
        self._every = every
        self._busy = "starting"
        self._since = self._last = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if self._speaks:
            # A daemon thread: it must not keep a process alive that has crashed.
            threading.Thread(target=self._watch, name="progress", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def say(self, line: str) -> None:
        """Print a line at once, past any buffer."""
        if self._speaks:
            self._last = time.monotonic()
            print(line, flush=True)

    def busy(self, doing: str) -> None:
        """Name what begins now. Printed only if it takes long."""
        self._busy = doing
        self._since = time.monotonic()

    @property
    def silent_for(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._last

    def _watch(self) -> None:
        while not self._over.wait(self._every - self.silent_for):
            if self.silent_for >= self._every:
                self.say(f"... {self._busy}, for {time.monotonic() - self._since:.0f} s")
