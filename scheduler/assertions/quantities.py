"""What each job has, and statistics of it: mean, median, max, and percentiles of any order.

Percentiles are nearest ranks: of n sorted values the one of rank ceil(N / 100 x n), counted from 1. `median` is number
n // 2 counted from 0, the p50 of the reports.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil, fsum
from typing import NamedTuple

from ...jobs.job import Job
from ..report.fairness import JUST_ABOVE, jain
from ..report.measures import Row, bounded_slowdown, slowdown
from .kinds import INDEX, NUMBER, SHARE, TIME, Kind
from .scene import Found, Scene, Subset, called

Values = list[tuple[float, Job]]


class Quantity(NamedTuple):
    """A figure that each job has. `values` is None where it cannot be known."""

    kind: Kind
    meaning: str
    values: Callable[[Subset], Values | None]


def _each(value: Callable[[Row], float | None]) -> Callable[[Subset], Values]:
    return lambda subset: [(found, row.job) for row in subset.rows if (found := value(row)) is not None]


def _rho(due: Callable[[Scene], Mapping[int, float] | None]) -> Callable[[Subset], Values | None]:
    def values(subset: Subset) -> Values | None:
        times = due(subset.scene)
        if times is None:
            return None
        return [(row.jct / time, row.job) for row in subset.rows if (time := times[row.job.id]) > 0 and row.jct > 0]

    return values


QUANTITIES: dict[str, Quantity] = {
    "jct": Quantity(TIME, "job completion time: end - submission", _each(lambda row: row.jct)),
    "queueing_delay": Quantity(TIME, "first start - submission", _each(lambda row: row.delay)),
    "wait": Quantity(TIME, "JCT - time holding GPUs", _each(lambda row: max(row.jct - row.held, 0.0))),
    "slowdown": Quantity(NUMBER, "JCT / run time", _each(lambda row: slowdown(row.jct, row.run_time))),
    "bounded_slowdown": Quantity(
        NUMBER, "max(1, JCT / max(run time, 10 s))", _each(lambda row: bounded_slowdown(row.jct, row.run_time))
    ),
    "rho_themis": Quantity(
        NUMBER, "JCT / time on 1/N of the cluster, N = mean active jobs", _rho(lambda scene: scene.due_themis)
    ),
    "rho_isolated": Quantity(NUMBER, "JCT / JCT under an equal static split", _rho(lambda scene: scene.due_isolated)),
    "rho_static": Quantity(NUMBER, "JCT / (run time x max(1, jobs / GPUs))", _rho(lambda scene: scene.due_static)),
}
ALIASES = {"delay": "queueing_delay"}
STATISTICS = ("mean", "median", "max", "pN")
RHO_STATISTICS = ("worst", "above_one", "jain")
"""Of a rho only: the largest, the share of jobs above 1, and Jain's index of 1/rho."""

_NAME = re.compile(r"([a-z_]+?)_(mean|median|max|worst|above_one|jain|p([0-9]{1,3}(?:\.[0-9]{1,6})?))")


class Statistic(NamedTuple):
    """A statistic of a quantity. Attributes: how: its word; order: of a percentile, as written; empty = it is none."""

    quantity: Quantity
    how: str
    order: str

    @property
    def kind(self) -> Kind:
        """What bounds of it are written in."""
        return {"above_one": SHARE, "jain": INDEX}.get(self.how, self.quantity.kind)

    @property
    def better(self) -> int:
        """Jain's index is better when it is high, all else when it is low."""
        return 1 if self.how == "jain" else -1

    def find(self, subset: Subset) -> Found:
        """Its value over some jobs, and the job that has the largest."""
        values = self.quantity.values(subset)
        if values is None:
            return Found(None, "not every job of the run ran to its end, so it is not known")
        if not values:
            return Found(None, subset.nobody())
        ranked = sorted(values, key=lambda pair: (pair[0], pair[1].id))
        worst = called(ranked[-1][1])
        numbers = [value for value, _ in ranked]
        if self.how == "mean":
            return Found(fsum(numbers) / len(numbers), f"worst {worst}")
        if self.how == "above_one":
            return Found(sum([value > JUST_ABOVE for value in numbers]) / len(numbers), f"worst {worst}")
        if self.how == "jain":
            return Found(jain(1 / value for value in numbers), f"worst {worst}")
        value, job = ranked[self._at(len(ranked))]
        here = called(job)
        return Found(value, here if here == worst else f"{here}; worst {worst}")

    def _at(self, count: int) -> int:
        if self.order:
            return nearest_rank(count, self.order)
        return count // 2 if self.how == "median" else count - 1


def nearest_rank(count: int, order: str) -> int:
    """Index of the percentile `order` (a decimal number above 0 to 100) among so many sorted values, exactly."""
    return max(ceil(Fraction(order) * count / 100) - 1, 0)


def statistic(name: str) -> Statistic | None:
    """The statistic that a metric's name means; None = it means none."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    of, how, order = ALIASES.get(found[1], found[1]), found[2], found[3] or ""
    if of not in QUANTITIES or (how in RHO_STATISTICS and not of.startswith("rho_")):
        return None
    if order and not 0 < Fraction(order) <= 100:  # noqa: PLR2004 - per cent
        return None
    return Statistic(QUANTITIES[of], how, order)


def names() -> Sequence[str]:
    """The quantities, each with what may follow."""
    return [f"{name}_{{{','.join(STATISTICS)}}}" for name in QUANTITIES]
