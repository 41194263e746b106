"""Runs that differ in their seed alone, put together: a mean and its interval for each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..report import Estimate
from .case import Case
from .grid import Point
from .row import ASKED, Row

WALL_TIME = frozenset(
    {"replay_seconds", "jobs_per_second", "decisions", "decision_p50", "decision_p99", "decisions_per_second"}
)
"""Figures of the machine rather than of the policy: they differ each time, and are shown only where asked for."""
_FACTS = frozenset({"nodes", "gpus"})
"""Of the cluster: no figures of a run."""


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one policy on one trace and cluster at one point of the grid, one for each seed.

    Attributes:
        rows: in the order of their seeds.
    """

    policy: str
    trace: str
    cluster: str
    point: Point
    rows: Sequence[Row]

    @property
    def seeds(self) -> list[int]:
        """The seeds that the group's runs were made with; none where nothing is left to chance."""
        return [row["seed"] for row in self.rows if row["seed"] is not None]

    def values(self, name: str) -> list[float]:
        """A figure of each run in which it has a meaning."""
        return [value for row in self.rows if isinstance(value := row.get(name), int | float)]

    def figure(self, name: str) -> Estimate | None:
        """The mean of a figure over the seeds and its 95 % interval."""
        return Estimate.of(self.values(name))


def grouped(rows: Mapping[Case, Row]) -> list[Group]:
    """Groups in the order of the plan."""
    found: dict[tuple[str, str, str, Point], list[Row]] = {}
    for case, row in rows.items():
        found.setdefault((case.trace, case.cluster, case.policy, case.point), []).append(row)
    return [Group(policy, trace, cluster, point, members) for (trace, cluster, policy, point), members in found.items()]


def figures_of(groups: Sequence[Group], *, timing: bool = False) -> list[str]:
    """Names of all figures that any run has, in the order of the rows; with `timing` those of wall time too."""
    left_out = ASKED | _FACTS if timing else ASKED | _FACTS | WALL_TIME
    names: dict[str, None] = {}
    for group in groups:
        for row in group.rows:
            names |= dict.fromkeys(
                name for name, value in row.items() if isinstance(value, int | float) and name not in left_out
            )
    return list(names)


def leaders(groups: Sequence[Group], name: str, better: int) -> set[int]:
    """Which of these groups, rivals at one point, is best in a figure; none where that is not clear.

    Without seeds: the best value. With seeds: the one that beats each rival in the 95 % interval of their differences
    seed by seed (a paired t test; every policy met the same arrivals and failures, which is what makes it sharp).

    Args:
        groups: on the same trace, cluster and point.
        name: the figure.
        better: -1 = lower is better, 1 = higher is.
    """
    values = {i: _by_seed(group, name) for i, group in enumerate(groups)}
    values = {i: by_seed for i, by_seed in values.items() if by_seed}
    if len(values) < 2 or not better:  # noqa: PLR2004 - one alone is not best
        return set()
    means = {i: sum(by_seed.values()) / len(by_seed) for i, by_seed in values.items()}
    top = max(means, key=lambda i: better * means[i])
    beaten = all(_beats(values[top], values[i], better) for i in values if i != top)
    return {top} if beaten else set()


def _by_seed(group: Group, name: str) -> dict[int | None, float]:
    return {row["seed"]: value for row in group.rows if isinstance(value := row.get(name), int | float)}


def _beats(one: Mapping[int | None, float], other: Mapping[int | None, float], better: int) -> bool:
    gains = [better * (one[seed] - other[seed]) for seed in one if seed in other]
    found = Estimate.of(gains)
    return found is not None and found.mean - (found.half or 0.0) > 0
