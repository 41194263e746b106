"""Mean and nearest-rank percentiles, as the reference results have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import fsum


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean and nearest-rank percentiles; all None when there is no value.

    Of n sorted values counted from 0, p50 is the one at n // 2, p90 at ceil(0.90 n) - 1, p99 at ceil(0.99 n) - 1.
    """

    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, values: Iterable[float]) -> Distribution:
        """The distribution of `values`, in any order."""
        ordered = sorted(values)
        n = len(ordered)
        if not n:
            return cls()
        return cls(fsum(ordered) / n, ordered[n // 2], ordered[rank(n, 90)], ordered[rank(n, 99)])


def rank(n: int, percent: int) -> int:
    """Index of the nearest-rank percentile in n sorted values: ceil(percent / 100 * n) - 1, without rounding errors."""
    return max(-(-percent * n // 100) - 1, 0)


def percentile(values: Iterable[float], percent: int) -> float | None:
    """One nearest-rank percentile of `values`; None when there is none."""
    ordered = sorted(values)
    return ordered[rank(len(ordered), percent)] if ordered else None


def mean(values: Sequence[float]) -> float | None:
    """Their mean; None when there is none."""
    return fsum(values) / len(values) if values else None


def ratio(part: float, whole: float) -> float | None:
    """A quotient; None where nothing can be divided by."""
    return part / whole if whole > 0 else None
