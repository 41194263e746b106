"""What the engine is asked to do, and how it answers: the protocol that inboxes keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..jobs.errors import ConflictError
from ..jobs.events import Event


class Inbox(Protocol):
    """Where requests come in: users' verbs when live, the trace's arrivals when simulated."""

    def poll(self, now: float) -> Sequence[Event]:
        """Requests due by now, oldest first. A SUBMITTED event's data is the Job. Never blocks."""
        ...

    def next_time(self) -> float | None:
        """When the next request is due, if that is known."""
        ...

    def settle(self, refused: dict[int, ConflictError]) -> None:
        """The last poll's requests are written; `refused` holds, by position in that poll, those that were not done."""
        ...
