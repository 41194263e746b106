"""The waiting jobs, grouped by shape and ordered inside each group, so that a pass costs shapes and not jobs."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any

from ..jobs.job import Job, Shape
from .plan import Token, Why

Key = tuple[Any, ...]
"""What jobs are ordered by; smaller goes first. The job's id is added as the last tie-break."""

_key_of = itemgetter(0)


def size_class(gpus: float) -> int:
    """GPUs of a gang rounded up to a power of two, as its exponent: 1 -> 0, 2 -> 1, 3 and 4 -> 2, 5 to 8 -> 3, ..."""
    return max(math.ceil(gpus) - 1, 0).bit_length()


class Group:
    """Waiting jobs of one shape, in order. To a placer they are interchangeable.

    Attributes:
        shape: what each asks for. peers: everything of the shape but its GPUs; of two groups with equal peers the
            one that asks for more GPUs cannot fit where the other did not.
        needs: GPUs of one whole gang; size_class: the same rounded up to a power of two. count: jobs waiting.
        why: the last reason given for them; None = none yet.
        misfit: the pool's growth at which the shape was last found not to fit; -1 = not found so.
        never: why not even the idle cluster could hold it; None = it could. layout: the pool's layout for which
            that is known.
    """

    __slots__ = (
        "_at",
        "_first",
        "_jobs",
        "count",
        "layout",
        "misfit",
        "needs",
        "never",
        "number",
        "peers",
        "shape",
        "size_class",
        "why",
    )

    def __init__(self, shape: Shape, number: int) -> None:
        self.shape = shape
        self.number = number
        self.needs = shape.total_gpus
        self.size_class = size_class(shape.total_gpus)
        self.peers = (
            shape.num_nodes,
            bool(shape.gpu_milli),
            shape.gpu_types,
            shape.labels,
            shape.cpu_milli,
            shape.memory,
            shape.distinct,
            # A total that is split shares out its CPUs: with more GPUs each node carries fewer of them.
            0 if shape.num_nodes or not (shape.cpu_milli or shape.memory) else shape.gpus,
        )
        self.count = 0
        self.why: Why | None = None
        self.misfit = -1
        self.never: Token | None = None
        self.layout = -1
        self._jobs: list[tuple[Key, Job]] = []
        self._first = 0
        self._at = 0

    def add(self, key: Key, job: Job) -> None:
        """Put a job in its place."""
        jobs = self._jobs
        if not jobs or key > jobs[-1][0]:
            jobs.append((key, job))
        else:
            insort(jobs, (key, job), lo=self._first, key=_key_of)
        self.count += 1

    def leave(self, job: Job, key: Callable[[Job], Key]) -> None:
        """Take a job out. One that comes back is then in the list once, wherever its key puts it now."""
        jobs, first = self._jobs, self._first
        self.count -= 1
        if jobs[first][1] is job:  # as nearly always: jobs start in order
            self._first = first = first + 1
            if not self.count:
                jobs.clear()
                self._first = 0
            elif first > 64 and first * 2 > len(jobs):  # noqa: PLR2004 - let go of the past now and then
                del jobs[:first]
                self._first = 0
            return
        at = bisect_left(jobs, (*key(job), job.id), lo=first, key=_key_of)
        if at == len(jobs) or jobs[at][1] is not job:
            # Its key changed while it waited, against the rule: a site's own order may do that.
            at = next(at for at in range(first, len(jobs)) if jobs[at][1] is job)
        del jobs[at]

    def head(self) -> tuple[Key, Job] | None:
        """The first waiting job with its key; None when the group is empty."""
        if not self.count:
            return None
        self._at = self._first
        return self._jobs[self._first]

    def following(self) -> tuple[Key, Job] | None:
        """The waiting job after the one that `head` or the last `following` gave; None when there is none."""
        self._at += 1
        return self._jobs[self._at] if self._at < len(self._jobs) else None

    def waiting(self) -> Iterator[tuple[Key, Job]]:
        """All that wait, in order, with their keys."""
        return islice(self._jobs, self._first, None)


class Memo:
    """What the last pass found out and the next may rely on; it saves work and never changes an answer.

    Attributes:
        growth, layout: the pool's, when the last pass looked at every group; -1 = look at all again.
        withheld: nodes that jobs blocked then withhold from those behind them.
        blocker: id of the first job that withholds any; 0 = none. behind: id of the job that all others wait behind.
        last: the highest key that was looked at.
        classes: size classes that are blocked, and by which job.
        until: the time up to which this holds.
        cut: whether the pass ended early, for want of GPUs, and those behind were not asked what they withhold.
    """

    __slots__ = ("behind", "blocker", "classes", "cut", "growth", "last", "layout", "until", "withheld")

    def __init__(self) -> None:
        self.reset(-1, -1)

    def reset(self, growth: int, layout: int) -> None:
        """Know nothing; a pass over all groups follows."""
        self.growth = growth
        self.layout = layout
        self.classes: dict[int, int] = {}
        self.withheld = 0
        self.blocker = 0
        self.behind = 0
        self.cut = False
        self.last: Key = ()
        self.until = math.inf


class Queue:
    """All waiting jobs in the order of one policy. Adding and removing cost O(log n) of their group."""

    def __init__(self, key: Callable[[Job], Key]) -> None:
        self.key = key
        self.groups: dict[Shape, Group] = {}
        self.active: dict[Group, None] = {}  # groups with a waiting job
        self.fresh: dict[Group, Key] = {}  # of these, the ones that got a job since the last pass: the first such key
        self.memo = Memo()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, job: Job) -> None:
        """A job joins."""
        shape = job.shape
        group = self.groups.get(shape)
        if group is None:
            group = self.groups[shape] = Group(shape, len(self.groups))
        key = (*self.key(job), job.id)
        group.add(key, job)
        self.active[group] = None
        first = self.fresh.get(group)
        if first is None or key < first:
            self.fresh[group] = key
        self._count += 1

    def remove(self, job: Job) -> None:
        """A job that waited was cancelled or held."""
        self.left(job)
        # It may have been the one that others waited behind.
        self.memo.growth = -1

    def left(self, job: Job) -> None:
        """A job that waited was started."""
        group = self.groups[job.shape]
        group.leave(job, self.key)
        self._count -= 1
        if not group.count:
            del self.active[group]

    def in_order(self) -> Iterator[Job]:
        """Every waiting job in order; for people and for policies that look at all. O(n log groups)."""
        from heapq import merge  # noqa: PLC0415 - off the hot path

        for _, job in merge(*(group.waiting() for group in self.groups.values()), key=_key_of):
            yield job
