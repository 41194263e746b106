"""Fragments: idle GPUs that the tasks at hand cannot use. The exact metric, for placements by it and for reports.

Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX
ATC 2023. Tasks fall into classes by what they ask for, each with its popularity. For node n and class c, F_n(c) is
all that is idle on n if a task of c cannot run there now (too few GPUs with enough free, too few CPUs, the wrong type;
also every task that asks for no GPU), else the idle parts too small for one GPU of c. The fragments of a cluster are
the mean over classes, by popularity, summed over its nodes; their rate is that over all that is idle.

As with the authors, memory is no part of it: a class is CPUs, GPUs and types.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import mul
from typing import NamedTuple

from ..cluster.pool import WHOLE, Pool, bits, piece_needs
from ..jobs.job import Piece, Shape

COVER = 0.95
"""The authors take the most popular classes that make up this share of the tasks."""
_REMEMBERED = 200_000


class TaskClass(NamedTuple):
    """Tasks that ask for the same.

    Attributes:
        weight: how many there are; only the proportion counts.
        cpu_milli: thousandths of a CPU.
        gpus: GPUs; 1 when it asks for a part of one, 0 when it asks for none.
        gpu_milli: thousandths of each of these GPUs, 1 to 1000; 0 when it asks for none.
        gpu_types: types that will do; empty = any.
    """

    weight: int
    cpu_milli: int
    gpus: int
    gpu_milli: int
    gpu_types: tuple[str, ...] = ()


PUBLISHED = (
    TaskClass(480, 0, 1, WHOLE),
    TaskClass(378, 0, 1, 500),
    TaskClass(133, 0, 0, 0),
    TaskClass(5, 0, 8, WHOLE),
    TaskClass(2, 0, 4, WHOLE),
    TaskClass(2, 0, 2, WHOLE),
)
"""What to expect where nothing is known: thousandths of the tasks by GPUs in the paper's trace (its table 1), with half
a GPU for those that share one, and no CPUs."""


def classes_of(shapes: Iterable[Shape], cover: float = COVER, *, size: int = 0) -> tuple[TaskClass, ...]:
    """The most popular classes of these jobs' tasks that make up the share `cover` of them, the most popular first.

    Each piece of a gang is a task. Of classes equally popular the one that asks for more CPUs, then for a larger part
    of a GPU, then for more GPUs, then with the later type comes first, as with the authors.

    Args:
        shapes: one a job.
        cover: share of the tasks, above 0 and at most 1.
        size: GPUs of a node, by which a total that the placer may split is cut; 0 = it is one task.
    """
    counts: Counter[tuple[int, int, int, tuple[str, ...]]] = Counter()
    for shape in shapes:
        for pieces, (gpus, cpu) in _tasks(shape, size):
            milli = shape.gpu_milli or (WHOLE if gpus else 0)
            counts[cpu, milli, 1 if shape.gpu_milli else gpus, shape.gpu_types] += pieces
    wanted = cover * counts.total()
    chosen: list[TaskClass] = []
    reached = 0
    for (cpu, milli, gpus, types), count in sorted(
        counts.items(), key=lambda item: (item[1], *item[0][:3], "|".join(item[0][3])), reverse=True
    ):
        if reached >= wanted:
            break
        chosen.append(TaskClass(count, cpu, gpus, milli, types))
        reached += count
    return tuple(chosen)


def _tasks(shape: Shape, size: int) -> Iterable[tuple[int, tuple[int, int]]]:
    """(how many, (GPUs, thousandths of a CPU)) of a job's tasks."""
    if shape.num_nodes or not size or shape.gpus <= size:
        return [(max(shape.num_nodes, 1), (shape.gpus, shape.cpu_milli))]
    whole, rest = divmod(shape.gpus, size)
    cut = [(whole, size), (1, rest)] if rest else [(whole, size)]
    return [(pieces, (gpus, piece_needs(shape, Piece(0, gpus))[0])) for pieces, gpus in cut]


