"""HiveD as a placement and a rule for who gives way: jobs inside their tenant's cells, and others where room is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..cluster.pool import Pool, bits
from ..cluster.topology import NODE
from ..jobs.errors import PlanError
from ..jobs.job import Job, Placement, Shape
from .cells import GPU, Cells, Tenants, lost_in
from .order import Order
from .place import best_fit
from .plan import Token
from .reclaim import OverQueues, lost_work, may_go, next_unguarded

if TYPE_CHECKING:
    from .queue import Key, Queue
    from .tree import Tree


class Hived(OverQueues):
    """Cells for jobs within what their tenant owns, free room for opportunistic ones, which leave when owners call.

    A job goes into cells already bound to its tenant, else into as few new ones as it takes, where the cluster is most
    broken up already. If those are not free, opportunistic jobs there give way, where the least work is lost. A job for
    which its tenant has no cells left runs opportunistically wherever there is room, if it can be preempted; if it
    cannot, it waits for cells. Jobs of no tenant run opportunistically too, or, if they cannot be preempted, where they
    leave room for all cells.

    It is made for one walk at a time: `finder` says what is bound as the walk begins.
    """

    name = "owners of cells"

    def __init__(self) -> None:
        self._now: CellFinder | None = None
        self._tenants: WeakKeyDictionary[Pool, tuple[int, Tree | None, Tenants]] = WeakKeyDictionary()

    def __call__(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """Best fit, wherever there is room."""
        return best_fit(shape, pool, nodes)

    def finder(self, now: float, queue: Queue, pool: Pool) -> CellFinder:
        """For one walk."""
        tree = None if queue.quotas is None else queue.quotas.tree
        layout, of, tenants = self._tenants.get(pool, (-1, None, None))
        if tenants is None or layout != pool.layout or of is not tree:
            tenants = Tenants(pool, tree)
            self._tenants[pool] = pool.layout, tree, tenants
        self._now = CellFinder(tenants, now, queue, pool)
        return self._now

    def candidates(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:  # noqa: ARG002 - the protocol's
        """Opportunistic jobs in the cells that the job is to get, the least lost work first."""
        assert self._now is not None, "a walk asks"
        return iter(self._now.victims(job))

    def may(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> bool:  # noqa: ARG002 - the protocol's
        """Whether the job's tenant owns cells that could serve it."""
        assert self._now is not None, "a walk asks"
        return self._now.owns(job)

    def until(self, now: float, queue: Queue) -> float:
        """The next minimum run time that ends."""
        return next_unguarded(now, queue)


