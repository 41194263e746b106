"""One walk through the queue: each group's first job in order is started, makes room for itself, or waits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Any

from ..cluster.pool import Pool
from ..jobs.job import Job, Placement
from .claims import Claims
from .consolidate import Consolidate, Moves
from .order import Ranks
from .placers.levels import choices
from .plan import Plan, Token, start_of
from .queue import Group, Key, Queue
from .reasons import never, not_now, numbers
from .reclaim import ByQuota, OverQueues, Reclaim

if TYPE_CHECKING:
    from .greedy import Greedy

_Entry = tuple[Key, int, Job, Group]
"""(key, group number, job, its group)."""


class Walk:
    """What a walk needs at hand. The pool is in a trial: what starts is taken from it.

    Args:
        policy: whose placement, blocking rule and reclaim rule count.
        now: seconds.
        queue: the jobs.
        pool: what is free.
        plan: what the answer is written to.
        ranks: how the groups stand to each other, if the keys of their first jobs do not say it.

    Attributes:
        moving: whether a group's rank may change although its first job stays the same.
        reclaim: who gives way to whom; None = nobody does.
    """

    __slots__ = (
        "_failed",
        "_finder",
        "_memo",
        "_moves",
        "_now",
        "_plan",
        "_policy",
        "_pool",
        "_queue",
        "_quotas",
        "_ranks",
        "_room",
        "_seen_to",
        "moving",
        "reclaim",
    )

    def __init__(
        self, policy: Greedy, now: float, *, queue: Queue, pool: Pool, plan: Plan, ranks: Ranks | None
    ) -> None:
        self._policy = policy
        self._now = now
        self._queue = queue
        self._memo = queue.memo
        self._pool = pool
        self._plan = plan
        self._ranks = ranks
        self._quotas = queue.quotas
        self.moving = ranks is not None or queue.quotas is not None
        self._finder = None if policy.finding is None else policy.finding.finder(now, queue, pool)
        self._seen_to: set[int] = set()  # jobs that start or wait for victims by what was decided before
        self._failed: dict[Any, int] = {}  # by peers: the fewest GPUs that did not fit in this walk
        self.reclaim: Reclaim | None = None
        self._room: Claims | None = None
        self._moves: Moves | None = None
        if policy.reclaim is not None or queue.quotas is not None:
            self._may_stop(policy)

    def _may_stop(self, policy: Greedy) -> None:
        """Prepare to make room, by whatever rules there are."""
        now, queue, pool, plan = self._now, self._queue, self._pool, self._plan
        # What the site's queues say on who gives way to whom goes before what the policy says.
        moves = isinstance(policy.reclaim, Consolidate)
        stops = None if moves else policy.reclaim
        own = queue.quotas is None or isinstance(stops, OverQueues)
        self.reclaim = stops if own else ByQuota(stops, fair=policy.fair)
        self._room = (
            None
            if self.reclaim is None
            else Claims(self.reclaim, policy, now, queue=queue, pool=pool, plan=plan, place=self._place)
        )
        self._moves = (
            Moves(policy.reclaim, now, queue=queue, pool=pool, plan=plan, place=self._place)
            if isinstance(policy.reclaim, Consolidate)
            else None
        )

    def over(self, groups: Iterable[Group]) -> None:
        """Go through the heads of these groups in order; the rest of a group follows its head."""
        memo = self._memo
        self._go_on_with()
        heap = self._heads(groups)
        bare = sum([not entry[3].needs for entry in heap])  # groups that need no GPU
        while heap:
            key, _, job, group = heap[0]
            own = key if self._quotas is None else key[2:]
            if not self.moving:
                memo.last = max(memo.last, key)
            elif (rank := self._rank(group, own, job)) > key:
                heapreplace(heap, (rank, group.number, job, group))  # its lane got something meanwhile
                continue
            if job.id in self._seen_to:
                bare -= self._go_on(heap, group)
                continue
            ahead = memo.classes.get(group.size_class, 0) if memo.classes else 0
            refused = None if self._quotas is None else self._quotas.refuses(job)
            if not ahead and ((refused is None and self._starts(job, group)) or self._claims(job, own, group)):
                bare -= self._go_on(heap, group)
                continue
            # The rest of the group asks for the same and waits too.
            heappop(heap)
            bare -= not group.needs
            if refused is not None and not ahead:
                group.misfit = -1
                self._tell(group, refused, 0)  # it holds up nobody: others have quotas of their own
                continue
            self._misfit(group, ahead)
            if not ahead and self._blocks(job, group):
                memo.behind = job.id
                memo.barrier = group
                self.wait_behind([entry[3] for entry in heap], job.id)
                return
            if not bare and self._nothing_left():
                # What those that follow would withhold matters to nobody until a job comes that needs no GPU.
                memo.cut = True
                for entry in heap:
                    self._misfit(entry[3], memo.classes.get(entry[3].size_class, 0))
                return

    def _go_on_with(self) -> None:
        """What earlier walks decided: who waits for victims still does, who was moved goes where it was to go."""
        memo = self._memo
        if not memo.claims and not self._queue.kept:
            return
        decided = [start_of(claim) for claim in memo.claims]
        if self._moves is not None and self._queue.kept:
            decided += self._moves.renew()
        for job, placement in decided:
            self._took(job, placement)
            self._seen_to.add(job.id)
        for job, _ in memo.claims:
            group = self._queue.group_of(job)
            if group is not None and group.first() is job:
                self._tell(group, Token.WAITING_FOR_VICTIMS, 0)

    def still_blocked(self, group: Group) -> bool:
        """After room came free: whether the job that goes before all others, which is in this group, still waits."""
        job, memo = group.first(), self._memo
        if job is None or job.id != memo.behind or self._place(job, 0) is not None:
            return False
        memo.withheld = memo.blocker = 0
        self._misfit(group, 0)
        self._blocks(job, group)
        return True

    def wait_behind(self, groups: Iterable[Group], job_id: int) -> None:
        """These wait because that job goes first."""
        for group in groups:
            if group.count and group.never is None:
                self._tell(group, Token.PRIORITY, job_id)

    def _heads(self, groups: Iterable[Group]) -> list[_Entry]:
        """The first job of each group that this cluster could ever hold, as a heap by key."""
        heap: list[_Entry] = []
        moving, layout = self.moving, self._pool.layout
        for group in groups:
            head = group.head()
            if head is None:
                continue
            if group.layout != layout:
                group.layout = layout
                group.never = never(group.shape, self._pool, self._policy.place)
            if group.never is not None:
                # It holds up nobody: what can never start must not keep others from starting.
                self._tell(group, group.never, 0)
                continue
            heap.append((self._rank(group, *head) if moving else head[0], group.number, head[1], group))
        heapify(heap)
        return heap

    def _go_on(self, heap: list[_Entry], group: Group) -> bool:
        """The next job of the first group is its head now. True = there is none, and the group needs no GPU."""
        following = group.following()
        if following is None:
            heappop(heap)
            return not group.needs
        heapreplace(heap, (self._rank(group, *following), group.number, following[1], group))
        return False

    def _rank(self, group: Group, key: Key, job: Job) -> Key:
        """Where a group stands by its first job: as the order says.

        Among configured queues one for which others gave way goes first, then whoever stays within its own.
        """
        rank = key if self._ranks is None else self._ranks.of(group, job)
        if self._quotas is None:
            return rank
        return (job.id not in self._queue.claimants, self._quotas.borrows(job), *rank)

    # Start --------------------------------------------------------------------------------------------------------

    def _starts(self, job: Job, group: Group) -> bool:
        """Start it if it fits what nobody withholds."""
        shape, failed, finder = group.shape, self._failed, self._finder
        size = shape.gpus or shape.gpu_milli
        peers = group.peers if finder is None else (group.peers, finder.alike(job))
        if failed and size >= failed.get(peers, math.inf):
            self._wait(job)
            return False
        barred = 0 if self._quotas is None else self._quotas.barred(job)
        placement = self._place(job, self._memo.withheld | self._memo.claimed | barred)
        if placement is None:
            if not barred:  # what its queue may not have others may
                failed[peers] = size
            self._wait(job)
            return False
        self._pool.take(shape, placement)
        self._plan.starts.append(start_of((job, placement)))
        group.misfit = -1
        self._took(job, placement)
        return True

    def _wait(self, job: Job) -> None:
        """It does not fit now: when it may although nothing happens."""
        if self._finder is not None:
            self._memo.wake = min(self._memo.wake, self._finder.until(job))

    def _place(self, job: Job, withheld: int) -> Placement | None:
        """A placement on the nodes that the shape allows and nobody withholds, the preferred GPU type first."""
        shape, finder = job.shape, self._finder
        for allowed in self._pool.allowed(shape) if shape.topology is None else choices(shape, self._pool):
            nodes = allowed & ~withheld if withheld else allowed
            placement = self._policy.place(shape, self._pool, nodes) if finder is None else finder.place(job, nodes)
            if placement is not None:
                return placement
        return None

    def _took(self, job: Job, placement: Placement) -> None:
        if self._ranks is not None:
            self._ranks.took(job)
        if self._quotas is not None:
            self._quotas.took(job, placement)
        if self._finder is not None:
            self._finder.took(job, placement)

    def _claims(self, job: Job, key: Key, group: Group) -> bool:
        """Make room for a job that does not fit, if others move or give way to it."""
        if self._room is None and self._moves is None:
            return False
        placement = None if self._moves is None else self._moves.make(job)
        if placement is None and self._room is not None:
            placement = self._room.make(job, key, group)
        if placement is None:
            return False
        self._took(job, placement)
        self._tell(group, Token.WAITING_FOR_VICTIMS, 0)
        return True

    # Or wait ------------------------------------------------------------------------------------------------------

    def _blocks(self, job: Job, group: Group) -> bool:
        """A job could not start: what it withholds from those behind it. True = every node."""
        blocking, memo, pool = self._policy.blocking, self._memo, self._pool
        if blocking.by_class:
            memo.classes[group.size_class] = job.id
        until = blocking.until(job)
        if self._now < until < memo.until:
            memo.until = until
        withheld = blocking.withheld(job, self._now, pool, memo.withheld)
        if withheld:
            memo.blocker = memo.blocker or job.id
            memo.withheld |= withheld
        return withheld != 0 and memo.withheld & pool.up == pool.up

    def _nothing_left(self) -> bool:
        """Whether no GPU is left to give, and none can be got."""
        pool = self._pool
        return self.reclaim is None and not pool.sharing and not pool.free_on(pool.up & ~self._memo.withheld)

    def _misfit(self, group: Group, ahead: int) -> None:
        """The group waits: `ahead` is the job of its class that it waits behind, 0 when it simply did not fit."""
        pool, memo = self._pool, self._memo
        group.misfit = pool.growth
        token = Token.PRIORITY if ahead else not_now(group.shape, group.needs, pool, memo.withheld | memo.claimed)
        if token is Token.FRAGMENTED and self._finder is not None:
            token = self._finder.lacks  # there is room, and not where it may go now
        self._tell(group, token, ahead or memo.blocker)

    def _tell(self, group: Group, token: Token, behind: int) -> None:
        """Give the group's reason, if it is a new one; its numbers are those of the moment when it became so."""
        if group.why is None or group.why.token is not token:
            group.why = numbers(token, group.shape, group.needs, self._pool, behind)
            self._plan.waiting[group.line] = group.why
