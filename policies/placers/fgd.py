"""Fragmentation gradient descent: each piece goes where it makes the least new fragments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp

from ...cluster.pool import WHOLE
from ...jobs.job import Shape
from ..fragmentation import PUBLISHED, Fragmentation, TaskClass, classes_of
from .rooms import Largest, Room, Rooms
from .scored import Scored, Ties
from .scores import MAX

_REMEMBERED = 500_000

_Key = tuple[int, int, tuple[int, ...], str, int, int, int]


class Fgd(Scored):
    """FGD: Weng et al., "Beware of Fragmentation", USENIX ATC 2023, as in the authors' simulator.

    A node's score is floor(100 sigmoid((F before - F after) / 1000)), F being its fragments in thousandths of a GPU for
    the classes of tasks (`policies/fragmentation.py`). A job that shares a GPU tries every GPU of the node that has
    room: of equally good ones the one that was shared first, then a free one. Others take free GPUs.

    Reads no estimate, never preempts, and needs no history but the classes' popularity.

    Args:
        classes: what to expect next and how often: `classes_of(shapes)` of a trace's jobs or of recent ones. None: the
            mix of the paper's trace by GPUs, until it is told of others (`expecting`); a simulation tells it of those
            of its trace.
        ties: between nodes with the same score, the smallest `name` (the authors' rule) or one at `random`.
        seed: of the draws.
        given: whether the classes are to stay, whatever a simulation tells.
    """

    def __init__(
        self, classes: Sequence[TaskClass] | None = None, *, ties: Ties = "name", seed: int = 0, given: bool = True
    ) -> None:
        super().__init__(self._gradient, ties=ties, seed=seed)
        self.metric = Fragmentation(classes or PUBLISHED)
        self._given = given and classes is not None
        self._scores: dict[_Key, tuple[int, int]] = {}

    def varied(self, *, ties: Ties = "name", seed: int = 0) -> Fgd:
        """The same classes with other ties or another seed."""
        return Fgd(self.metric.classes, ties=ties, seed=seed, given=self._given)

    def expecting(self, shapes: Iterable[Shape], size: int = 0) -> Fgd:
        """One that expects jobs like these, unless it was made with classes of its own.

        Args:
            shapes: one a job.
            size: GPUs of the largest node, by which a total that may be split is cut; 0 = it is one task.
        """
        classes = () if self._given else classes_of(shapes, size=size)
        return Fgd(classes, ties=self.ties, seed=self.seed, given=False) if classes else self

    def _gradient(self, room: Room, piece: Shape, largest: Largest) -> int:  # noqa: ARG002 - a score's form
        return self._best(room, piece)[0]

    def _slot(self, room: Room, piece: Shape, rooms: Rooms) -> int:  # noqa: ARG002 - the rule by chance needs them
        """The GPU whose part makes the least new fragments."""
        part = self._best(room, piece)[1]
        if part == WHOLE:
            return room.unused_slot()
        return min(slot for left, slot in zip(room.parts, room.slots, strict=True) if left == part)

    def _best(self, room: Room, piece: Shape) -> tuple[int, int]:
        """(score, thousandths free before on the GPU that is best to share), the same for nodes that are alike."""
        parts = room.parts
        order = tuple([part for _, part in sorted(zip(room.slots, parts, strict=True))])
        key = (room.cpu, room.free, order, room.gpu_type, piece.cpu_milli, piece.gpus, piece.gpu_milli)
        known = self._scores.get(key)
        if known is not None:
            return known
        idle = tuple([part for part in parts if part])
        cpu = room.cpu - piece.cpu_milli
        before = self.metric.of(room.cpu, room.free, idle, room.gpu_type)
        best = (-1, 0)
        if piece.gpu_milli:
            for part in dict.fromkeys((*order, WHOLE) if room.free else order):
                if part >= piece.gpu_milli:
                    after = self._shared(room, idle, part, part - piece.gpu_milli, cpu)
                    score = self._scored(before, after)
                    if score > best[0]:
                        best = (score, part)
        else:
            best = (self._scored(before, self.metric.of(cpu, room.free - piece.gpus, idle, room.gpu_type)), WHOLE)
        if len(self._scores) >= _REMEMBERED:
            self._scores.clear()
        return self._scores.setdefault(key, best)

    def _shared(self, room: Room, idle: tuple[int, ...], part: int, rest: int, cpu: int) -> int:
        """F once the GPU with `part` free has only `rest` left."""
        left = list(idle)
        free = room.free
        if part == WHOLE:
            free -= 1
        else:
            left.remove(part)
        if rest:
            left.append(rest)
            left.sort()
        return self.metric.of(cpu, free, tuple(left), room.gpu_type)

    def _scored(self, before: int, after: int) -> int:
        gradient = (before - after) / (self.metric.weight * WHOLE)
        return int(MAX / (1.0 + exp(-gradient)))
