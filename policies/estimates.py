"""How long a job will run: what its user says, its time limit, or what the user's jobs ran before."""

from __future__ import annotations

import math
from collections import deque

from ..jobs.job import FINAL, Job, State

LAST = 10
"""Runs of a user that are remembered."""
QUANTILE = 0.9
"""Which of them is taken as the next one's: long rather than short, so that promises hold."""


class Estimates:
    """Seconds that an attempt holds its GPUs, as far as can be said before it ends. A book of the queue.

    The first that is known of: `estimated_duration`, less what earlier attempts did and need not repeat, and never more
    than the time limit; `max_duration`, which nothing outlasts; a quantile of the user's last runs, made when it is
    first asked for and kept for the job; nothing, which is infinite.

    Args:
        last: how many runs of a user are remembered. quantile: which of them counts, by nearest rank; 1 = the longest.
    """

    def __init__(self, last: int = LAST, quantile: float = QUANTILE) -> None:
        self._last = last
        self._quantile = quantile
        self._runs: dict[str, deque[float]] = {}
        self._said: dict[int, float] = {}

    def length(self, job: Job) -> float:
        """Seconds from a start until the end; infinite when nothing is known."""
        limit = job.limit
        if job.estimate is None:
            return self._from_history(job) if limit is None else limit
        left = job.estimate - job.executed
        if limit is not None and limit < left:
            return limit
        return max(left, 0.0)

    def _from_history(self, job: Job) -> float:
        said = self._said.get(job.id)
        if said is None:
            runs = self._runs.get(job.user) if job.user else None
            if not runs:
                return math.inf
            ranked = sorted(runs)
            said = self._said[job.id] = ranked[math.ceil(self._quantile * len(ranked)) - 1]
        return max(said - job.executed, 0.0)

    def started(self, job: Job) -> None:
        """Nothing is learnt from a start."""

    def ended(self, job: Job, time: float) -> None:
        """A run that came to its own end is one to go by; what was cancelled, lost or preempted says nothing."""
        if job.state in FINAL:
            self._said.pop(job.id, None)
            if job.user and job.state in {State.SUCCEEDED, State.FAILED, State.TIMEOUT}:
                runs = self._runs.setdefault(job.user, deque(maxlen=self._last))
                runs.append(time - job.placed + job.executed)
