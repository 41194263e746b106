"""The Gittins index over the service that jobs need: who is likely to end soon, for what it would cost to find out.

For a job that has attained W and a further allowance D, with S drawn from what jobs needed in the past,

    rank(W, D) = P(S - W <= D | S > W) / E[min(S - W, D) | S > W].

The index is the supremum over D (Gittins 1979; "2D-Gittins" of Tiresias, NSDI 2019, is the same over GPU time), or, as
in the original's code, the rank for one D. Prefix sums over the sorted sample make one rank O(log n).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from ..jobs.errors import PolicyError
from ..jobs.job import FINAL, Job

FEWEST = 10
"""Jobs that must have ended before their service says anything: with fewer all ranks are 0."""


class Distribution:
    """The service that jobs needed, as a sample.

    Args:
        sample: GPU-seconds (or seconds), in any order.
    """

    def __init__(self, sample: Iterable[float]) -> None:
        self._sorted = sorted(sample)
        self._sums = [0.0]
        for value in self._sorted:
            self._sums.append(self._sums[-1] + value)
        self._after: list[int] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def rank(self, attained: float, allowance: float) -> float:
        """Rank for one D; 0 for a job that has attained more than any before. O(log n)."""
        first = bisect_right(self._sorted, attained)
        left = len(self._sorted) - first
        if not left:
            return 0.0
        ending = bisect_right(self._sorted, attained + allowance, lo=first) - first
        spent = self._sums[first + ending] - self._sums[first] - ending * attained + (left - ending) * allowance
        return ending / spent if spent else math.inf

    def index(self, attained: float) -> float:
        """The supremum of rank(W, D) over D; 0 for a job that has attained more than any before.

        D need only be such that a job of the sample ends just then. With F(k) = E[min(S, s_k)] x n, the rank of
        ending at the k-th is the slope from (F at W, jobs ended by W) to (F(k), k). So the best k is the next corner
        of the concave majorant; the corners are found once. O(log n) and the corners passed, few as they are.
        """
        first = bisect_right(self._sorted, attained)
        size = len(self._sorted)
        if first == size:
            return 0.0
        if not self._after:
            self._find_corners()
        here = self._sums[first] + (size - first) * attained

        def slope(k: int) -> float:
            run = self._upto(k) - here
            return (k - first) / run if run > 0 else math.inf

        best = first + 1
        while best < size and slope(self._after[best]) >= slope(best):
            best = self._after[best]
        return slope(best)

    def _upto(self, k: int) -> float:
        """F(k): what all jobs of the sample had attained when each had had at most as much as the k-th needs."""
        return self._sums[k] + (len(self._sorted) - k) * self._sorted[k - 1] if k else 0.0

    def _find_corners(self) -> None:
        """For each k the next corner of the concave majorant of the points from k on."""
        size = len(self._sorted)
        after = [size] * (size + 1)
        corners = [size]
        for k in range(size - 1, 0, -1):
            while len(corners) > 1 and not self._bends(k, corners[-1], corners[-2]):
                corners.pop()
            after[k] = corners[-1]
            corners.append(k)
        self._after = after

    def _bends(self, left: int, middle: int, right: int) -> bool:
        """Whether the middle point lies above the line between the others."""
        x, y, z = self._upto(left), self._upto(middle), self._upto(right)
        return (middle - left) * (z - y) > (right - middle) * (y - x)


class Gittins:
    """How jobs are ranked by what they have attained.

    Args:
        allowance: D, in the unit of attained service; infinity = the supremum over all D.
        step: a running job is ranked anew when it has attained so much, and each time that has doubled.
        sample: what jobs needed, if that is known; left out: what the jobs that ended needed, learnt as it goes.

    Raises:
        PolicyError: an allowance or a step that is not above 0.
    """

    def __init__(self, allowance: float = math.inf, *, step: float, sample: Sequence[float] = ()) -> None:
        if allowance <= 0 or step <= 0:
            raise PolicyError(
                f"the allowance and the step of a Gittins index are above 0, not {allowance:g} and {step:g}"
            )
        self.allowance = allowance
        self.step = step
        self.sample = sample

    def passed(self, attained: float) -> float:
        """The last step that was passed."""
        return self.next(attained) / 2 if attained >= self.step else 0.0

    def rank(self, of: Distribution, attained: float) -> float:
        """The rank of a job that has attained so much."""
        return of.index(attained) if math.isinf(self.allowance) else of.rank(attained, self.allowance)

    def next(self, attained: float) -> float:
        """The attained service at which it is ranked anew."""
        return self.step * 2.0 ** max(math.floor(math.log2(max(attained / self.step, 0.5))) + 1, 0)


class Served:
    """A book of what ended jobs have had in all, and the rank of those that go on.

    The distribution is made anew whenever a tenth more jobs have ended, so a job that ends costs O(log n).
    """

    def __init__(self, gittins: Gittins, *, by_gpus: bool = True) -> None:
        self._gittins = gittins
        self._by_gpus = by_gpus
        self._learns = not gittins.sample
        self._sample = list(gittins.sample)
        self._distribution = Distribution(self._sample)
        self._kept: dict[int, tuple[Job, float, float]] = {}

    def rank(self, job: Job, attained: float) -> float:
        """The rank of a job that has attained so much: made when it passes a step, and kept until it passes the next.

        Else a job could be behind one that waits as soon as it is placed, for what was learnt while both waited.
        """
        passed = self._gittins.passed(attained)
        kept = self._kept.get(job.id)
        if kept is None or kept[0] is not job or kept[1] != passed:
            kept = self._kept[job.id] = (job, passed, self._made(passed))
        return kept[2]

    def _made(self, attained: float) -> float:
        if self._learns and len(self._distribution) < FEWEST:
            return 0.0
        return self._gittins.rank(self._distribution, attained)

    def started(self, job: Job) -> None:
        """Nothing is learnt from a start."""

    def ended(self, job: Job, time: float) -> None:  # noqa: ARG002 - a Book's
        """A job that is over, however it ended, has had all that it will."""
        gpus = job.shape.total_gpus
        if job.state not in FINAL:
            return
        self._kept.pop(job.id, None)
        if not self._learns or not gpus:
            return
        self._sample.append(job.gpu_seconds if self._by_gpus else job.gpu_seconds / gpus)
        if len(self._sample) * 10 >= len(self._distribution) * 11:
            self._distribution = Distribution(self._sample)
