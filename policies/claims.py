"""Making room: the running jobs that give way to one that does not fit, as one transaction."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..cluster.pool import Pool
from ..jobs.errors import PlanError
from ..jobs.job import Job, Placement
from .place import GATHERING
from .plan import Plan, Preemption
from .queue import Group, Key, Queue
from .reclaim import ByOrder, Reclaim
from .room import Place, Room

if TYPE_CHECKING:
    from .greedy import Greedy

ANYWHERE = -1
"""Every node, as a bit set."""
MOST_MOVED = 32
"""Claims of one pass up to which they are moved about to let an earlier victim stay."""
FEW = 6.0
"""Running jobs that are let go in a trial before it is found out where room could be made at all."""


class Claims(Room):
    """The claims of one pass. The pool is in a trial.

    Args:
        reclaim: who gives way to whom.
        policy: whose placement and order count.
        now: seconds.
        queue: the jobs.
        pool: what is free.
        plan: the preemptions are written to it.
        place: a placement of a job on nodes that are not withheld (a bit set).
    """

    __slots__ = ("_now", "_order", "_plan", "_queue", "_reclaim", "_sifts")

    def __init__(
        self,
        reclaim: Reclaim,
        policy: Greedy,
        now: float,
        *,
        queue: Queue,
        pool: Pool,
        plan: Plan,
        place: Place,
    ) -> None:
        super().__init__(queue, pool, place)
        self._reclaim = reclaim
        self._order = policy.ordering
        self._now = now
        self._queue = queue
        self._plan = plan
        # Whether hopeless claims can be told from others by where the later jobs are.
        self._sifts = isinstance(reclaim, ByOrder) and self._order.steady and policy.placer in GATHERING

    def make(self, job: Job, key: Key, group: Group) -> Placement | None:
        """Make room for a job that does not fit: it fits then, or nothing is done.

        It starts when its victims are gone; until then the nodes that it will go to are kept from others.
        """
        plan, memo = self._plan, self._memo
        told = {victim.id: victim for victim, _ in plan.preemptions} if plan.preemptions else {}
        memo.told = told
        if not (told or self._queue.running.vacating) and not self._reclaim.may(
            job, key, self._now, self._queue, self._order
        ):
            return None
        near, most = self._near(job, key, group, told)
        found = self._try(job, key, told, near, most) if near else None
        if found is None and near == ANYWHERE and most < math.inf and len(self._queue.running.jobs) > most:
            near = self._reachable(job, key, group, told)
            found = self._try(job, key, told, near, math.inf) if near else None
        if found is None:
            return None
        victims, claims, staying = found
        if staying:
            plan.preemptions = [one for one in plan.preemptions if one.job.id not in staying]
        plan.preemptions = [*plan.preemptions, *(Preemption(victim, job.id) for victim in victims)]
        memo.claims = claims
        memo.claimed = 0
        for _, places in claims:
            for piece in places:
                memo.claimed |= 1 << piece.node
        return claims[-1][1]

    # Where room could be made ---------------------------------------------------------------------------------------

    def _near(self, job: Job, key: Key, group: Group, told: dict[int, Job]) -> tuple[int, float]:
        """Nodes (a bit set) that the victims may be on, and how many jobs may be let go before that is looked into."""
        if not self._sifts:
            return ANYWHERE, math.inf
        size, _ = self._queue.reach.pieces(group, self._pool)
        if not size:
            return ANYWHERE, math.inf
        if self._queue.reach.known(group, key, size, self._pool, self._queue):
            return self._reachable(job, key, group, told), math.inf
        return ANYWHERE, FEW

    def _reachable(self, job: Job, key: Key, group: Group, told: dict[int, Job]) -> int:
        """Nodes (a bit set) that the victims may be on; 0 = there is no hope."""
        pool, shape = self._pool, job.shape
        size, pieces = self._queue.reach.pieces(group, pool)
        nodes = self._queue.reach.nodes(
            group, key, size, pool=pool, queue=self._queue, order=self._order, now=self._now
        )
        for victim in told.values():
            for piece in victim.placement:
                nodes |= 1 << piece.node
        if max(((nodes & allowed).bit_count() for allowed in pool.allowed(shape)), default=0) < pieces:
            return 0
        # The remainder of a total, and pieces that share a node, may be elsewhere.
        return nodes if size == shape.gpus and shape.num_nodes <= 1 else ANYWHERE

    # The transaction ------------------------------------------------------------------------------------------------

    def _try(
        self, job: Job, key: Key, told: dict[int, Job], near: int, most: float
    ) -> tuple[list[Job], list[tuple[Job, Placement]], set[int]] | None:
        """(victims, all claims with the places that they go to, ids of earlier victims that may stay)."""
        pool, memo, quotas = self._pool, self._memo, self._quotas
        leaving = self._queue.running.vacating
        outer = pool.begin()
        mark = 0 if quotas is None else quotas.mark()
        try:
            for other in (*leaving.values(), *told.values()):
                self._leave(other)
            for claim in memo.claims:
                pool.take(claim[0].shape, claim[1])
            victims: list[Job] = []
            placement = self._fits(job) if leaving or told else None
            if placement is None:
                placement, victims = self._displace(job, key, told.keys(), near, most)
            if placement is None:
                return None
            claims = [*memo.claims, (job, placement)]
            if not told or quotas is not None:
                return victims, claims, set()
            pool.take(job.shape, placement)
            return victims, claims, self._staying(told.values(), claims)
        finally:
            pool.rollback(outer)
            if quotas is not None:
                quotas.undo(mark)

    def _displace(
        self, job: Job, key: Key, told: Collection[int], near: int, most: float
    ) -> tuple[Placement | None, list[Job]]:
        """Let candidates leave one by one until the job fits; then those that were not needed come back.

        The order of Kueue: the first that should go leaves first, and the last that left comes back first.
        """
        pool = self._pool
        allowed = pool.reach(job.shape) & ~self._memo.withheld
        lacks = job.shape.total_gpus - pool.free_on(allowed)
        placement: Placement | None = None
        victims: list[Job] = []
        for candidate in self._reclaim.candidates(job, key, self._now, self._queue, self._order):
            if candidate.id in told or not _is_on(candidate, allowed & near):
                continue
            if len(victims) >= most:
                break
            self._leave(candidate)
            victims.append(candidate)
            lacks -= candidate.shape.total_gpus
            if lacks <= 0 and (placement := self._fits(job)) is not None:
                break
        if placement is None:
            return None, []
        for victim in reversed(victims[:-1]):
            pool.stay(victim.shape, victim.placement)
            if self._quotas is not None:
                self._quotas.took(victim, victim.placement)
            found = self._fits(job)
            if found is None:
                self._leave(victim)
            else:
                placement = found
                victims.remove(victim)
        return placement, victims

    def _staying(self, told: Iterable[Job], claims: list[tuple[Job, Placement]]) -> set[int]:
        """Victims of earlier claims of this pass that fit beside all claims after all, the first in the order first.

        A later claim may have displaced more than it takes. Where claims have to move for it, they do, as long as there
        are few: each victim that may stay is tried with all of them.
        """
        pool, order = self._pool, self._order
        stays: set[int] = set()
        if not pool.free_gpus:
            return stays
        for victim in sorted(told, key=lambda one: order.running(one, self._now, self._queue)):
            if victim.shape.total_gpus > pool.free_gpus:
                continue
            if self._back(victim):
                stays.add(victim.id)
                continue
            moved = self._moved_for(victim, claims) if len(claims) <= MOST_MOVED else None
            if moved is not None:
                claims[:] = moved
                stays.add(victim.id)
        return stays

    def _moved_for(self, victim: Job, claims: list[tuple[Job, Placement]]) -> list[tuple[Job, Placement]] | None:
        """Take a victim back and place all claims anew around it; None = one finds no place, and nothing is done."""
        pool = self._pool
        for claimant, placement in claims:
            pool.leave(claimant.shape, placement)
        pool.stay(victim.shape, victim.placement)
        moved: list[tuple[Job, Placement]] = []
        for claimant, _ in claims:
            found = self._fits(claimant)
            if found is None:
                break
            pool.take(claimant.shape, found)
            moved.append((claimant, found))
        if len(moved) == len(claims):
            return moved
        for claimant, placement in moved:
            pool.leave(claimant.shape, placement)
        pool.leave(victim.shape, victim.placement)
        for claimant, placement in claims:
            pool.take(claimant.shape, placement)
        return None

    def _back(self, victim: Job) -> bool:
        """Take a victim back where it was, if nobody is to go there."""
        try:
            self._pool.take(victim.shape, victim.placement)
        except PlanError:
            return False
        return True


def _is_on(job: Job, nodes: int) -> bool:
    """Whether any piece of it is on one of these nodes."""
    return any([nodes >> piece[0] & 1 for piece in job.placement])  # noqa: C419 - faster than a generator
