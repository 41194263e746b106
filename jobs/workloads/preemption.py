"""What a job does when it is asked to make room: note the request, save, and leave with a code that means "again"."""

from __future__ import annotations

import signal
from types import FrameType

REQUEUE_ME = 75
"""Exit code for "my state is saved, start me again later" (EX_TEMPFAIL); gpusched does not count it as a failure."""


class StopRequest:
    """Remembers that SIGTERM came. The handler only sets a flag: work is saved between two steps, never inside one."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        self.asked = True
