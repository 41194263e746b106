"""The inflation experiment: pods come until far more is asked for than there is, and nothing ever leaves.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX
ATC 2023, sections 6.2 and 6.3 (figures 7 and 9), after the open simulator hkust-adsl/kubernetes-scheduler-simulator:

1. All pods of the trace in random order, then pods drawn from it with replacement, until the next one would bring the
   GPUs asked for above 130 % of those there are. A trace that asks for more than that loses pods at random instead.
2. One after another is placed, or dropped when no node has room: it never comes again, and still counts as arrived.
3. Nodes get a random order, by which ties go. After each pod the share of GPUs allocated and F of all that is idle are
   noted; both are averaged within each whole percent of GPUs arrived.

A node holds a pod if type, GPUs, CPUs and memory suffice; F counts GPUs, CPUs and types.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from ...cluster.backend import Node
from ...cluster.pool import WHOLE, Pool
from ...jobs.job import Shape
from ...policies.fragmentation import Fragmentation
from ...policies.place import Placer
from .openb import Inputs, milli

LOAD = 1.3
"""GPUs asked for in the end, of those there are."""
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Run:
    """One rule, one seed.

    Attributes:
        seed: of the order of pods and nodes, and of a rule by chance.
        pods: how many came; dropped: how many of them found no room.
        allocation: share of the GPUs allocated when so many whole percent of them had arrived; None where no pod fell
            within a percent of it. fragmentation_rate: F of what is idle, and fragments: F of all GPUs, likewise.
        allocation_at_end: share of the GPUs allocated after the last pod.
    """

    seed: int
    pods: int
    dropped: int
    allocation: list[float | None]
    fragmentation_rate: list[float | None]
    fragments: list[float | None]
    allocation_at_end: float


def drawn(inputs: Inputs, load: float, random: Random) -> list[Shape]:
    """The pods that come, in order.

    As with the authors, the last draw is judged by what it asks of one GPU, not of all its GPUs.
    """
    pods = list(inputs.pods)
    random.shuffle(pods)
    asked = sum(milli(pod) for pod in pods)
    most = load * inputs.capacity
    while asked > most:
        asked -= milli(pods.pop(random.randrange(len(pods))))
    if len(pods) < len(inputs.pods) or asked == most:
        return pods
    while True:
        pod = inputs.pods[random.randrange(len(inputs.pods))]
        if asked + (pod.gpu_milli or min(pod.gpus, 1) * WHOLE) > most:
            return pods
        asked += milli(pod)
        pods.append(pod)


def shuffled(nodes: Sequence[Node], random: Random) -> list[Node]:
    """The nodes in a random order that is also that of their names: by it ties go."""
    order = list(range(len(nodes)))
    random.shuffle(order)
    width = max(len(str(len(nodes) - 1)), 4)
    return [replace(nodes[at], name=f"{place:0{width}}-{nodes[at].name}") for place, at in enumerate(order)]


def inflate(inputs: Inputs, placer: Placer, seed: int, metric: Fragmentation, *, load: float = LOAD) -> Run:
    """Let the pods come and place them by one rule."""
    random = Random(seed)  # noqa: S311 - an experiment's seed, no secret
    pods = drawn(inputs, load, random)
    pool = Pool(shuffled(inputs.nodes, random))
    by_node = [metric.of_node(pool, number) for number in range(len(pool.nodes))]
    fragments = sum(by_node)
    unit = metric.weight * inputs.capacity
    bins = _Bins(load)
    arrived = allocated = dropped = 0
    for pod in pods:
        nodes = 0
        for allowed in pool.allowed(pod):
            nodes |= allowed  # a list of types is no order of preference here
        placement = placer(pod, pool, nodes)
        asked = milli(pod)
        arrived += asked
        if placement is None:
            dropped += 1
        else:
            pool.take(pod, placement)
            allocated += asked
            for number in {piece.node for piece in placement}:
                now = metric.of_node(pool, number)
                fragments += now - by_node[number]
                by_node[number] = now
        idle = metric.weight * (inputs.capacity - allocated)
        bins.add(
            arrived / inputs.capacity, allocated / inputs.capacity, fragments / idle if idle else 0.0, fragments / unit
        )
    means = bins.means()
    return Run(seed, len(pods), dropped, means[0], means[1], means[2], allocated / inputs.capacity)


class _Bins:
    """Means within each whole percent of the load, rounded; a percent in which nothing fell borrows its neighbours'."""

    def __init__(self, load: float) -> None:
        self._last = round(load * 100)
        self._counts = [0] * (self._last + 2)
        self._sums = [[0.0] * (self._last + 2) for _ in range(3)]

    def add(self, arrived: float, *values: float) -> None:
        """What held when so much of the capacity had arrived."""
        at = min(round(arrived * 100), self._last + 1)
        self._counts[at] += 1
        for sums, value in zip(self._sums, values, strict=True):
            sums[at] += value

    def means(self) -> list[list[float | None]]:
        """For each value, its mean at 0 %, 1 % and so on."""
        return [[self._mean(sums, at) for at in range(self._last + 1)] for sums in self._sums]

    def _mean(self, sums: list[float], at: int) -> float | None:
        if self._counts[at]:
            return sums[at] / self._counts[at]
        near = slice(max(at - 1, 0), at + 2)
        count = sum(self._counts[near])
        return sum(sums[near]) / count if count else None
