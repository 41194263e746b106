"""What changes for whom when another policy decides on the same jobs: figure by figure, job by job, group by group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum

from ...jobs.job import Job
from .measured import Measured
from .metric import METRICS, Metric
from .run import Run
from .summary import Summary
from .window import FULL, Window


@dataclass(frozen=True, slots=True)
class Change:
    """A figure under two policies.

    Attributes:
        metric: which.
        before, after: its values; None = it has no meaning there.
        share: after / before - 1; None = one of them is missing, or before is 0 and after is not.
        better: whether after is better; None = they are the same, or the metric knows no better.
    """

    metric: Metric
    before: float | None
    after: float | None
    share: float | None
    better: bool | None


def changes(before: Summary, after: Summary) -> list[Change]:
    """Every figure that says something under either."""
    found = []
    for metric in METRICS:
        a, b = metric.value(before), metric.value(after)
        if metric.quiet and a in metric.quiet and b in metric.quiet:
            continue
        found.append(Change(metric, a, b, relative(a, b), _better(metric, a, b)))
    return found


def relative(before: float | None, after: float | None) -> float | None:
    """After / before - 1; 0 where both are 0, None where it cannot be told."""
    if before is None or after is None:
        return None
    if before:
        return after / before - 1
    return None if after else 0.0


def _better(metric: Metric, before: float | None, after: float | None) -> bool | None:
    if before is None or after is None or before == after or not metric.better:
        return None
    return (after > before) == (metric.better > 0)


@dataclass(frozen=True, slots=True)
class Pair:
    """One job under two policies: it started and ended under both. Times in seconds.

    Attributes:
        job: as it was under the first.
        jct, delay: completion time and queueing delay under the first and the second.
    """

    job: Job
    jct: tuple[float, float]
    delay: tuple[float, float]

    @property
    def gain(self) -> float:
        """Seconds by which it ends sooner under the second."""
        return self.jct[0] - self.jct[1]


def pairs(before: Run, after: Run, window: Window = FULL) -> tuple[list[Pair], list[Job]]:
    """Every job of the window under both, by its id, and the jobs that did not start and end under both.

    Raises:
        WindowError: a run has no such window.
    """
    first, second = Measured.of(before, window), Measured.of(after, window)
    others = {row.job.id: row for row in second.rows}
    found = [
        Pair(row.job, (row.jct, other.jct), (row.delay, other.delay))
        for row in first.rows
        if (other := others.get(row.job.id)) is not None
    ]
    paired = {pair.job.id for pair in found}
    both = {job.id: job for measured in (first, second) for job in measured.chosen}
    return found, [job for job in both.values() if job.id not in paired]


def most(found: Iterable[Pair], count: int) -> tuple[list[Pair], list[Pair]]:
    """The jobs that gain most and those that lose most under the second, most first; at most `count` of each."""
    ranked = sorted(found, key=lambda pair: (-pair.gain, pair.job.id))
    losers = [pair for pair in sorted(ranked, key=lambda pair: (pair.gain, pair.job.id)) if pair.gain < 0]
    return [pair for pair in ranked if pair.gain > 0][:count], losers[:count]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """The jobs of a user, queue or size under two policies: means in seconds, and how many gain and lose."""

    name: str
    jobs: int
    jct: tuple[float, float]
    delay: tuple[float, float]
    gain: int
    lose: int

    @property
    def share(self) -> float | None:
        """Change of the mean JCT."""
        return relative(*self.jct)


def by(found: Iterable[Pair], owner: Callable[[Job], str]) -> list[GroupChange]:
    """One group an owner, the one with the most jobs first."""
    owned: dict[str, list[Pair]] = defaultdict(list)
    for pair in found:
        owned[owner(pair.job)].append(pair)
    made = [_group(name, members) for name, members in owned.items()]
    return sorted(made, key=lambda group: (-group.jobs, group.name))


def by_size(found: Iterable[Pair]) -> list[GroupChange]:
    """One group a size class, the smallest first."""
    least: dict[str, float] = {}
    kept = list(found)
    for pair in kept:
        name = size(pair.job)
        least[name] = min(least.get(name, pair.job.shape.total_gpus), pair.job.shape.total_gpus)
    return sorted(by(kept, size), key=lambda group: least[group.name])


def _group(name: str, members: Sequence[Pair]) -> GroupChange:
    return GroupChange(
        name=name,
        jobs=len(members),
        jct=(_mean([pair.jct[0] for pair in members]), _mean([pair.jct[1] for pair in members])),
        delay=(_mean([pair.delay[0] for pair in members]), _mean([pair.delay[1] for pair in members])),
        gain=sum(pair.gain > 0 for pair in members),
        lose=sum(pair.gain < 0 for pair in members),
    )


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def size(job: Job) -> str:
    """A job's GPUs as a class: below 1, 1, 2, 3-4, 5-8, 9-16, and so on."""
    gpus = job.shape.total_gpus
    if gpus < 1:
        return "no GPU" if not gpus else "below 1 GPU"
    high = 1 << max(int(-(-gpus // 1)) - 1, 0).bit_length()
    low = high // 2 + 1
    return f"{high} GPU{'s' * (high > 1)}" if low >= high else f"{low}-{high} GPUs"
