"""Quasi-shortest service first (QSSF): the shortest first, by what the history of like jobs says.

Source: Hu et al., "Characterization and Prediction of Deep Learning Workloads in Large-Scale GPU Datacenters", SC 2021
(Helios). The key is predicted run time x GPUs. The prediction is the rolling estimate of that work: the mean of the
runs of the same user's jobs with a like name and as many GPUs, newer runs counting more; for a new name the mean of the
user's jobs with as many GPUs; for a new user that of all jobs with as many; before there is any, that of all jobs, so
that the smallest gang goes first. The learned model that the original mixes in is left out: this is the part of its
predictor that needs no training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..jobs.job import FINAL, Job
from .order import Changing
from .queue import Book
from .timed import Until

HISTORY = "history"
NEWEST = 0.2
"""Weight of the newest run in a mean: about the last ten runs count."""

_NUMBERS = re.compile(r"\b(?=[a-f]*[0-9])[0-9a-f]{6,}\b|[0-9]+")
"""Numbers, and what looks like a hash."""


def stem(name: str) -> str:
    """What the names of like jobs have in common: `train-resnet50-lr0.1-007` is like `train-resnet50-lr0.2-12`."""
    return _NUMBERS.sub("#", name.lower())


class History:
    """A book of how long jobs ran, by user, like name and GPUs. A job that ends, and a question, cost O(1).

    Args:
        newest: weight of the newest run in a mean, above 0 and at most 1; the first runs count alike.
    """

    def __init__(self, newest: float = NEWEST) -> None:
        self._newest = newest
        self._means: dict[tuple[object, ...], tuple[int, float]] = {}

    def predicted(self, job: Job) -> float:
        """Seconds that a job will run in all; 1 when nothing has ended yet, which leaves its size to decide."""
        for like in _likes(job):
            found = self._means.get(like)
            if found is not None:
                return found[1]
        return 1.0

    def started(self, job: Job) -> None:
        """Nothing is learnt from a start."""

    def ended(self, job: Job, time: float) -> None:
        """A job that is over, however it ended, ran as long as its work of all attempts."""
        if job.state not in FINAL:
            return
        ran = job.executed + time - job.placed
        for like in _likes(job):
            runs, mean = self._means.get(like, (0, 0.0))
            self._means[like] = (runs + 1, mean + (ran - mean) * max(self._newest, 1 / (runs + 1)))


def _likes(job: Job) -> tuple[tuple[object, ...], ...]:
    """What is like a job, the most alike first."""
    gpus = job.shape.total_gpus
    return (job.user, stem(job.name), gpus), (job.user, gpus), (gpus,), ()


class Predicted(Changing):
    """The least predicted run time x GPUs first. A job keeps the prediction that is made when it joins the queue.

    A job that had run before counts with what is left of it; one without GPUs by its run time.
    """

    def books(self) -> Mapping[str, Book]:
        """How long jobs ran."""
        return {HISTORY: History()}

    def key_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:  # noqa: ARG002 - it holds as long as the job waits
        """Its predicted GPU time, and when it came."""
        history = books.get(HISTORY)
        runs = history.predicted(job) if isinstance(history, History) else 1.0
        return (max(runs - job.executed, 0.0) * (job.shape.total_gpus or 1.0), job.submitted), math.inf
