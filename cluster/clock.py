"""Time is handed in. Two clocks: the wall's, and a virtual one that jumps."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits. Times are UTC seconds (wall) or seconds from the first submission (virtual)."""

    def now(self) -> float:
        """The present, in seconds."""
        ...

    def wait(self, until: float | None) -> None:
        """Return at `until`, or earlier when something happened; None = only when something happened."""
        ...


class WallClock:
    """Real time. `wake` ends a wait early, from any thread."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def now(self) -> float:
        """UTC seconds."""
        return time.time()

    def wait(self, until: float | None) -> None:
        """Sleep until then, or until `wake`."""
        self._woken.wait(None if until is None else max(0.0, until - time.time()))
        self._woken.clear()

    def wake(self) -> None:
        """End the present wait, or the next one if none is going on."""
        self._woken.set()


class VirtualClock:
    """Simulated time: waiting is a jump."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        """Seconds on the simulation's axis."""
        return self._now

    def wait(self, until: float | None) -> None:
        """Jump to `until`; time never goes back."""
        assert until is not None, "a simulation that waits for nothing never ends"
        if until > self._now:  # noqa: PLR1730 - a replay waits millions of times, and max() costs more than the rest
            self._now = until
