"""Consolidation: running jobs move elsewhere to make room for a gang, only if every one of them has a place to go to.

Free GPUs in the wrong pieces help no gang. What `Consolidate` does about it is one transaction on the pool: preemptible
jobs leave, the gang is placed, then each that left is placed again; if one finds no place, nothing is done. To the
engine it is a preemption of each moved job; the places are kept for all of them (`Plan.kept`) and renewed by each walk
until they have started there. So at no cost a moved job runs again at the instant at which it was stopped.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from ..cluster.pool import Pool, bits
from ..jobs.errors import PlanError
from ..jobs.job import Job, Placement, State
from .order import Order
from .placers.gangs import largest
from .plan import Plan, Preemption, Start, start_of
from .queue import Key, Queue
from .reclaim import lost_work, may_go, next_unguarded
from .room import Place, Room

TRIES = 8
"""Choices of jobs to move that are tried for one gang."""


class Consolidate:
    """A gang that does not fit although enough is free has others moved out of its way (as in NVIDIA's KAI scheduler).

    Node by node, where the least work is lost for room for one more piece: jobs that are preemptible and have had their
    minimum run time, those that lose the least work first, ties by the last started, then id. Those that turn out not
    to be needed stay. Moved jobs are placed again the widest first; where one finds no place the next choice without it
    is tried. Nobody loses its GPUs for good, so the order of the policy does not count for who moves.

    Cost: for each of the first `gangs` that need it in a pass, a look at all nodes and running jobs.

    Args:
        moves: the most jobs that are moved for one gang.
        gangs: how many gangs are looked at in one pass.
    """

    def __init__(self, *, moves: int = 8, gangs: int = 4) -> None:
        self.moves = moves
        self.gangs = gangs

    @property
    def name(self) -> str:
        """With its bound."""
        return f"consolidate, at most {self.moves} moves"

    def candidates(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:  # noqa: ARG002 - the protocol's
        """Nobody gives way for good."""
        return iter(())

    def may(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> bool:  # noqa: ARG002 - the protocol's
        """Nobody does."""
        return False

    def until(self, now: float, queue: Queue) -> float:
        """The next minimum run time that ends."""
        return next_unguarded(now, queue)


class _Clearing(NamedTuple):
    """What it costs to make room for one more piece on a node: GPU-seconds of lost work, and who moves."""

    lost: float
    moves: int
    node: int
    jobs: tuple[Job, ...]


class Moves(Room):
    """The moves of one pass. The pool is in a trial.

    Args:
        rule: with its bounds.
        now: seconds.
        queue: the jobs.
        pool: what is free.
        plan: preemptions and kept places are written to it.
        place: a placement of a job on nodes that are not withheld (a bit set).
    """

    def __init__(
        self,
        rule: Consolidate,
        now: float,
        *,
        queue: Queue,
        pool: Pool,
        plan: Plan,
        place: Place,
    ) -> None:
        super().__init__(queue, pool, place)
        self._rule = rule
        self._now = now
        self._queue = queue
        self._plan = plan
        self._left = rule.gangs

    # What was decided before ----------------------------------------------------------------------------------------

    def renew(self) -> list[Start]:
        """Kept places, as a full pass begins: who can starts there, for who cannot yet they are kept on.

        Returns:
            Those that waited for it, with their places.
        """
        plan, memo, queue = self._plan, self._memo, self._queue
        claimed = {job.id for job, _ in memo.claims}
        seen: list[Start] = []
        for job_id, (job, placement) in sorted(queue.kept.items()):
            vacating = job_id in queue.running.vacating
            waits = job.state is State.QUEUED and job.not_before <= self._now
            if job_id in claimed:
                continue
            if waits and self._may_go(job, placement) and self._take(job, placement):
                plan.starts.append(start_of((job, placement)))
                seen.append(start_of((job, placement)))
            elif (vacating or waits) and self._may_go(job, placement) and self._fits_later(job, placement):
                memo.claims.append((job, placement))
                seen.append(start_of((job, placement)))
            elif not vacating or not self._may_go(job, placement):
                plan.kept[job_id] = None
        self._count_claimed()
        return seen

    def _may_go(self, job: Job, placement: Placement) -> bool:
        if self._quotas is not None and job.state is State.QUEUED and self._quotas.refuses(job) is not None:
            return False
        nodes = 0
        for piece in placement:
            nodes |= 1 << piece.node
        return any(not nodes & ~allowed for allowed in self._pool.allowed(job.shape))

    def _take(self, job: Job, placement: Placement) -> bool:
        try:
            self._pool.take(job.shape, placement)
        except PlanError:
            return False
        return True

    def _fits_later(self, job: Job, placement: Placement) -> bool:
        """Whether it fits there when those are gone that were told to go."""
        pool = self._pool
        with pool.trial():
            for other in self._queue.running.vacating.values():
                pool.leave(other.shape, other.placement)
            return all(self._take(one, places) for one, places in self._memo.claims) and self._take(job, placement)

    def _count_claimed(self) -> None:
        claimed = 0
        for _, places in self._memo.claims:
            for piece in places:
                claimed |= 1 << piece.node
        self._memo.claimed = claimed

    # Making room ------------------------------------------------------------------------------------------------------

    def make(self, job: Job) -> Placement | None:
        """Make room for a job that does not fit by moving others, or do nothing."""
        pool, plan, memo, shape = self._pool, self._plan, self._memo, job.shape
        reach = pool.reach(shape) & ~memo.withheld
        if not shape.gpus or pool.free_on(reach) < shape.gpus * max(shape.num_nodes, 1):
            return None
        if not self._left:
            memo.until = self._now  # its turn comes when it is asked again
            return None
        self._left -= 1
        told = {victim.id for victim, _ in plan.preemptions}
        outer = pool.begin()
        mark = 0 if self._quotas is None else self._quotas.mark()
        try:
            for other in (*self._queue.running.vacating.values(), *(victim for victim, _ in plan.preemptions)):
                self._leave(other)
            for claim in memo.claims:
                pool.take(claim[0].shape, claim[1])
            found = None if self._fits(job) is not None else self._search(job, reach, told)
        finally:
            pool.rollback(outer)
            if self._quotas is not None:
                self._quotas.undo(mark)
        if found is None:
            memo.until = self._now  # other jobs may lose less, or be free to go, whenever it is asked again
            return None
        placement, moved = found
        plan.preemptions = [*plan.preemptions, *(Preemption(victim, job.id) for victim, _ in moved)]
        for start in (start_of((job, placement)), *moved):
            plan.kept[start.job.id] = start
            memo.claims.append((start.job, start.placement))
        self._count_claimed()
        return placement

    def _search(self, job: Job, reach: int, told: set[int]) -> tuple[Placement, list[Start]] | None:
        """(where the gang goes, where those go that are moved for it), for the first choice that works."""
        fixed = set(told)
        for _ in range(TRIES):
            outer = self._pool.begin()
            mark = 0 if self._quotas is None else self._quotas.mark()
            try:
                cleared = self._clear(job, reach, fixed)
                if cleared is None:
                    return None
                placement, victims = cleared
                self._pool.take(job.shape, placement)
                if self._quotas is not None:
                    self._quotas.took(job, placement)
                moved: list[Start] = []
                for victim in sorted(victims, key=lambda one: (-one.shape.total_gpus, one.id)):
                    places = self._fits(victim)
                    if places is None:
                        fixed.add(victim.id)
                        break
                    self._pool.take(victim.shape, places)
                    if self._quotas is not None:
                        self._quotas.took(victim, places)
                    moved.append(start_of((victim, places)))
                else:
                    return placement, moved
            finally:
                self._pool.rollback(outer)
                if self._quotas is not None:
                    self._quotas.undo(mark)
        return None

    def _clear(self, job: Job, reach: int, fixed: set[int]) -> tuple[Placement, list[Job]] | None:
        """Let jobs leave so that the gang fits; where it goes then, and who left. None = they cannot."""
        shape = job.shape
        for allowed in self._pool.allowed(shape):
            nodes = allowed & reach
            if self._pool.free_on(nodes) < shape.gpus * max(shape.num_nodes, 1):
                continue
            left: dict[int, Job] = {}
            outer = self._pool.begin()
            mark = 0 if self._quotas is None else self._quotas.mark()
            try:
                placement = self._clear_nodes(job, nodes, fixed, left)
                if placement is not None:
                    placement = self._spare(job, left, placement)
            finally:
                self._pool.rollback(outer)
                if self._quotas is not None:
                    self._quotas.undo(mark)
            if placement is not None:
                for one in left.values():
                    self._leave(one)
                return placement, list(left.values())
        return None

    def _clear_nodes(self, job: Job, nodes: int, fixed: set[int], left: dict[int, Job]) -> Placement | None:
        """Room for one more piece at a time, where that costs least, until it fits; who leaves is put into `left`."""
        shape = job.shape
        size = shape.gpus if shape.num_nodes else min(shape.gpus, largest(shape, self._pool, nodes))
        heap = [found for number in bits(nodes) if (found := self._clearing(number, size, fixed, left))]
        heapify(heap)
        while heap:
            node = heappop(heap)
            stale = any(one.id in left for one in node.jobs)  # one on several nodes left meanwhile
            if not stale:
                if len(left) + node.moves > self._rule.moves:
                    continue
                for one in node.jobs:
                    left[one.id] = one
                    self._leave(one)
                placement = self._fits(job)
                if placement is not None:
                    return placement
            if (stale or not shape.distinct) and (found := self._clearing(node.node, size, fixed, left)):
                heappush(heap, found)
        return None

    def _spare(self, job: Job, left: dict[int, Job], placement: Placement) -> Placement:
        """Those come back that the gang fits beside after all, the last that left first; where it goes then."""
        for one in reversed(list(left.values())[:-1]):
            self._pool.stay(one.shape, one.placement)
            if self._quotas is not None:
                self._quotas.took(one, one.placement)
            found = self._fits(job)
            if found is None:
                self._leave(one)
            else:
                placement = found
                del left[one.id]
        return placement

    def _clearing(self, number: int, size: int, fixed: set[int], left: dict[int, Job]) -> _Clearing | None:
        """The cheapest way to room for one more piece of so many GPUs on a node; None = there is none."""
        free = self._pool.free[number]
        lacks = size * (free // size + 1) - free
        if free + lacks > self._pool.nodes[number].gpus:
            return None
        there = [
            (lost_work(one, self._now), -one.placed, -one.id, one, gpus)
            for one, gpus in self._queue.running.on_node.get(number, {}).values()
            if one.id not in fixed
            and one.id not in left
            and one.placed < self._now
            and may_go(one, self._now, self._queue)
        ]
        there.sort()
        jobs: list[tuple[float, Job, int]] = []
        for lost, _, _, one, gpus in there:
            if lacks <= 0:
                break
            if gpus:
                jobs.append((lost, one, gpus))
                lacks -= gpus
        if lacks > 0:
            return None
        for entry in reversed(jobs[:-1]):
            if lacks + entry[2] <= 0:
                lacks += entry[2]
                jobs.remove(entry)
        return _Clearing(sum(lost for lost, _, _ in jobs), len(jobs), number, tuple([one for _, one, _ in jobs]))