class Fragmentation:
    """F for a given set of classes, in thousandths of a GPU times weight: whole numbers, so that equal is equal.

    A node's F is a step function of its CPUs for each picture of its GPUs. The gains of each kind of GPU ask are
    remembered by picture, the weights that count by CPUs and type; F is one product of the two.

    Args:
        classes: at least one, of weights above 0.

    Attributes:
        weight: sum of the weights; F / (1000 x weight) is in GPUs.
    """

    def __init__(self, classes: Sequence[TaskClass]) -> None:
        assert classes, "fragments are counted for at least one class"
        self.classes = tuple(classes)
        self.weight = sum(task.weight for task in classes)
        self._asks = sorted({(task.gpus, task.gpu_milli) for task in classes if task.gpus})
        self._gains: dict[tuple[int, tuple[int, ...]], tuple[int, ...]] = {}
        self._steps: dict[str, tuple[list[int], list[tuple[int, ...]]]] = {}

    def of(self, cpu: int, free: int, parts: tuple[int, ...], gpu_type: str) -> int:
        """F of a node with so many thousandths of a CPU, whole GPUs and parts (thousandths, in order) idle."""
        gains = self._gains.get((free, parts))
        if gains is None:
            gains = self._gains_of(free, parts)
        steps = self._steps.get(gpu_type)
        if steps is None:
            steps = self._steps_of(gpu_type)
        levels, weights = steps
        usable: int = sum(map(mul, gains, weights[bisect_right(levels, cpu)]))
        return (free * WHOLE + sum(parts)) * self.weight - usable

    def _gains_of(self, free: int, parts: tuple[int, ...]) -> tuple[int, ...]:
        """For each kind of GPU ask, the idle thousandths that are no fragment for it if its CPUs are there."""
        gains: list[int] = []
        for gpus, milli in self._asks:
            large = [part for part in parts if part >= milli]
            gains.append(free * WHOLE + sum(large) if free + len(large) >= gpus else 0)
        if len(self._gains) >= _REMEMBERED:
            self._gains.clear()
        return self._gains.setdefault((free, parts), tuple(gains))

    def _steps_of(self, gpu_type: str) -> tuple[list[int], list[tuple[int, ...]]]:
        """CPU levels, and for each stretch between them the weight by kind of GPU ask of the classes that have them."""
        kind = gpu_type.lower()
        usable = [
            task
            for task in self.classes
            if task.gpus and (not task.gpu_types or kind in [name.lower() for name in task.gpu_types])
        ]
        levels = sorted({task.cpu_milli for task in usable})
        weights = [
            tuple(
                sum(t.weight for t in usable if (t.gpus, t.gpu_milli) == ask and t.cpu_milli <= level)
                for ask in self._asks
            )
            for level in (-1, *levels)
        ]
        return self._steps.setdefault(gpu_type, (levels, weights))

    def of_node(self, pool: Pool, number: int) -> int:
        """F of one node of a pool as it is now."""
        parts = tuple(sorted(left for left in pool.open[number].values() if left))
        return self.of(pool.cpu[number], pool.free[number], parts, pool.nodes[number].gpu_type)


def fragments(pool: Pool, classes: Sequence[TaskClass], nodes: int | None = None) -> float:
    """GPUs of these nodes (a bit set; left out: all that take work) that are fragments for the classes on average."""
    metric = Fragmentation(classes)
    found = sum(metric.of_node(pool, number) for number in bits(pool.up if nodes is None else nodes))
    return found / (metric.weight * WHOLE)


def fragmentation_rate(pool: Pool, classes: Sequence[TaskClass], nodes: int | None = None) -> float:
    """Share of the idle GPUs of these nodes that are fragments, 0 to 1; 0 when nothing is idle."""
    idle = idle_gpus(pool, nodes)
    return fragments(pool, classes, nodes) / idle if idle else 0.0


def gang_fragmentation_rate(pool: Pool, size: int, nodes: int | None = None) -> float:
    """Share of the idle GPUs that are on nodes with fewer than `size` whole GPUs free, 0 to 1; 0 when nothing is idle.

    What a gang of pieces of `size` GPUs (1, 2, 4, 8) cannot use now, whatever CPUs it needs.
    """
    nodes = pool.up if nodes is None else nodes
    idle = idle_gpus(pool, nodes)
    small = sum(1 << number for number in bits(nodes) if pool.free[number] < size)
    return idle_gpus(pool, small) / idle if idle else 0.0


def idle_gpus(pool: Pool, nodes: int | None = None) -> float:
    """GPUs that are idle on these nodes (a bit set; left out: all that take work), parts of GPUs among them."""
    nodes = pool.up if nodes is None else nodes
    parts = sum(sum(pool.open[number].values()) for number in bits(nodes & pool.sharing))
    return pool.free_on(nodes) + parts / WHOLE
