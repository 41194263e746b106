"""The Gittins index of Tiresias's published simulator, from a sample of what jobs needed, in GPU-seconds.

The index of a job that has had `a` is P / E: the chance that it needs no more than `delta` beyond a, over what it is
expected to use of that allowance. The published simulator computes it once for each value of its sample and looks it
up afterwards, with the roundings of Python 2: E is cut to a whole number, P is rounded to 5 digits, P / E to 4 after
times a million.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from itertools import accumulate

DELTA = 3250
"""The allowance of the published simulator, in GPU-seconds."""


class Index:
    """Looks up the index by what a job has had.

    Args:
        sample: what jobs needed in all, whole GPU-seconds above 0; at least two.
        delta: the allowance, GPU-seconds.
    """

    def __init__(self, sample: Iterable[int], delta: int = DELTA) -> None:
        self._sample = sorted(sample)
        sums = [0, *accumulate(self._sample)]
        self._indices = [self._computed(value - 1, delta, sums) for value in self._sample]

    def of(self, attained: float) -> float:
        """The index of a job that has had so many GPU-seconds; 0 from the largest of the sample on."""
        at = bisect_right(self._sample, attained)
        return self._indices[at] if at < len(self._indices) else 0.0

    def _computed(self, attained: int, delta: int, sums: list[int]) -> float:
        number = len(self._sample)
        here = bisect_right(self._sample, attained)
        # Beyond the sample's end the simulator takes the last value for one that is not reached.
        until = attained + delta
        there = number - 1 if until > self._sample[-1] - 1 else bisect_right(self._sample, until)
        share = _rounded((there - here) / (number - here), 5)
        used = (sums[there] - sums[here] + delta * (number - there)) // (number - here)
        return _rounded(share * 1_000_000 / used, 4)


def _rounded(value: float, digits: int) -> float:
    """Rounded as Python 2 does: halves go up."""
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
