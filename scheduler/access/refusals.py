"""What was asked for and not done, for the audit trail: counted, in so few lines that no flood fills a disk."""

from __future__ import annotations

from typing import Any

MOST_KINDS = 500
"""Different refusals that are told apart between two turns."""
BURST = 100.0
"""Lines that may be written at once."""
PER_SECOND = 0.1
"""Lines a second that may be written for long: some 9,000 a day."""

_REST = {"user": "", "role": "", "token": "", "from": "", "verb": "several", "on": "", "outcome": "refused"}


class Refusals:
    """Counts refusals that say the same; `due` gives lines as far as the budget goes, and sums up the rest.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._kinds: dict[tuple[str, ...], list[Any]] = {}  # what it says -> [count, first, the line]
        self._rest = 0
        self._rest_since = 0.0
        self._budget = BURST
        self._filled = now

    def add(self, line: dict[str, Any], time: float, count: int = 1) -> None:
        """One more, or several. `line` as `Asking.line` has it, `time` in UTC seconds."""
        key = tuple(map(str, line.values()))
        found = self._kinds.get(key)
        if found is not None:
            found[0] += count
        elif len(self._kinds) < MOST_KINDS:
            self._kinds[key] = [count, time, line]
        else:
            self._beyond(count, time)

    def due(self, now: float) -> list[tuple[float, dict[str, Any]]]:
        """(UTC seconds of the first, line with `count`) to be written now, the oldest first; forgotten here."""
        self._budget = min(BURST, self._budget + (now - self._filled) * PER_SECOND)
        self._filled = now
        room = int(self._budget)
        if not room or not (self._kinds or self._rest):
            return []
        kinds = list(self._kinds.values())
        more = len(kinds) > room or bool(self._rest)
        written, left = (kinds[: room - 1], kinds[room - 1 :]) if more else (kinds, [])
        self._kinds = {}
        for count, first, _ in left:
            self._beyond(count, first)
        lines = [(first, {**line, "count": count}) for count, first, line in written]
        if self._rest:
            lines.append((self._rest_since, {**_REST, "count": self._rest}))
            self._rest = 0
        self._budget -= len(lines)
        return lines

    def _beyond(self, count: int, time: float) -> None:
        self._rest_since = min(self._rest_since, time) if self._rest else time
        self._rest += count
