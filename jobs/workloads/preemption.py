"""What a job does when it is asked to make room: note the request, save, and leave with a code that means "again"."""

from __future__ import annotations

import signal
from types import FrameType

from gpusched import job

REQUEUE_ME = job.REQUEUE_ME
"""Exit code for "my state is saved, start me again later"; gpusched does not count it as a failure."""


class StopRequest:
    """Knows whether SIGTERM came or gpusched has left word. Work is saved between two steps, never inside one."""

    def __init__(self) -> None:
        self._signalled = False
        signal.signal(signal.SIGTERM, self._ask)

    @property
    def asked(self) -> bool:
        """Whether to save and leave. The word reaches workers whose parent keeps the signal to itself."""
        return self._signalled or job.should_preempt()

    def _ask(self, _signal: int, _frame: FrameType | None) -> None:
        self._signalled = True
