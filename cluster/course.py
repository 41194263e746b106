"""The course of one attempt under a profile: when it works, when it saves, when it ends, and what it comes to.

    placed        begins         works                                                 ends
      |-- start-up --|-- restore --|-- work --|save|-- work --|save|-- work --|
                                                                     told to stop: |-- grace --|

Work is time in which the job gets on; it is kept once it is saved, or when the job is done; what is neither when the
attempt ends is lost. All other time is overhead: start-up, restore, pauses for checkpoints, grace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..jobs.job import Job
from .profile import NEVER


@dataclass(slots=True, eq=False)
class Course:
    """One attempt. Times are seconds on the engine's clock, lengths seconds of wall time.

    Attributes:
        job, nodes: what runs where.
        placed: when its GPUs were taken. begins: when its process runs. works: when its work begins.
        left: length of the work that is left at this rate. rate: seconds of the job's duration done in a second.
        interval: work between two checkpoints; None = saved all the time. cost: pause for each.
        ends: when the attempt is over, as things stand. exit_code: with what.
        stopped: when it was told to stop; None = it was not. saved: when it has then saved its work; None = never.
    """

    job: Job
    nodes: tuple[str, ...]
    placed: float
    begins: float
    works: float
    left: float
    rate: float
    interval: float | None
    cost: float
    ends: float = 0
    exit_code: int = 0
    stopped: float | None = None
    saved: float | None = None

    def __post_init__(self) -> None:
        # The work that ends with its last piece is done: that needs no checkpoint.
        pauses = 0
        if self.interval is not None and self.interval != NEVER and self.left > 0:
            pauses = int(-(-self.left // self.interval)) - 1
        self.ends = self.works + self.left + pauses * self.cost

    def fail(self, time: float) -> None:
        """It ends by itself at `time`, if it is not done by then."""
        if time < self.ends:
            self.ends, self.exit_code = time, 1

    def stop(self, now: float, grace: float, *, saves: bool) -> None:
        """It stops working now and is gone after the grace. What it saves first, if it can by then, is not lost."""
        self.stopped, self.ends, self.exit_code = now, now + grace, 143
        if saves and self.cost <= grace:
            self.saved = now + self.cost

    def account(self, until: float) -> dict[str, Any]:
        """What the attempt came to if it is over at `until`: wall seconds kept, lost and of overhead."""
        kept, done = self._work(until)
        account: dict[str, Any] = {"kept": kept, "lost": done - kept, "overhead": until - self.placed - done}
        if self.rate != 1:
            account["rate"] = self.rate
        return account

    def _work(self, until: float) -> tuple[float, float]:
        """Work that is kept, and work that was done."""
        if self.exit_code == 0 and until >= self.ends:
            return self.left, self.left
        span = (until if self.stopped is None else min(until, self.stopped)) - self.works
        if span <= 0:
            return 0, 0
        if self.interval is None or self.interval == NEVER:
            kept, done = (span, span) if self.interval is None else (0, span)
        else:
            whole, rest = divmod(span, self.interval + self.cost)
            kept = whole * self.interval
            done = kept + min(rest, self.interval)
        return (done, done) if self.saved is not None and until >= self.saved else (kept, done)
