"""Several seeds of one experiment: the mean of each figure and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .metric import METRICS, Metric
from .summary import Summary

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of a figure over seeds.

    Attributes:
        mean: the mean of the seeds that have the figure.
        half: half width of its 95 % confidence interval, mean ± half, by Student's t with n - 1 degrees of freedom;
            None for one seed.
        n: how many seeds have the figure.
        least, most: the extremes among them.
    """

    mean: float
    half: float | None
    n: int
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate | None:
        """The estimate from one value a seed; None when there is none."""
        sample = [float(value) for value in values]  # so that a row prints alike when it was read back
        n = len(sample)
        if not n:
            return None
        mean = math.fsum(sample) / n
        if n == 1:
            return cls(mean, None, 1, mean, mean)
        variance = math.fsum((value - mean) ** 2 for value in sample) / (n - 1)
        return cls(mean, student_t(n - 1) * math.sqrt(variance / n), n, min(sample), max(sample))


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Runs that differ in their seed alone.

    Attributes:
        label: what a column or a line of them is called, by default the policy.
        summaries: one a seed.
    """

    label: str
    summaries: tuple[Summary, ...]

    def estimate(self, metric: Metric) -> Estimate | None:
        """A metric over the seeds; None where no seed has it."""
        values = (metric.value(summary) for summary in self.summaries)
        return Estimate.of(value for value in values if value is not None)

    def text(self, metric: Metric) -> str:
        """`mean ± half`, with the number of seeds where not all of them have the figure; `-` where none has."""
        found = self.estimate(metric)
        if found is None:
            return "-"
        if found.least == found.most:
            text = metric.text(found.mean)
        else:
            text = f"{metric.text(found.mean)} ± {metric.text(found.half or 0.0)}"
        return text if found.n == len(self.summaries) else f"{text} (n = {found.n})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What any of the seeds has to say, once each."""
        return tuple(dict.fromkeys(note for summary in self.summaries for note in summary.notes))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able values: each metric by its key as mean, half width and number of seeds, or null."""
        figures: dict[str, Any] = {}
        for metric in METRICS:
            found = self.estimate(metric)
            figures[metric.key] = (
                None
                if found is None
                else {"mean": found.mean, "half": found.half, "n": found.n, "min": found.least, "max": found.most}
            )
        first = self.summaries[0]
        return {
            "label": self.label,
            "policy": first.policy,
            "trace": first.trace,
            "cluster": first.cluster,
            "window": first.window,
            "seeds": len(self.summaries),
            "confidence": CONFIDENCE,
            "figures": figures,
            "notes": list(self.notes),
        }


def combine(summaries: Sequence[Summary], *, label: str = "") -> Aggregate:
    """The aggregate of runs that differ in their seed alone.

    Raises:
        ValueError: there is no summary, or they are of different policies, clusters or windows.
    """
    if not summaries:
        raise ValueError("an aggregate needs at least one summary")
    alike = {(summary.policy, summary.cluster, summary.window) for summary in summaries}
    if len(alike) > 1:
        raise ValueError(f"an aggregate is over seeds alone; these differ in more: {sorted(alike)}")
    return Aggregate(label or summaries[0].policy, tuple(summaries))


def best_mean(metric: Metric, aggregates: Sequence[Aggregate]) -> frozenset[int]:
    """Which aggregates show the best mean of a metric; none when all show the same or it knows no better."""
    found = {i: estimate for i, aggregate in enumerate(aggregates) if (estimate := aggregate.estimate(metric))}
    texts = {i: metric.text(estimate.mean) for i, estimate in found.items()}
    if not metric.better or len(set(texts.values())) < 2:  # noqa: PLR2004 - one alone is not best
        return frozenset()
    top = (max if metric.better > 0 else min)(estimate.mean for estimate in found.values())
    return frozenset(i for i, text in texts.items() if text == metric.text(top))


@lru_cache
def student_t(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The t below whose absolute value Student's distribution has `confidence` of its mass: 12.706 for 1, 0.95.

    By bisection of the distribution's closed form for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4).
    """
    low, high = 0.0, 1.0
    while _mass_within(high, freedom) < confidence:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if _mass_within(middle, freedom) < confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _mass_within(t: float, freedom: int) -> float:
    """The probability that |T| <= t."""
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term = total = math.cos(angle) if odd else 1.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    if odd:
        return (angle + (math.sin(angle) * total if freedom > 1 else 0.0)) * 2 / math.pi
    return math.sin(angle) * total
