"""What is bounded: the jobs as whole numbers, and which part of the cluster each of them may use.

Times become whole microseconds and GPUs whole thousandths, rounded down. A shorter job that comes earlier can only end
earlier, so what holds for the rounded jobs holds for the true ones; traces in whole seconds lose nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from ...cluster.backend import Node
from ...cluster.pool import Pool
from ...jobs.errors import TraceError
from ...jobs.job import Shape
from ...jobs.traces.trace import TraceJob
from ...policies.place import Placer, first_fit
from ...policies.reasons import never

SECOND = 1_000_000
"""Microseconds in a second."""
WHOLE = 1000
"""Thousandths of a GPU in a GPU."""


class Group(NamedTuple):
    """Nodes that no job tells apart: so many nodes of so many GPUs, one type, one set of the labels jobs ask for."""

    nodes: int
    gpus: int
    gpu_type: str
    labels: tuple[tuple[str, str], ...]


class Item(NamedTuple):
    """A job in whole numbers.

    Attributes:
        release: submission, in microseconds.
        length: run time when alone on the fastest GPUs that it may use, in microseconds.
        gpus: GPUs of the whole gang, in thousandths.
        may_use: index into `Instance.usable`: the groups that it may use.
        shape: what it asks for; only the makespan's node form looks at it.
    """

    release: int
    length: int
    gpus: int
    may_use: int
    shape: Shape

    @property
    def area(self) -> int:
        """GPU time, in thousandths of a GPU x microseconds."""
        return self.length * self.gpus


@dataclass(frozen=True, slots=True)
class Instance:
    """The jobs that are bounded, and the cluster.

    Attributes:
        items: the jobs, in the trace's order, without those that were left out.
        groups: the cluster.
        usable: distinct sets of groups (indices, ascending) that jobs may use.
        rates: speed by GPU type, where the trace's run times are at speed 1; empty = all alike.
        left_out: `TraceJob.id` of each job that no idle cluster of these nodes could hold.
    """

    items: list[Item]
    groups: tuple[Group, ...]
    usable: tuple[tuple[int, ...], ...]
    rates: Mapping[str, float]
    left_out: tuple[int, ...]

    def capacity(self, groups: Sequence[int] | None = None) -> int:
        """GPUs of these groups, or of the cluster, in thousandths."""
        chosen = range(len(self.groups)) if groups is None else groups
        return WHOLE * sum(self.groups[number].nodes * self.groups[number].gpus for number in chosen)

    def digest(self) -> str:
        """SHA-256 over the jobs as they are bounded, one line `release length gpus groups` each."""
        sets = [",".join(map(str, groups)) for groups in self.usable]
        lines = [f"{item.release} {item.length} {item.gpus} {sets[item.may_use]}\n" for item in self.items]
        return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def instance(
    jobs: Sequence[TraceJob],
    nodes: Sequence[Node],
    rates: Mapping[str, float] | None = None,
    *,
    place: Placer = first_fit,
) -> Instance:
    """The jobs and the cluster in whole numbers; jobs that no idle cluster of these nodes could hold are left out.

    Args:
        jobs: as a trace reader yields them.
        nodes: the cluster; all of its GPUs count, also those of cordoned nodes.
        rates: speed by GPU type; types that it does not name run at 1.
        place: the rule by which the simulator's policy tells what the idle cluster could hold.

    Raises:
        TraceError: there are no nodes, or a rate is not above 0.
    """
    if not nodes:
        raise TraceError("the cluster has no nodes")
    pool = Pool(nodes)
    refused = {shape for shape in {job.shape for job in jobs} if never(shape, pool, place) is not None}
    kept = [job for job in jobs if job.shape not in refused]
    asked = {key for job in kept for key, _ in job.shape.labels}
    counts: dict[Group, int] = {}
    for node in nodes:
        labels = tuple(sorted((key, value) for key, value in node.labels.items() if key in asked))
        group = Group(0, node.gpus, node.gpu_type, labels)
        counts[group] = counts.get(group, 0) + 1
    groups = tuple(group._replace(nodes=count) for group, count in counts.items())
    return of_groups(kept, groups, rates or {}, tuple(job.id for job in jobs if job.shape in refused))


def of_groups(
    jobs: Sequence[TraceJob], groups: tuple[Group, ...], rates: Mapping[str, float], left_out: tuple[int, ...]
) -> Instance:
    """The instance of jobs that are all to be bounded.

    Raises:
        TraceError: a rate is not above 0, or no group will do for a job.
    """
    for kind, rate in rates.items():
        if not (math.isfinite(rate) and rate > 0):
            raise TraceError(f"the rate of GPU type {kind!r} is {rate}", hint="a rate is a number above 0")
    speeds = {kind.lower(): rate for kind, rate in rates.items()}
    usable: dict[tuple[int, ...], int] = {}
    of_shape: dict[Shape, tuple[int, float]] = {}
    items = []
    for job in jobs:
        shape = job.shape
        if shape not in of_shape:
            may = tuple(number for number, group in enumerate(groups) if _will_do(shape, group))
            if not may:
                raise TraceError(f"job {job.name}: no node of the cluster can hold it", hint="leave it out")
            # A job without GPUs runs alike on every type.
            best = max(speeds.get(groups[number].gpu_type.lower(), 1) for number in may) if shape.total_gpus else 1
            of_shape[shape] = (usable.setdefault(may, len(usable)), best)
        may_use, rate = of_shape[shape]
        length = _whole(job.duration, rate)
        if job.limit is not None:  # it is stopped then, and that ends it
            length = min(length, _whole(job.limit))
        gpus = max(shape.num_nodes, 1) * (WHOLE * shape.gpus + shape.gpu_milli)
        items.append(Item(_whole(job.submitted), length, gpus, may_use, shape))
    return Instance(items, groups, tuple(usable), dict(rates), left_out)


def _will_do(shape: Shape, group: Group) -> bool:
    """Whether one piece could lie on a node of the group, as far as GPUs, type and labels go."""
    if shape.gpu_types and group.gpu_type.lower() not in {kind.lower() for kind in shape.gpu_types}:
        return False
    labels = dict(group.labels)
    if any(labels.get(key) != value for key, value in shape.labels):
        return False
    needs = min(shape.gpus, 1) if shape.num_nodes == 0 else shape.gpus  # a total may be cut
    return max(needs, 1 if shape.gpu_milli else 0) <= group.gpus


def _whole(seconds: float, rate: float = 1) -> int:
    """Whole microseconds of so many seconds at that speed, rounded down without an error of floating point."""
    if rate == 1 and (isinstance(seconds, int) or seconds.is_integer()):
        return int(seconds) * SECOND
    return math.floor(Fraction(seconds) * SECOND / Fraction(rate))
