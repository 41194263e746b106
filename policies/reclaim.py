"""Who gives way to whom: the running jobs that a job which does not fit may displace.

A reclaim rule only names candidates. `Greedy` tries them as one transaction: as many as it takes to fit the claimant,
none if all together would not do, and those that turn out not to be needed stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

from ..jobs.events import Kind
from ..jobs.job import Job, State
from .order import Order
from .queue import Key, Queue
from .tree import Rule

if TYPE_CHECKING:
    from .quotas import Quotas


class Reclaim(Protocol):
    """A rule for who gives way."""

    @property
    def name(self) -> str:
        """The rule and its numbers, as reports show it."""
        ...

    def candidates(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:
        """Running jobs that may be told to go so that `job`, whose key is `key`, can start; who goes first comes first.

        Not among them: jobs that are not preemptible, that have not had their minimum run time, or that were told to
        go already.
        """
        ...

    def may(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> bool:
        """Whether there may be candidates at all; to be told at little cost."""
        ...

    def until(self, now: float, queue: Queue) -> float:
        """The time at which there may be more candidates although nothing happened; infinity = never."""
        ...


class OverQueues:
    """Base of rules that themselves say who gives way among the site's queues; `ByQuota` does not stand before them."""


def may_go(job: Job, now: float, queue: Queue) -> bool:
    """Whether a running job may be preempted at all now."""
    if not job.preemptible or job.state not in {State.STARTING, State.RUNNING}:
        return False
    return now >= queue.running.guarded.get(job.id, now)


def lost_work(job: Job, now: float) -> float:
    """GPU-seconds that are thrown away if it goes now: all since its last checkpoint, or its start."""
    return job.shape.total_gpus * (max(0.0, now - max(job.placed, job.saved)) % job.saves_every)


