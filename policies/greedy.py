"""The common shape of policies: go through the queue in order, place what fits, and obey the blocking rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from ..cluster.pool import Pool
from ..jobs.errors import PolicyError
from ..jobs.job import Job, Placement, Shape
from .backfill import Backfill
from .blocking import Blocking, Skip, Strict
from .consolidate import Consolidate
from .finder import Finding
from .order import Changing, Fixed, KeyOf, Order, arrival
from .place import Placer, best_fit
from .placers import Fgd
from .placers.levels import by_wish
from .plan import Lane, Plan, start_of
from .queue import Book, Key, Queue
from .quotas import Quotas, lane_in
from .reclaim import Reclaim
from .walk import Walk


class Policy(Protocol):
    """Who goes next, where, and who waits for what reason. Pure: the same input gives the same plan.

    It may also have `lane` and `inner` (functions of a job, see `Order`), `timed` (see `Changing`) and `books()`: the
    engine keeps the queue so, and asks again when a key has had its time.

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


def queue_for(policy: Policy, quotas: Quotas | None = None) -> Queue:
    """An empty queue as this policy wants it kept, and as the site's queues want it."""
    books = getattr(policy, "books", None)
    lane = getattr(policy, "lane", None)
    if quotas is not None:
        lane = _joined(lane_in(quotas.tree), lane)
    queue = Queue(
        policy.order,
        lane=lane,
        inner=getattr(policy, "inner", None),
        timed=getattr(policy, "timed", None),
        books=None if books is None else books(),
        quotas=quotas,
    )
    candidates = getattr(policy, "candidates", None)
    if candidates is not None:
        queue.candidates = candidates(queue)
    return queue


def _joined(first: Callable[[Job], Lane], then: Callable[[Job], Lane] | None) -> Callable[[Job], Lane]:
    """Jobs share a lane if they do by both rules."""
    return first if then is None else lambda job: (*first(job), *then(job))


