"""Handing runs to whoever makes them: this machine's processes here, a Ray cluster in `ray_side.py`."""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait
from typing import Protocol

from .case import Setup
from .child import Child
from .work import Made, Task

TRIES = 2
"""Processes that may die of one run before it counts as failed."""


class Makers(Protocol):
    """Whoever makes runs. Closing it ends every process that it started."""

    def room(self) -> int:
        """How many more tasks it would take now."""
        ...

    def give(self, task: Task) -> None:
        """Have this run made."""
        ...

    def receive(self, within: float) -> list[Made]:
        """Runs that were made; waits for the first one for so many seconds."""
        ...

    def close(self) -> None:
        """End it."""
        ...


def spread(tasks: Iterable[Task], makers: Makers, made: Callable[[Made], None]) -> None:
    """Have all tasks made, in their order as far as there is room, and hand on each as it comes, in any order."""
    waiting = deque(tasks)
    out = 0
    while waiting or out:
        while waiting and makers.room() > 0:
            makers.give(waiting.popleft())
            out += 1
        for one in makers.receive(within=1.0):
            out -= 1
            made(one)


class Processes:
    """Makes runs in processes of this machine, one at a time in each.

    A process that dies takes nothing down: another one takes its place and its run.

    Args:
        setup: what the runs share.
        count: processes at most; they are started as they are needed.
    """

    def __init__(self, setup: Setup, count: int) -> None:
        self._setup = setup
        self._count = count
        self._idle: list[Child] = []
        self._busy: dict[Child, Task] = {}
        self._deaths: Counter[int] = Counter()

    def room(self) -> int:
        """See Makers."""
        return self._count - len(self._busy)

    def give(self, task: Task) -> None:
        """See Makers."""
        child = self._idle.pop() if self._idle else self._started()
        self._busy[child] = task
        child.give(task)

    def receive(self, within: float) -> list[Made]:
        """See Makers."""
        lines = {child.line: child for child in self._busy}
        made: list[Made] = []
        for line in wait(list(lines), timeout=within):
            child = lines[line]  # type: ignore[index]  # only lines went in
            task = self._busy.pop(child)
            try:
                made.append(child.line.recv())
                self._idle.append(child)
            except (EOFError, OSError):
                made += self._died(task, child.end())
        return made

    def close(self) -> None:
        """See Makers."""
        for child in [*self._idle, *self._busy]:
            child.kill()
        self._idle, self._busy = [], {}

    def _started(self) -> Child:
        child = Child("worker")
        child.give(self._setup)
        return child

    def _died(self, task: Task, code: int) -> list[Made]:
        self._deaths[task.number] += 1
        if self._deaths[task.number] < TRIES:
            self.give(task)
            return []
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        more = "; out of memory? Run fewer at a time with --processes" if code == -signal.SIGKILL else ""
        return [Made(task.number, task.key, failure=f"the process that made it ended {how}, {TRIES} times{more}")]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
