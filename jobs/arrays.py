"""Arrays: one submission that stands for many tasks, `array: 0-99999%8`. Tasks become jobs as there is room for them.

An array is a row among the jobs that never runs itself. It takes its own number and keeps one for each task: that of
its task number i (from 0) is its own + 1 + i. So a task that is made again after a crash is the same job.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .events import Kind, Move
from .job import FINAL, State

MOST = 10_000_000
"""Tasks of one array."""
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?")

ARRAY_MOVES: dict[State, dict[Kind, Move]] = {
    State.QUEUED: {
        Kind.STARTED: Move(State.RUNNING, "the first of its tasks runs"),
        Kind.HELD: Move(State.HELD, "the user holds its waiting tasks back"),
        Kind.CANCELLED: Move(State.STOPPING, "cancelled: what runs of it is stopped"),
        Kind.SUCCEEDED: Move(State.SUCCEEDED, "every task succeeded"),
        Kind.FAILED: Move(State.FAILED, "every task ended, and not all succeeded"),
    },
    State.RUNNING: {
        Kind.HELD: Move(State.HELD, "the user holds its waiting tasks back; what runs goes on"),
        Kind.CANCELLED: Move(State.STOPPING, "cancelled: what runs of it is stopped"),
        Kind.SUCCEEDED: Move(State.SUCCEEDED, "every task succeeded"),
        Kind.FAILED: Move(State.FAILED, "every task ended, and not all succeeded"),
    },
    State.HELD: {
        Kind.RELEASED: Move(State.QUEUED, "the user released it"),
        Kind.CANCELLED: Move(State.STOPPING, "cancelled: what runs of it is stopped"),
        Kind.SUCCEEDED: Move(State.SUCCEEDED, "every task succeeded"),
        Kind.FAILED: Move(State.FAILED, "every task ended, and not all succeeded"),
    },
    State.STOPPING: {Kind.STOPPED: Move(State.CANCELLED, "no task is left, as the user asked")},
}
"""What may happen to an array; its tasks are jobs, and move by `events.MOVES`."""


class ArrayError(ValueError):
    """An array cannot be read."""


@dataclass(frozen=True, slots=True)
class Indices:
    """Which tasks there are.

    Attributes:
        ranges: (first, last, step), in the order given.
        limit: how many may be on GPUs or wait in line at once; 0 = any number.
    """

    ranges: tuple[tuple[int, int, int], ...]
    limit: int = 0

    @property
    def count(self) -> int:
        """How many tasks."""
        return sum((last - first) // step + 1 for first, last, step in self.ranges)

    def index(self, number: int) -> int:
        """The index of task number so many, from 0."""
        for first, last, step in self.ranges:
            here = (last - first) // step + 1
            if number < here:
                return first + number * step
            number -= here
        raise IndexError(number)

    def has(self, index: int) -> bool:
        """Whether a task has this index."""
        return any(first <= index <= last and (index - first) % step == 0 for first, last, step in self.ranges)


def parse_array(text: str) -> Indices:
    """`0-99`, `0-99%8`, `1,4,7`, `0-100:10`: as Slurm writes them.

    Raises:
        ArrayError: it cannot be read, an index comes twice, or there are too many.
    """
    listed, percent, limit = text.replace(" ", "").partition("%")
    if percent and not (limit.isascii() and limit.isdigit() and int(limit) > 0):
        raise ArrayError(f"{limit!r} tasks at once cannot be")
    ranges = []
    for word in listed.split(","):
        found = _RANGE.fullmatch(word)
        if found is None:
            raise ArrayError(f"{word!r} is no index and no range")
        first = int(found[1])
        last, step = int(found[2] or first), int(found[3] or 1)
        if last < first or step < 1:
            raise ArrayError(f"{word} has no index in it")
        ranges.append((first, first + (last - first) // step * step, step))
    indices = Indices(tuple(ranges), int(limit or 0))
    if indices.count > MOST:
        raise ArrayError(f"{indices.count:,} tasks are more than {MOST:,}")
    if _overlap(ranges):
        raise ArrayError("an index comes twice")
    return indices


def _overlap(ranges: list[tuple[int, int, int]]) -> bool:
    if all(first == last for first, last, _ in ranges):
        return len({first for first, _, _ in ranges}) < len(ranges)
    ordered = sorted(ranges)
    return any(later[0] <= earlier[1] for earlier, later in pairwise(ordered))


class Tasks:
    """How far an array is. Mutable, as `Job` is.

    Attributes:
        text: as the user wrote it. indices: read. made: tasks that are jobs, or were.
        states: how many of those are in each state.
    """

    __slots__ = ("indices", "made", "states", "text")

    def __init__(self, text: str, made: int = 0, states: dict[str, int] | None = None) -> None:
        self.text = text
        self.indices = parse_array(text)
        self.made = made
        self.states: Counter[State] = Counter({State(state): count for state, count in (states or {}).items()})

    @property
    def count(self) -> int:
        """Tasks in all."""
        return self.indices.count

    @property
    def live(self) -> int:
        """Tasks that are jobs and have not ended."""
        return sum(count for state, count in self.states.items() if state not in FINAL)

    def moved(self, old: State | None, new: State) -> None:
        """One task went from this state to that."""
        if old is not None:
            self.states[old] -= 1
            if not self.states[old]:
                del self.states[old]
        self.states[new] += 1

    def to_data(self) -> dict[str, Any]:
        """As JSON."""
        return {"array": self.text, "made": self.made, "states": {state.value: n for state, n in self.states.items()}}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Tasks:
        """From what `to_data` gave."""
        return cls(data["array"], data["made"], data["states"])
