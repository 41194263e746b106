"""Assertions and all that they are about, read and ready to be run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...cluster.backend import Node
from ...cluster.profile import Profile
from ...jobs.job import Job
from ...jobs.traces.trace import Trace
from ...policies.tree import Tree
from ..report import Window
from .metrics import Measure


@dataclass(frozen=True, slots=True)
class Bound:
    """What a metric is held against.

    Attributes:
        word: below, at_most, above, at_least, at_most_worse or at_least_better.
        number: in seconds, GPU-seconds, or as a share; of the last two words a share of the other policy's value.
        than: the policy that it is compared with; empty = none.
    """

    word: str
    number: float
    than: str = ""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs an assertion is about. Attributes: queues: their names, of `queue` and those below it; gpus: the least
    and the most of a job, None = any.
    """  # noqa: D205 - one sentence

    queue: str | None = None
    queues: frozenset[str] = frozenset()
    user: str | None = None
    gpus: tuple[int, int | None] | None = None

    def fits(self, job: Job) -> bool:
        """Whether a job is among them."""
        if self.queue is not None and job.queue not in self.queues:
            return False
        if self.user is not None and job.user != self.user:
            return False
        if self.gpus is None:
            return True
        low, high = self.gpus
        return low <= job.shape.total_gpus and (high is None or job.shape.total_gpus <= high)

    def __str__(self) -> str:
        """In words; empty = all jobs."""
        parts = [f"queue {self.queue}"] if self.queue is not None else []
        parts += [f"user {self.user}"] if self.user is not None else []
        if self.gpus is not None:
            low, high = self.gpus
            parts.append(f"{low}+ GPUs" if high is None else f"{low} GPUs" if low == high else f"{low}-{high} GPUs")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Assertion:
    """One assertion. Attributes: name: as the file has it, else in words; policies: those that it is about;
    line: where it stands in the file.
    """  # noqa: D205 - one sentence

    name: str
    measure: Measure
    bounds: tuple[Bound, ...]
    selection: Selection
    window: Window
    policies: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Suite:
    """A file of assertions.

    Attributes:
        file: as the user named it.
        trace: its name for people. traces: the trace of a seed; the same one for all unless it is made up.
        policies: names that `load` takes, those that are only compared with included.
        seeds: of the runs; an assertion has to hold in each.
    """

    file: str
    trace: str
    traces: Callable[[int], Trace]
    nodes: Sequence[Node]
    policies: tuple[str, ...]
    assertions: tuple[Assertion, ...]
    seeds: tuple[int, ...] = (0,)
    estimates: str = "exact"
    profile: Profile | None = None
    tree: Tree | None = None
