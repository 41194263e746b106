"""What each account has used, older use counting less: the past that Slurm's fair share weighs.

Usage decays with a half-life (7 days in Slurm): GPU time of one half-life ago counts half. Jobs that run count for
what they have held so far. Everything is exact for any moment, without ticks; an event or a question costs O(1).
"""

from __future__ import annotations

import math

from ..jobs.job import Job

WEEK = 7 * 86400.0

Account = tuple[str, str]
"""(queue, user)."""


class _Line:
    """One account: `past` GPU-seconds of ended attempts, as they count at `at`; what runs as two sums.

    A running gang of g GPUs placed at p has used g (h / ln 2) (1 - 2^(-(t - p) / h)) at t, for the half-life h. So
    `gpus` (the sum of g) and `early` (the sum of g 2^(-(at - p) / h)) say all of what runs.
    """

    __slots__ = ("at", "early", "gpus", "jobs", "past")

    def __init__(self, at: float) -> None:
        self.at = at
        self.past = 0.0
        self.gpus = 0.0
        self.early = 0.0
        self.jobs = 0


class DecayedUsage:
    """A book of the GPU-seconds that each account has used.

    Args:
        half_life: seconds; infinity = nothing is ever forgotten.
    """

    def __init__(self, half_life: float = WEEK) -> None:
        self.half_life = half_life
        self._lines: dict[Account, _Line] = {}

    def started(self, job: Job) -> None:
        """It uses its GPUs from `job.placed` on."""
        line = self._line((job.queue, job.user), job.placed)
        gpus = job.shape.total_gpus
        line.jobs += 1
        line.gpus += gpus
        line.early += gpus * self._weight(line.at - job.placed)

    def ended(self, job: Job, time: float) -> None:
        """What it used is of the past."""
        line = self._line((job.queue, job.user), time)
        gpus = job.shape.total_gpus
        line.jobs -= 1
        line.gpus -= gpus
        line.early -= gpus * self._weight(line.at - job.placed)
        if not line.jobs:
            line.gpus = line.early = 0.0  # what rounding left of it is nobody's
        line.past += gpus * self._used(line.at - job.placed)

    def of(self, account: Account, now: float) -> float:
        """GPU-seconds that count at this moment."""
        line = self._lines.get(account)
        if line is None:
            return 0.0
        if math.isinf(self.half_life):
            return line.past + line.gpus * (now - line.at) + line.early
        fade = self._weight(now - line.at)
        return line.past * fade + (self.half_life / math.log(2)) * (line.gpus - line.early * fade)

    def accounts(self) -> list[Account]:
        """All that ever used anything."""
        return list(self._lines)

    def _line(self, account: Account, now: float) -> _Line:
        """The account's line, brought up to this moment; news that comes late changes nothing before it."""
        line = self._lines.get(account)
        if line is None:
            line = self._lines[account] = _Line(now)
        if now > line.at:
            if math.isinf(self.half_life):
                line.early += line.gpus * (now - line.at)
            else:
                fade = self._weight(now - line.at)
                line.past *= fade
                line.early *= fade
            line.at = now
        return line

    def _weight(self, age: float) -> float:
        """What a GPU-second of so long ago counts; without a half-life, the seconds themselves (see `of`)."""
        return age if math.isinf(self.half_life) else math.exp2(-age / self.half_life)

    def _used(self, lasted: float) -> float:
        """Seconds of a run that has just ended, as they count now."""
        if math.isinf(self.half_life):
            return lasted
        return (self.half_life / math.log(2)) * (1 - math.exp2(-lasted / self.half_life))
