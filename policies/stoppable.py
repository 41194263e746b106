"""Running jobs that may be stopped, by priority: who gives way first is found without a look at all that run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..jobs.job import Job

Cost = tuple[float, float, float, int]
"""What jobs are stopped by, the smallest first; it begins with the priority."""


class Stoppable:
    """Preemptible jobs by their priority, and those of each priority by id. Joining and leaving cost O(1)."""

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: dict[int, dict[int, Job]] = {}

    def __bool__(self) -> bool:
        return bool(self._classes)

    def add(self, job: Job) -> None:
        """It runs. One that is not preemptible is left out."""
        if job.preemptible:
            self._classes.setdefault(job.priority, {})[job.id] = job

    def discard(self, job: Job) -> None:
        """It runs no more, or was told to go."""
        alike = self._classes.get(job.priority)
        if alike is not None and alike.pop(job.id, None) is not None and not alike:
            del self._classes[job.priority]

    def any_below(self, priority: int) -> bool:
        """Whether one of a lower priority is there."""
        return any(one < priority for one in self._classes)

    def below(self, priority: int, cost: Callable[[Job], Cost]) -> Iterator[Job]:
        """Those of a lower priority, the lowest first, and in each by their cost. Looks only as far as is asked."""
        for one in sorted(self._classes):
            if one >= priority:
                return
            yield from sorted(self._classes[one].values(), key=cost)

    def all(self) -> Iterator[Job]:
        """All of them, in no order that counts."""
        for alike in self._classes.values():
            yield from alike.values()
