"""A run as assertions look at it: measured once a window, and cut down to the jobs that each is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from ...jobs.job import Job
from ..report import Run, Summary, Window, summarize
from ..report.fairness import asking, due_isolated
from ..report.measured import Measured
from ..report.measures import Row


class Found(NamedTuple):
    """A measured value. None = there is nothing to measure, and `who` says why; else `who` is to blame for it."""

    value: float | None
    who: str = ""


class Scene:
    """A run in a window.

    Args:
        run: what it left behind.
        window: which of its jobs are measured.
        bounded: adds lower bounds to a summary; asked only if an assertion is about them.

    Raises:
        WindowError: the run has no such window.
    """

    def __init__(self, run: Run, window: Window, bounded: Callable[[Summary, Run], Summary]) -> None:
        self.run = run
        self.measured = Measured.of(run, window)
        self.gpus = sum(node.gpus for node in run.cluster)
        self._bounded = bounded

    @cached_property
    def summary(self) -> Summary:
        """The figures of the whole cluster."""
        return summarize(self.run, self.measured.window, isolated=False)

    @cached_property
    def bounded(self) -> Summary:
        """The same with lower bounds."""
        return self._bounded(self.summary, self.run)

    @cached_property
    def due_themis(self) -> Mapping[int, float]:
        """Time on 1/N of the cluster, by job id."""
        pairs = zip(self.measured.rows, self.measured.due, strict=True)
        return {row.job.id: due for row, due in pairs}

    @cached_property
    def due_isolated(self) -> Mapping[int, float] | None:
        """JCT under an equal static split, by job id; None = not every job ran to its end."""
        ran = {number: account.run_time for number, account in self.measured.books.items()}
        return due_isolated(self.run.jobs, ran, self.gpus)

    @cached_property
    def due_static(self) -> Mapping[int, float]:
        """Run time x max(1, jobs / GPUs), by job id."""
        crowd = max(1.0, sum(1 for _ in asking(self.run.jobs)) / self.gpus) if self.gpus else 1.0
        return {row.job.id: row.run_time * crowd for row in self.measured.rows}


@dataclass(frozen=True, slots=True)
class Subset:
    """The jobs that one assertion is about. Attributes: jobs: of the window; rows: those that started and ended."""

    scene: Scene
    jobs: Sequence[Job]
    rows: Sequence[Row]

    @classmethod
    def of(cls, scene: Scene, fits: Callable[[Job], bool]) -> Subset:
        """The jobs of a scene that fit."""
        measured = scene.measured
        return cls(
            scene, [job for job in measured.chosen if fits(job)], [row for row in measured.rows if fits(row.job)]
        )

    def nobody(self) -> str:
        """Why nothing can be measured."""
        if self.jobs:
            return f"none of its {len(self.jobs):,} jobs started and ended"
        return "there is no such job in the window"


def called(job: Job) -> str:
    """A job as a message names it."""
    name = job.name or f"job {job.id}"
    return f"{name} of {job.user}" if job.user else name
