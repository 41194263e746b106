"""Least attained service: who has had the least goes first. Nothing has to be known of run times.

Attained service is what a job's attempts have held so far: seconds (LAS) or GPU-seconds (2D-LAS), from placement to
release, with start-up and with work that was lost later. A job without GPUs attains nothing.

Plain least attained service would make jobs change places all the time; so all of these compare it in levels, as
Tiresias does (Gu et al., "Tiresias: A GPU Cluster Manager for Distributed Deep Learning", NSDI 2019): a job enters at
level 0 and goes down one when it crosses the next limit. Within a level, jobs that have run before go first, by their
first start, then those that have not, by arrival. The times of the crossings are known as soon as a job is placed, so
it takes no ticks: the engine is asked to wake up for each.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from ..jobs.errors import PolicyError
from ..jobs.job import FINAL, HOLDING, Job
from .gittins import Gittins, Served
from .order import Changing
from .queue import Book
from .timed import Until

GRAIN = 1e-3
"""Seconds of running by which a limit may be missed and still counts as reached: times are floats."""

PROMOTIONS = "promotions"
SERVED = "served"


class LeastAttained(Changing):
    """The least attained service first, in levels.

    Args:
        limits: attained service at which a job goes down a level, rising. Above 0.
        step: in place of limits: a level is so much service, without end.
        by_gpus: attained service is GPU time; else it is wall time.
        promote: a job that was demoted and has waited, since it last ran, `promote` times as long as it has executed
            since it was last at the top, goes back to the top and its count starts anew. 0 = none ever does.
        gittins: ranks jobs within a level, the highest first; None = no ranks.

    Raises:
        PolicyError: the limits do not rise, or something is negative.
    """

    def __init__(
        self,
        *,
        limits: Sequence[float] = (),
        step: float = 0.0,
        by_gpus: bool = True,
        promote: float = 0.0,
        gittins: Gittins | None = None,
    ) -> None:
        if any(low >= high for low, high in zip((0.0, *limits), limits, strict=False)):
            raise PolicyError(f"limits of attained service have to rise, from above 0: {', '.join(map(str, limits))}")
        if step < 0 or promote < 0 or bool(step) == bool(limits):
            raise PolicyError("give either limits or a step of attained service, and nothing below 0")
        self._limits = list(limits)
        self._step = step
        self._by_gpus = by_gpus
        self._promote = promote
        self._gittins = gittins

    def books(self) -> Mapping[str, Book]:
        """Who was promoted, and what ended jobs have had in all; as far as it matters."""
        books: dict[str, Book] = {}
        if self._promote:
            books[PROMOTIONS] = Promotions(self)
        if self._gittins is not None:
            books[SERVED] = Served(self._gittins)
        return books

    def attained(self, job: Job, now: float, books: Mapping[str, Book]) -> float:
        """What counts of a job now: seconds or GPU-seconds."""
        gpus = job.shape.total_gpus
        held = job.gpu_seconds
        if job.state in HOLDING:
            held += gpus * (now - job.placed)
        promotions = books.get(PROMOTIONS)
        if isinstance(promotions, Promotions):
            held -= promotions.before(job)
        return held if self._by_gpus else held / gpus if gpus else 0.0

    def key_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:
        """Its level; its rank in it; when it first ran or else came."""
        attained = self.attained(job, now, books)
        reached = attained + GRAIN * self._pace(job)
        level, until = self._level(reached), math.inf
        if level and self._promote:
            until = self._promoted_at(job, attained)
            if until <= now:
                reached, level, until = 0.0, 0, math.inf
        return (level, *self._inside(job, reached, books)), until

    def inner_at(self, job: Job, now: float, books: Mapping[str, Book]) -> Until:
        """The same while it runs, until the next limit or the next rank."""
        pace = self._pace(job)
        attained = self.attained(job, now, books)
        reached = attained + GRAIN * pace
        level = self._level(reached)
        following = self._limit(level)
        if self._gittins is not None:
            following = min(following, self._gittins.next(reached))
        return (level, *self._inside(job, reached, books)), now + (following - attained) / pace if pace else math.inf

    def was_promoted(self, job: Job, held: float) -> bool:
        """Whether a job that is placed now had waited long enough to go back to the top; it had `held` GPU-seconds."""
        gpus = job.shape.total_gpus
        attained = held if self._by_gpus or not gpus else held / gpus
        low = self._level(attained + GRAIN * self._pace(job)) > 0
        return low and self._promoted_at(job, attained) <= job.placed

    def _promoted_at(self, job: Job, attained: float) -> float:
        return job.queued + self._promote * attained / self._pace(job)

    def _pace(self, job: Job) -> float:
        """How much a second of running counts."""
        gpus = job.shape.total_gpus
        return gpus if self._by_gpus else min(gpus, 1.0) and 1.0

    def _inside(self, job: Job, attained: float, books: Mapping[str, Book]) -> tuple[float, bool, float]:
        """What orders jobs of one level."""
        served = books.get(SERVED)
        rank = served.rank(job, attained) if isinstance(served, Served) else 0.0
        if job.first_start is None:
            # A job in the queue has not run; one that is being placed has: it keeps its place while others come.
            return -rank, True, job.submitted
        return -rank, False, job.first_start

    def _level(self, attained: float) -> int:
        return int(attained // self._step) if self._step else bisect_right(self._limits, attained)

    def _limit(self, level: int) -> float:
        """Attained service at which a level ends."""
        if self._step:
            return (level + 1) * self._step
        return self._limits[level] if level < len(self._limits) else math.inf


class Promotions:
    """A book of what jobs had attained before they last went back to the top."""

    def __init__(self, order: LeastAttained) -> None:
        self._order = order
        self._before: dict[int, float] = {}

    def before(self, job: Job) -> float:
        """GPU-seconds that count no more."""
        return self._before.get(job.id, 0.0)

    def started(self, job: Job) -> None:
        """If it had waited long enough by now, it was promoted."""
        held = job.gpu_seconds - self.before(job)
        if self._order.was_promoted(job, held):
            self._before[job.id] = job.gpu_seconds

    def ended(self, job: Job, time: float) -> None:  # noqa: ARG002 - a Book's
        """What is over needs no count."""
        if job.state in FINAL:
            self._before.pop(job.id, None)
