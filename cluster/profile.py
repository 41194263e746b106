"""What a simulated cluster costs and how it fails, as a value; `read_profile` reads it from a YAML file.

Nothing is charged by default: with `ZERO` a replay gives textbook results. docs/profile.md says what each number means.
Times are seconds; numbers that differ by the size of a gang are `Sized`. Rates are seconds of a job's duration that are
done in a second of running: 1 is the speed that the trace was recorded at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..jobs.errors import Problem, SpecError
from ..jobs.job import RetryRule, Shape
from .backend import Node

Steps = tuple[tuple[float, float], ...]
Sized = float | Steps
"""One number for all gangs, or steps (from so many GPUs on, the number), rising; below the first step it is not set."""

NEVER = math.inf
"""The checkpoint interval of jobs that take none of themselves: an attempt that is not asked to save loses all."""

DEFAULT_RATE = "default"
"""Among the rates by GPU type: that of all types without one of their own."""


def at(sized: Sized, size: float, unset: Any = 0) -> Any:  # noqa: ANN401 - a number, or what the caller gives for "not set"
    """The number for a gang of so many GPUs (or nodes, or racks); `unset` below the first step."""
    if not isinstance(sized, tuple):
        return sized
    value = unset
    for least, number in sized:
        if size < least:
            break
        value = number
    return value


class Place(NamedTuple):
    """Where a key stands in its file, from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """How jobs save their work while they run.

    Attributes:
        interval: seconds of work from one checkpoint to the next; None = all the time, so that nothing is ever lost;
            NEVER = none but the one before a stop.
        cost: seconds that the work pauses for each.
        before_stop: whether a job that is told to stop takes one first. It counts if it is done within the grace.
    """

    interval: Sized | None = None
    cost: Sized = 0
    before_stop: bool = False


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast jobs run where. A gang runs at the rate of its slowest piece, times the factors of its spread.

    Attributes:
        by_type: rate by GPU type, letter case aside; empty = 1 on every type. `DEFAULT_RATE` stands for types that are
            not named.
        by_nodes: factor for a gang on so many nodes or more; 1 below the first.
        by_racks: the same by racks.
    """

    by_type: Mapping[str, float] = field(default_factory=dict)
    by_nodes: Steps = ()
    by_racks: Steps = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_type", {kind.lower(): rate for kind, rate in self.by_type.items()})

    def of_type(self, gpu_type: str) -> float:
        """The rate on GPUs of a type.

        Raises:
            KeyError: there is none, and no default.
        """
        if not self.by_type:
            return 1
        found = self.by_type.get(gpu_type.lower())
        return self.by_type[DEFAULT_RATE] if found is None else found


@dataclass(frozen=True, slots=True)
class NodeLife:
    """How long a node stays up on average (exponential; None = for ever), and how long its repair takes; seconds."""

    mtbf: float | None = None
    repair: float = 0


@dataclass(frozen=True, slots=True)
class Failures:
    """What goes wrong without anybody's asking.

    Attributes:
        nodes: the life of a node; nodes_by_type: of nodes with GPUs of a type, where it is another.
        mtbf: running time between two failures of a job on average (exponential), in seconds; None = none.
        probability: that an attempt fails, at a moment of its run that is as likely as any other.
        retries: how often a job is tried again after failures of its own and losses of its nodes together.
    """

    nodes: NodeLife = NodeLife()
    nodes_by_type: Mapping[str, NodeLife] = field(default_factory=dict)
    mtbf: Sized | None = None
    probability: Sized = 0
    retries: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes_by_type", {kind.lower(): life for kind, life in self.nodes_by_type.items()})

    def life(self, node: Node) -> NodeLife:
        """How long this node stays up and down."""
        return self.nodes_by_type.get(node.gpu_type.lower(), self.nodes)


@dataclass(frozen=True, slots=True)
class Overruns:
    """Jobs that need `factor` times the duration that the trace and the estimates tell of, with this probability."""

    probability: float = 0
    factor: float = 1


@dataclass(frozen=True, slots=True)
class Profile:
    """All costs and faults of a simulated cluster.

    Attributes:
        start_up: seconds from a start to the job's process running; its time limit counts from there.
        restore: seconds from there to the first second of work, for an attempt that goes on from a checkpoint.
        grace: seconds that a job holds its GPUs after it was told to stop.
        checkpoints: how work is saved.
        rates: how fast jobs run where; rates_by_model: of jobs of a model, where they are others.
        rack_label: label of a node that names its rack.
        failures: of nodes and of jobs.
        overruns: jobs that run longer than anybody said.
        estimates_are_limits: whether a job that has no time limit is stopped at the trace's estimate.
        description: whatever its author says of it.
        places: key path -> where it stands, for messages; empty for a profile that is no file's.
    """

    start_up: Sized = 0
    restore: Sized = 0
    grace: Sized = 0
    checkpoints: Checkpoints = Checkpoints()
    rates: Rates = field(default_factory=Rates)
    rates_by_model: Mapping[str, Rates] = field(default_factory=dict)
    rack_label: str = "rack"
    failures: Failures = field(default_factory=Failures)
    overruns: Overruns = Overruns()
    estimates_are_limits: bool = False
    description: str = field(default="", compare=False, repr=False)
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)

    @property
    def retry(self) -> RetryRule | None:
        """What is tried again of jobs without a rule of their own; None where nothing fails."""
        failures = self.failures
        if failures == Failures():
            return None
        return RetryRule(failures.retries, ("failure", "lost"))

    def check(self, nodes: Sequence[Node], shapes: Iterable[Shape]) -> None:
        """Whether it says how fast the jobs run wherever they may be placed.

        Args:
            nodes: the cluster.
            shapes: what the jobs ask for.

        Raises:
            SpecError: a GPU type that a job may get has no rate, or racks count and a node has none.
        """
        problems = [*self._types_without_rate(nodes, shapes), *self._nodes_without_rack(nodes)]
        if problems:
            raise SpecError(problems)

    def best_rates(self, nodes: Iterable[Node]) -> dict[str, float]:
        """For each GPU type of the cluster the highest rate that any job may run at there: what a lower bound allows.

        Empty where all is 1.
        """
        best: dict[str, float] = {}
        for kind in dict.fromkeys(node.gpu_type for node in nodes if node.gpus):
            for _, rates in self._tables():
                if not rates.by_type or kind.lower() in rates.by_type or DEFAULT_RATE in rates.by_type:
                    spread = [max([1, *(factor for _, factor in steps)]) for steps in (rates.by_nodes, rates.by_racks)]
                    best[kind] = max(best.get(kind, 0), rates.of_type(kind) * spread[0] * spread[1])
        return best if any(rate != 1 for rate in best.values()) else {}

    def _tables(self) -> Iterator[tuple[str, Rates]]:
        yield "rate", self.rates
        yield from ((f"rate.models.{model}", rates) for model, rates in self.rates_by_model.items())

    def _types_without_rate(self, nodes: Sequence[Node], shapes: Iterable[Shape]) -> Iterator[Problem]:
        counts: dict[str, int] = {}
        for node in nodes:
            if node.gpus:
                counts[node.gpu_type] = counts.get(node.gpu_type, 0) + 1
        wanted: set[str] = set()
        for types in {shape.gpu_types for shape in shapes if shape.total_gpus}:
            wanted.update(kind.lower() for kind in types or counts)
        used = [kind for kind in counts if kind.lower() in wanted]
        for key, rates in self._tables():
            if not rates.by_type or DEFAULT_RATE in rates.by_type:
                continue
            for kind in used:
                if kind.lower() not in rates.by_type:
                    count = f"{counts[kind]:,} node{'s' if counts[kind] > 1 else ''}"
                    named = f"{kind}, which {count} of the cluster have" if kind else f"{count} that name no GPU type"
                    add = f"`{kind}: 1`, or `default: 1`" if kind else "`default: 1`"
                    hint = f"add {add}" + (" for all types that are not named" if kind else ", or name their type")
                    yield self._problem(f"{key}.by_type", f"has no rate for {named}", hint)

    def _nodes_without_rack(self, nodes: Sequence[Node]) -> Iterator[Problem]:
        label = self.rack_label
        bare = [node.name for node in nodes if label not in node.labels]
        if not bare:
            return
        for key, rates in self._tables():
            if rates.by_racks:
                named = ", ".join(bare[:3]) + (f" and {len(bare) - 3:,} more" if len(bare) > 3 else "")  # noqa: PLR2004 - a few names
                hint = f"label the nodes in a cluster file: labels: {{{label}: a}}"
                yield self._problem(f"{key}.by_racks", f"counts racks, and no label `{label}` is on {named}", hint)

    def _problem(self, key: str, message: str, hint: str) -> Problem:
        place = self.places.get(key) or Place("profile", 0, 0)
        return Problem(*place, key, message, hint)


ZERO = Profile()
"""Nothing costs anything, and nothing fails."""


def read_profile(file: str | Path) -> Profile:
    """The profile in a YAML file.

    Raises:
        SpecError: it cannot be read, or anything in it is wrong. Carries every problem with its line.
    """
    from .profile_file import read  # noqa: PLC0415 - PyYAML takes a while to load, and most runs have no profile

    return read(str(file))