class CellFinder:
    """The cells at one moment; what starts is bound as the walk goes on. Cost: O(running jobs) if there are tenants.

    A job's place inside its cells is found as if no opportunistic job ran that may leave, on a pool of its own: what
    others do in a tenant's cells changes nothing for the tenant.
    """

    lacks = Token.RESERVED_FOR_OTHER

    def __init__(self, tenants: Tenants, now: float, queue: Queue, pool: Pool) -> None:
        self._tenants = tenants
        self._at = now
        self._queue = queue
        self._pool = pool
        self._calling: set[int] = set()  # jobs for which others have to leave: inside their cells or not at all
        self._lost: dict[str, dict[int, float]] = {}
        self._bare = self._without_those_going() if tenants.cells else pool

    @cached_property
    def cells(self) -> Cells:
        """What is bound."""
        running = self._queue.running
        stay = (job for job in running.jobs.values() if job.id not in running.vacating)
        return Cells(self._tenants, self._pool, stay)

    @cached_property
    def going(self) -> dict[int, tuple[float, Job]]:
        """Opportunistic jobs that may be told to leave, by id, with the work that is lost then."""
        running, inside = self._queue.running, self.cells.inside
        return {
            one.id: (lost_work(one, self._at), one)
            for one in running.jobs.values()
            if one.id not in inside and one.id not in running.vacating and may_go(one, self._at, self._queue)
        }

    def _without_those_going(self) -> Pool:
        """The pool without jobs that may leave or do so already."""
        pool = self._pool.copy()
        for one in (*(job for _, job in self.going.values()), *self._queue.running.vacating.values()):
            pool.give(one.shape, one.placement)
        return pool

    def owns(self, job: Job) -> bool:
        """Whether the job's tenant owns cells that could serve it."""
        return bool(self._tenants.level(self._tenants.of(job), job.shape))

    def place(self, job: Job, nodes: int) -> Placement | None:
        """Inside its cells; else, if it can be preempted or harms none, outside."""
        shape, pool = job.shape, self._pool
        if not self._tenants.cells or not (shape.gpus or shape.gpu_milli):
            return best_fit(shape, pool, nodes)
        owns = self.owns(job)
        if owns:
            found = self._inside(job, nodes)
            found = None if found is None else self._as_it_is(shape, found)
            if found is not None or job.id in self._calling or job.id in self._queue.claimants:
                return found  # others left, or are to leave, for its cells
        if job.preemptible:
            return best_fit(shape, pool, nodes)
        if owns:
            return None
        cells = self.cells
        for among in (nodes & cells.parts & ~cells.whole, nodes & ~cells.whole):
            found = best_fit(shape, pool, among)
            if found is not None and cells.harmless(found):
                return found
        return None

    def alike(self, job: Job) -> tuple[str, bool, Shape]:
        """Whose it is, whether it may run outside cells, and its size: each has a level of its own."""
        return self._tenants.of(job), job.preemptible, job.shape

    def took(self, job: Job, placement: Placement) -> None:
        """Bind the cells that it goes to."""
        if not self._tenants.cells:
            return
        self.cells.take(job, placement)
        try:
            self._bare.take(job.shape, placement)
        except PlanError:
            return  # parts of GPUs that lie otherwise there; what it shows is tried on the pool itself in any case

    def until(self, job: Job) -> float:  # noqa: ARG002 - the protocol's
        """Never changes by time alone."""
        return math.inf

    def victims(self, job: Job) -> list[Job]:
        """Opportunistic jobs that are where the job is to go, the least lost work first, then the last started."""
        self._calling.add(job.id)
        if not self.owns(job):
            return []
        found = self._inside(job, self._pool.reach(job.shape) & ~self._queue.memo.withheld)
        nodes = {piece.node for piece in found or ()}
        there = [
            (cost, -one.placed, -one.id, one)
            for cost, one in self.going.values()
            if any(piece.node in nodes for piece in one.placement)
        ]
        return [one for *_, one in sorted(there, key=lambda entry: entry[:3])]

    def _as_it_is(self, shape: Shape, placement: Placement) -> Placement | None:
        """The placement if it is free now."""
        pool = self._pool
        if shape.gpu_milli:  # which part of which GPU is another question
            return self._fit(shape, pool, sum({1 << piece.node for piece in placement}))
        with pool.trial():
            try:
                pool.take(shape, placement)
            except PlanError:
                return None
        return placement

    # Inside cells -----------------------------------------------------------------------------------------------------

    def _inside(self, job: Job, nodes: int) -> Placement | None:
        """A placement in cells of its tenant, whoever else is there."""
        tenant = self._tenants.of(job)
        level = self._tenants.level(tenant, job.shape)
        for among in self._choices(tenant, level, job.shape):
            found = self._fit(job.shape, self._bare, nodes & among)
            if found is not None and self.cells.holds(job, found):
                return found
        return None

    def _fit(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """Within one of the sets that the shape may use, the preferred GPU type first."""
        for allowed in self._pool.allowed(shape):
            if allowed & nodes:
                found = best_fit(shape, pool, allowed & nodes)
                if found is not None:
                    return found
        return None

    def _choices(self, tenant: str, level: str, shape: Shape) -> Iterator[int]:
        """Node sets to try, in order: bound cells one by one, new ones one by one, then several together."""
        cells, bare = self.cells, self._bare
        if level == GPU:
            yield cells.parts & ~cells.whole
            yield from (self._pool.topology().parts(NODE)[index] for index in self._new(NODE))
            return
        parts = self._pool.topology().parts(level)
        mine = sorted(cells.nodes(tenant, level), key=lambda part: (bare.free_on(part & bare.up), part & -part))
        yield from mine
        left = cells.left(tenant, level)
        new = self._new(level) if left > 0 else []
        yield from (parts[index] for index in new if self._most(parts[index]) >= shape.total_gpus)
        together = 0
        for part in mine:
            together |= part
        yield together
        for index in new[:left]:
            together |= parts[index]
            yield together

    def _most(self, part: int) -> int:
        """GPUs that are free on a part if all leave that may."""
        return sum(self._bare.free[number] for number in bits(part & self._bare.up))

    def _new(self, level: str) -> list[int]:
        """Cells in which nothing is bound, those with the least work of opportunistic jobs first."""
        lost = self._lost.get(level)
        if lost is None:
            lost = self._lost[level] = lost_in(self._pool.topology().of(level), self.going.values())
        return sorted(self.cells.free(level), key=lambda index: lost.get(index, 0.0))