class Greedy:
    """Order x placement x blocking rule x reclaim, every start all or nothing.

    A pass looks only at what may have changed: after capacity grew at every group of equal shapes, else at the
    groups that got a job. Within a pass free GPUs only shrink, so a shape that did not fit is not tried again, nor is
    one that asks for the same and more GPUs.

    Subclass it and override `order` or `place` for a policy of your own; or write a class with the same four names.

    Attributes:
        ordering, blocking, reclaim: the parts it was made with; reclaim None = it stops nobody.
        fair: whether queues that borrow may preempt each other until their shares are even.
        lane: what else than its shape tells a job from others; None = nothing.
        inner: orders the running jobs of one shape; None = this policy stops none.
        timed: makes the keys of an order that changes with time; None = they are fixed.
        finding: the placer if it looks at the job, not only at its shape.
        candidates: keeps the waiting jobs by how long they run too, for backfill; None = not needed.
    """

    name = "greedy"
    version = "1"
    blocking: Blocking = Skip()
    reclaim: Reclaim | None = None
    fair = False
    ordering: Order = Fixed(arrival)
    _place: Placer = staticmethod(best_fit)

    def __init__(
        self,
        name: str = "",
        *,
        order: KeyOf | Order | None = None,
        place: Placer | None = None,
        blocking: Blocking | None = None,
        reclaim: Reclaim | None = None,
        fair: bool = False,
    ) -> None:
        self.name = name or type(self).name
        if order is not None:
            self.ordering = order if isinstance(order, Order) else Fixed(order)
        if place is not None:
            self._place = place
        if blocking is not None:
            self.blocking = blocking
        if reclaim is not None:
            self.reclaim = reclaim
        self.fair = fair
        if type(self).order is Greedy.order:
            self.order = self.ordering.key  # type: ignore[method-assign] # saves a call a job
        self.lane = self.ordering.lane
        self.inner = None if self.reclaim is None else self.ordering.inner
        self.timed = self.ordering if isinstance(self.ordering, Changing) else None
        self.finding = self.placer if isinstance(self.placer, Finding) else None
        if isinstance(self.blocking, Backfill) and (self.finding is not None or isinstance(self.reclaim, Consolidate)):
            raise PolicyError(
                "backfill promises places ahead, which neither a placement that looks at the job nor moves go with",
                hint="take another placement and reclaim rule, or another blocking rule, such as skip",
            )
        # Nobody may start before the first that does not fit: while it waits, so do all.
        self._in_order = isinstance(self.blocking, Strict) and self.reclaim is None and self.finding is None
        self.candidates = self.blocking.candidates if isinstance(self.blocking, Backfill) else None

    def order(self, job: Job) -> Key:
        """The key of the order this was made with."""
        return self.ordering.key(job)

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """By the placer this was made with, and as the job wishes of the topology."""
        if shape.topology is not None:
            return by_wish(shape, pool, nodes, self._place)
        return self._place(shape, pool, nodes)

    def expect(self, shapes: Iterable[Shape], size: int) -> None:
        """Be told what jobs will ask for (one shape a job), and the GPUs of the largest node: FGD places by it."""
        if isinstance(self._place, Fgd):
            self._place = self._place.expecting(shapes, size)

    @property
    def placer(self) -> Placer | None:
        """The placer that decides; None = a subclass's own method does."""
        return self._place if type(self).place is Greedy.place else None

    def books(self) -> Mapping[str, Book]:
        """What the order and the blocking rule need to have recorded."""
        books = self.ordering.books()
        return {**books, **self.blocking.books()} if isinstance(self.blocking, Backfill) else books

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        """One pass, over as few groups as may have changed."""
        plan = Plan()
        quotas = queue.quotas
        if quotas is None:
            self._walk(now, queue, pool, plan)
            return plan
        mark = quotas.mark()
        try:
            self._walk(now, queue, pool, plan)
        finally:
            quotas.undo(mark)  # the engine does the plan, and then counts it
        return plan

    def _walk(self, now: float, queue: Queue, pool: Pool, plan: Plan) -> None:
        if self.timed is not None:
            queue.advance(now)
        if isinstance(self.blocking, Backfill):
            self._wake(self.blocking.walk(self, now, queue, pool, plan), now, queue, plan)
            return
        if len(queue) == 1 and queue.quotas is None and self._starts_alone(queue, pool, plan):
            return
        memo, fresh = queue.memo, queue.fresh
        queue.fresh = {}
        ranks = self.ordering.ranks(now, queue, pool)
        walk = Walk(self, now, queue=queue, pool=pool, plan=plan, ranks=ranks)
        anew = (
            memo.growth < 0
            or memo.layout != pool.layout
            or now >= memo.until
            or any([key <= memo.last for key in fresh.values()])  # noqa: C419 - faster than a generator
            or (memo.cut and not all([group.needs for group in fresh]))  # noqa: C419 - the same
            or (memo.blocker and walk.moving)  # who is first may be another now
        )
        grown = memo.growth != pool.growth
        if (
            grown
            and not anew
            and memo.barrier
            and self._in_order
            and not walk.moving
            and len(fresh) <= 1
            and walk.still_blocked(memo.barrier)
        ):
            memo.growth = pool.growth
            walk.wait_behind([group for group in fresh if group is not memo.barrier], memo.behind)
        elif grown or anew:
            memo.reset(pool.growth, pool.layout)
            walk.over(queue.active)
        elif memo.behind:
            walk.wait_behind(fresh, memo.behind)
        elif fresh:
            again = walk.reclaim is not None or queue.quotas is not None
            walk.over([group for group in fresh if again or group.misfit != pool.growth])
        self._wake(walk, now, queue, plan)

    def _starts_alone(self, queue: Queue, pool: Pool, plan: Plan) -> bool:
        """Nobody waits but one job: it starts where it fits, and no walk is set up. True = it did.

        It may be ahead of or behind nobody, so the order and the blocking rule have nothing to say.
        """
        (group,) = queue.active
        shape, job = group.shape, group.first()
        if job is None or self.finding is not None or shape.topology is not None or queue.memo.claims or queue.kept:
            return False
        for nodes in pool.allowed(shape):
            placement = self.place(shape, pool, nodes)
            if placement is not None:
                pool.take(shape, placement)
                plan.starts.append(start_of((job, placement)))
                group.misfit = -1
                queue.fresh.clear()
                queue.memo.growth = -1  # the next pass looks at all that waits then
                return True
        return False

    def _wake(self, walk: Walk, now: float, queue: Queue, plan: Plan) -> None:
        """When to ask again although nothing happens."""
        if len(queue) <= len(plan.starts):
            return
        wake = queue.memo.wake
        if walk.reclaim is not None:
            wake = min(wake, walk.reclaim.until(now, queue), self.ordering.until(now, queue, plan.starts))
        if isinstance(self.reclaim, Consolidate):
            wake = min(wake, self.reclaim.until(now, queue))
        if wake < math.inf:
            plan.wake_at = wake
            queue.memo.until = min(queue.memo.until, wake)