class ByOrder:
    """Whoever goes first may displace whoever goes later in the same order, the last one first.

    A job that was preempted at this instant and placed again at it stays, so that nobody takes turns at one instant.
    """

    name = "preempt"

    def candidates(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:  # noqa: ARG002 - the protocol's
        """Running jobs later in the order, the last one first. O(shapes) a candidate."""
        for candidate in _later(key, now, queue, order) if order.scattered else _last_first(key, now, queue, order):
            if not may_go(candidate, now, queue):
                continue
            if candidate.placed == now == candidate.queued and candidate.stop_cause == Kind.PREEMPTED:
                queue.memo.until = min(queue.memo.until, math.nextafter(now, math.inf))
                continue
            yield candidate

    def may(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> bool:  # noqa: ARG002 - the protocol's
        """Whether anybody is later in the order. O(shapes) the first time at one moment."""
        if order.scattered:
            return bool(queue.running.by_shape)
        return max(_lasts(now, queue, order)[1], default=key) > key

    def until(self, now: float, queue: Queue) -> float:
        """The next minimum run time that ends."""
        return next_unguarded(now, queue)


def _last_first(key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:
    """Those later in the order than a key: of each shape the last is known, so the last of all is one of few."""
    lasts = _lasts(now, queue, order)
    lines, worst = list(lasts[0]), list(lasts[1])
    at = [len(alike) - 1 for alike in lines]
    while worst:
        last = max(range(len(worst)), key=worst.__getitem__)
        if worst[last] <= key:
            return
        yield lines[last][at[last]][1]
        at[last] -= 1
        if at[last] < 0:
            del lines[last], at[last], worst[last]
        else:
            worst[last] = order.running(lines[last][at[last]][1], now, queue)


def _lasts(now: float, queue: Queue, order: Order) -> tuple[list[list[tuple[Key, Job]]], list[Key]]:
    """The running jobs of each shape, and the key of the last of them."""
    running = queue.running
    stamp = (now, running.version, running.turns)
    if running.lasts[0] != stamp:
        lines = [alike for alike in running.by_shape.values() if alike]
        running.lasts = stamp, lines, [order.running(alike[-1][1], now, queue) for alike in lines]
    return running.lasts[1:]


def _later(key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:
    """The same by looking at all of them."""
    found = [one for alike in queue.running.by_shape.values() for _, one in alike]
    ranked = sorted(((order.running(one, now, queue), one) for one in found), key=itemgetter(0), reverse=True)
    yield from (one for rank, one in ranked if rank > key)


class ByPriority:
    """Jobs of a lower priority give way: the lowest first, among them the least lost work, then the last started."""

    name = "preempt lower priority"

    def candidates(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:  # noqa: ARG002 - the protocol's
        """Running jobs of a lower priority than the claimant's."""
        lower = queue.running.stoppable.below(job.priority, partial(_cost, now=now))
        return (one for one in lower if may_go(one, now, queue))

    def may(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> bool:  # noqa: ARG002 - the protocol's
        """Whether anybody of a lower priority may be stopped. O(priorities)."""
        return queue.running.stoppable.any_below(job.priority)

    def until(self, now: float, queue: Queue) -> float:
        """The next minimum run time that ends."""
        return next_unguarded(now, queue)


class ByQuota:
    """Who gives way among the queues of a site, by the rules that they are configured with (Kueue's words).

    A claimant that stays within its queue's nominal quota may take back what other queues of its tree hold beyond
    theirs (`reclaim_within_cohort`); one that borrows may only displace other borrowers, if `borrow_within_cohort`
    lets it. Within its own queue it displaces jobs of lower priority (`within_queue`). Jobs of borrowing queues go
    first, then low priority, then the least lost work, then the last started. A queue that is back at its nominal quota
    gives no more.

    Two queues cannot preempt each other in a circle: the claimant's ends within its nominal quota, and only a queue
    above its own is a victim's.

    Args:
        inside: the policy's own rule; it holds among the jobs of one queue.
        fair: a claimant that borrows may also displace jobs of a queue whose weighted share of borrowed GPUs stays at
            least as large as its own becomes (Kueue's fair sharing, LessThanOrEqualToFinalShare).
    """

    name = "the queues' own rules"

    def __init__(self, inside: Reclaim | None = None, *, fair: bool = False) -> None:
        self._inside = inside
        self._fair = fair
        self._borrowers: dict[str, list[Job]] = {}  # by the claimant's queue, for the pass that this is made for

    def candidates(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> Iterator[Job]:
        """Jobs of other queues first, then of its own."""
        quotas = queue.quotas
        assert quotas is not None, "there are no queues whose rules could hold"
        mine = quotas.tree.resolve(job.queue)
        if not quotas.tree.takes_jobs(mine):
            return
        rule, fair = self._rule(job, mine, quotas)
        for other in self._others(mine, now, queue, quotas) if rule != "never" else ():
            if rule == "lower_priority" and other.priority >= job.priority:
                continue
            theirs = quotas.tree.resolve(other.queue)
            if quotas.above(theirs, mine) and (not fair or quotas.fairer(job, other)):
                yield other
        if quotas.tree[mine].preemption.within_queue != "never" and mine in quotas.stoppable:
            own = quotas.stoppable[mine].below(job.priority, partial(_cost, now=now))
            yield from (one for one in own if may_go(one, now, queue))
        if self._inside is not None:
            for other in self._inside.candidates(job, key, now, queue, order):
                if quotas.tree.resolve(other.queue) == mine and other.priority >= job.priority:
                    yield other

    def _rule(self, job: Job, mine: str, quotas: Quotas) -> tuple[Rule, bool]:
        """Whose jobs of other queues it may displace, and whether shares decide."""
        rules = quotas.tree[mine].preemption
        if not quotas.borrows(job):
            return rules.reclaim_within_cohort, False
        return ("any", True) if self._fair else (rules.borrow_within_cohort, False)

    def _others(self, mine: str, now: float, queue: Queue, quotas: Quotas) -> list[Job]:
        """The jobs of queues that borrow, as seen from one queue, who goes first before the others. Sorted once."""
        found = self._borrowers.get(mine)
        if found is None:
            found = [
                other
                for name, jobs in quotas.stoppable.items()
                if name != mine and jobs and quotas.above(name, mine)
                for other in jobs.all()
                if may_go(other, now, queue)
            ]
            found.sort(key=partial(_cost, now=now))
            self._borrowers[mine] = found
        return found

    def may(self, job: Job, key: Key, now: float, queue: Queue, order: Order) -> bool:
        """Whether a queue borrows, or one of a lower priority runs in its own. Looked up once a pass for each queue."""
        quotas = queue.quotas
        assert quotas is not None, "there are no queues whose rules could hold"
        mine = quotas.tree.resolve(job.queue)
        if not quotas.tree.takes_jobs(mine):
            return False
        own = quotas.stoppable.get(mine)
        if own is not None and quotas.tree[mine].preemption.within_queue != "never" and own.any_below(job.priority):
            return True
        if self._inside is not None and self._inside.may(job, key, now, queue, order):
            return True
        return self._rule(job, mine, quotas)[0] != "never" and bool(self._others(mine, now, queue, quotas))

    def until(self, now: float, queue: Queue) -> float:
        """The next minimum run time that ends, or what the policy's own rule says."""
        return min(next_unguarded(now, queue), math.inf if self._inside is None else self._inside.until(now, queue))


def next_unguarded(now: float, queue: Queue) -> float:
    """When the next minimum run time ends; infinity = none is under way."""
    return min((end for end in queue.running.guarded.values() if end > now), default=math.inf)


def _cost(job: Job, now: float) -> tuple[float, float, float, int]:
    """Who goes first among those that may: low priority, little lost work, started last."""
    return job.priority, lost_work(job, now), -job.placed, -job.id
