"""The common shape of policies: go through the queue in order, place what fits, and obey the blocking rule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace
from typing import Any, Protocol

from ..cluster.pool import Pool
from ..jobs.job import Job, Placement, Shape
from .blocking import Blocking, Skip
from .order import Order, arrival
from .place import Placer, best_fit
from .plan import Plan, Token, start_of
from .queue import Group, Key, Memo, Queue
from .reasons import never, not_now, numbers


class Policy(Protocol):
    """Who goes next, where, and who waits for what reason. Pure: the same input gives the same plan.

    Attributes:
        name: as users type it. version: rises when its decisions change; both are in the journal.
    """

    name: str
    version: str

    def order(self, job: Job) -> Key:
        """The key by which the engine keeps the queue. It may not change while the job waits."""
        ...

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """Where a gang of this shape would go on `nodes` (a bit set); the engine asks it also of the idle cluster."""
        ...

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        """What to do now. It may take from the pool as it goes: the engine undoes that, checks the plan and does it."""
        ...


class Greedy:
    """Order x placement x blocking rule, every start all or nothing.

    A pass looks only at what may have changed: after capacity grew at every group of equal shapes, else at the
    groups that got a job. Within a pass free GPUs only shrink, so a shape that did not fit is not tried again, nor is
    one that asks for the same and more GPUs.

    Subclass it and override `order` or `place` for a policy of your own; or write a class with the same four names.
    """

    name = "greedy"
    version = "1"
    blocking: Blocking = Skip()
    _order: Order = staticmethod(arrival)
    _place: Placer = staticmethod(best_fit)

    def __init__(
        self,
        name: str = "",
        *,
        order: Order | None = None,
        place: Placer | None = None,
        blocking: Blocking | None = None,
    ) -> None:
        self.name = name or type(self).name
        if order is not None:
            self._order = order
        if place is not None:
            self._place = place
        if blocking is not None:
            self.blocking = blocking

    def order(self, job: Job) -> Key:
        """The key of the order this was made with."""
        return self._order(job)

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """By the placer this was made with."""
        return self._place(shape, pool, nodes)

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        """One pass, over as few groups as may have changed."""
        plan = Plan()
        memo, fresh = queue.memo, queue.fresh
        queue.fresh = {}
        if (
            memo.growth != pool.growth
            or memo.layout != pool.layout
            or now >= memo.until
            or any([key <= memo.last for key in fresh.values()])  # noqa: C419 - faster than a generator
            or (memo.cut and not all([group.needs for group in fresh]))  # noqa: C419 - the same
        ):
            memo.reset(pool.growth, pool.layout)
            self._pass(now, queue.active, memo, pool, plan)
        elif memo.behind:
            _wait_behind(fresh, memo.behind, pool, plan)
        else:
            self._pass(now, [group for group in fresh if group.misfit != pool.growth], memo, pool, plan)
        return plan

    def _pass(self, now: float, groups: Iterable[Group], memo: Memo, pool: Pool, plan: Plan) -> None:
        """Go through the heads of these groups in order; the rest of a group follows its head."""
        heap = self._heads(groups, pool, plan)
        failed: dict[Any, int] = {}  # by peers: the fewest GPUs that did not fit in this pass
        blocked, starts = memo.classes, plan.starts
        bare = sum([not entry[3].needs for entry in heap])  # groups that need no GPU
        while heap:
            key, _, job, group = heap[0]
            memo.last = max(memo.last, key)
            shape = group.shape
            size = shape.gpus or shape.gpu_milli
            ahead = blocked.get(group.size_class, 0) if blocked else 0
            if not ahead and (not failed or size < failed.get(group.peers, math.inf)):
                placement = self._try(shape, pool, memo.withheld)
                if placement is not None:
                    pool.take(shape, placement)
                    starts.append(start_of((job, placement)))
                    group.misfit = -1
                    following = group.following()
                    if following is None:
                        heappop(heap)
                        bare -= not group.needs
                    else:
                        heapreplace(heap, (following[0], group.number, following[1], group))
                    continue
                failed[group.peers] = size
            # The rest of the group asks for the same and waits too.
            heappop(heap)
            bare -= not group.needs
            _misfit(group, ahead, memo, pool, plan)
            if not ahead and self._block(job, group, now, memo, pool):
                memo.behind = job.id
                _wait_behind([entry[3] for entry in heap], job.id, pool, plan)
                return
            if not bare and not pool.free_on(pool.up & ~memo.withheld) and not pool.sharing:
                # No GPU is left to give, and all that follow need one. What they would withhold matters to nobody
                # until a job comes that needs none.
                memo.cut = True
                for entry in heap:
                    _misfit(entry[3], blocked.get(entry[3].size_class, 0), memo, pool, plan)
                return

    def _block(self, job: Job, group: Group, now: float, memo: Memo, pool: Pool) -> bool:
        """A job could not start: what it withholds from those behind it. True = every node."""
        blocking = self.blocking
        if blocking.by_class:
            memo.classes[group.size_class] = job.id
        until = blocking.until(job)
        if now < until < memo.until:
            memo.until = until
        withheld = blocking.withheld(job, now, pool, memo.withheld)
        if withheld:
            memo.blocker = memo.blocker or job.id
            memo.withheld |= withheld
        return withheld != 0 and memo.withheld & pool.up == pool.up

    def _heads(self, groups: Iterable[Group], pool: Pool, plan: Plan) -> list[_Entry]:
        """The first job of each group that this cluster could ever hold, as a heap by key."""
        heap: list[_Entry] = []
        layout = pool.layout
        for group in groups:
            head = group.head()
            if head is None:
                continue
            if group.layout != layout:
                group.layout = layout
                group.never = never(group.shape, pool, self.place)
            if group.never is not None:
                # It holds up nobody: what can never start must not keep others from starting.
                _tell(group, group.never, 0, pool, plan)
                continue
            heap.append((head[0], group.number, head[1], group))
        heapify(heap)
        return heap

    def _try(self, shape: Shape, pool: Pool, withheld: int) -> Placement | None:
        """A placement on the nodes that the shape allows and nobody withholds, the preferred GPU type first."""
        for allowed in pool.allowed(shape):
            nodes = allowed & ~withheld if withheld else allowed
            placement = self.place(shape, pool, nodes)
            if placement is not None:
                return placement
        return None


_Entry = tuple[Key, int, Job, Group]
"""(key, group number, job, its group)."""


def _misfit(group: Group, ahead: int, memo: Memo, pool: Pool, plan: Plan) -> None:
    """The group waits: `ahead` is the job of its class that it waits behind, 0 when it simply did not fit."""
    group.misfit = pool.growth
    token = Token.PRIORITY if ahead else not_now(group.shape, group.needs, pool, memo.withheld)
    _tell(group, token, ahead or memo.blocker, pool, plan)


def _tell(group: Group, token: Token, behind: int, pool: Pool, plan: Plan) -> None:
    """Give the group's reason, if it is a new one; its numbers are those of the moment when it became so."""
    if group.why is None or group.why.token is not token:
        group.why = numbers(token, group.shape, group.needs, pool, behind)
        plan.waiting[group.shape] = group.why


def _wait_behind(groups: Iterable[Group], behind: int, pool: Pool, plan: Plan) -> None:
    for group in groups:
        if group.count and group.never is None:
            _tell(group, Token.PRIORITY, behind, pool, plan)
