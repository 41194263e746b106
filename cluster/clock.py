"""Time is handed in. Two clocks: the wall's, and a virtual one that jumps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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
    """Real time that nobody sets: UTC as it was read once, and the steady seconds since. `wake` ends a wait early.

    The machine's own clock may be set by hours. Time limits, pauses and leases must not care, so this one goes on as
    before until `set` says otherwise, and who says so puts right what was counted by it.

    Args:
        wall: UTC seconds as the machine shows them; read once here.
        steady: seconds of a clock that only goes on.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._woken = threading.Event()
        self.wall = wall
        self.steady = steady
        self._zero = wall() - steady()

    def now(self) -> float:
        """UTC seconds."""
        return self._zero + self.steady()

    def at(self, steady: float) -> float:
        """UTC seconds of a moment that the steady clock of this machine showed, in any of its processes."""
        return self._zero + steady

    def off(self, utc: float, steady: float) -> float:
        """How far we are behind a clock that showed `utc` when the steady one showed `steady`, in seconds."""
        return utc - self.at(steady)

    def set(self, by: float) -> None:
        """Go on from so many seconds later (or earlier)."""
        self._zero += by

    def wait(self, until: float | None) -> None:
        """Sleep until then, or until `wake`."""
        self._woken.wait(None if until is None else max(0.0, until - self.now()))
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
