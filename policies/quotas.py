"""Quotas as a policy meets them: whether a job's queue may have more, and whose jobs give way when it should.

Held GPUs are counted along the tree by `quota.Usage`; here are the jobs that hold them, the limits on users and
numbers of jobs, and the question that a walk through the queue asks. The words and rules are Kueue's; that work which
cannot be preempted stays within the nominal quota is KAI's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from ..cluster.pool import Pool, piece_needs
from ..jobs.job import Job, Placement, Shape
from .plan import Lane, Token
from .quota import Usage, milli
from .stoppable import Stoppable
from .tree import CPUS, GPUS, QueueNode, Tree

FIXED = "fixed"
"""The last word of the lane of jobs that cannot be preempted: they may not borrow where others may."""


def lane_in(tree: Tree) -> _LaneOf:
    """Which jobs share a turn in these queues: those of a queue, and of a user where users have limits."""
    return _LaneOf(tree)


class _LaneOf:
    """(queue, user or empty[, FIXED]) of a job."""

    def __init__(self, tree: Tree) -> None:
        self._resolve = tree.resolve
        self._by_user = {
            node.name
            for node in tree.queues
            if any(
                one.limits.user_gpus is not None or one.limits.user_running_jobs is not None
                for one in tree.path(node.name)
            )
        }

    def __call__(self, job: Job) -> Lane:
        queue = self._resolve(job.queue)
        user = job.user if queue in self._by_user else ""
        return (queue, user) if job.preemptible else (queue, user, FIXED)


class Quotas:
    """What the queues of a tree hold, which jobs hold it, and what each may still take.

    A ledger with undo, like the pool: while a plan is made its starts are counted in, and taken back at the end.

    Args:
        tree: the queues.
        pool: the cluster, for the types of its nodes.

    Attributes:
        stoppable: the preemptible jobs that hold GPUs, by queue.
    """

    def __init__(self, tree: Tree, pool: Pool) -> None:
        self.tree = tree
        self.pool = pool
        self.usage = Usage(tree)
        self.stoppable: dict[str, Stoppable] = {}
        self._counted: set[int] = set()  # ids of the jobs that hold GPUs in one of these queues
        self._counts: dict[str, int] = {}  # running jobs by queue, those of the queues below it included
        self._by_user: dict[tuple[str, str], list[float]] = {}  # (queue, user) -> [GPUs, jobs], the same
        self._typed = [flavour for flavour in tree.flavours if flavour not in {GPUS, CPUS}]
        self._nodes: dict[str, int] = {}
        self._layout = -1
        self._log: list[tuple[Job, Placement, int]] = []

    # What happened ------------------------------------------------------------------------------------------------

    def started(self, job: Job) -> None:
        """It holds its placement."""
        queue = self.tree.resolve(job.queue)
        if queue in self.tree:
            self._counted.add(job.id)
            self.stoppable.setdefault(queue, Stoppable()).add(job)
            self._change(job, job.placement, 1)

    def ended(self, job: Job, time: float) -> None:  # noqa: ARG002 - a Book's
        """It holds nothing any more."""
        if job.id in self._counted:
            self._counted.discard(job.id)
            self.stoppable[self.tree.resolve(job.queue)].discard(job)
            self._change(job, job.placement, -1)

    # What a plan tries --------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Where to go back to."""
        return len(self._log)

    def undo(self, mark: int) -> None:
        """Take back all that was tried since."""
        while len(self._log) > mark:
            job, placement, sign = self._log.pop()
            self._change(job, placement, -sign)

    def took(self, job: Job, placement: Placement) -> None:
        """As if it started there."""
        self._log.append((job, placement, 1))
        self._change(job, placement, 1)

    def gave(self, job: Job) -> None:
        """As if a running job had given back what it holds."""
        self._log.append((job, job.placement, -1))
        self._change(job, job.placement, -1)

    def _change(self, job: Job, placement: Placement, sign: int) -> None:
        queue = self.tree.resolve(job.queue)
        if queue not in self.tree:
            return
        for node in self.tree.path(queue):
            self._counts[node.name] = self._counts.get(node.name, 0) + sign
            if node.limits.user_gpus is not None or node.limits.user_running_jobs is not None:
                held = self._by_user.setdefault((node.name, job.user), [0.0, 0.0])
                held[0] += sign * job.shape.total_gpus
                held[1] += sign
        for flavour, amount in self._amounts(job.shape, placement):
            self.usage.add(queue, flavour, sign * amount)

    def _amounts(self, shape: Shape, placement: Placement) -> Iterator[tuple[str, float]]:
        """(flavour, amount) that a placement counts for."""
        flavours = self.tree.flavours
        if GPUS in flavours:
            yield GPUS, shape.total_gpus
        if CPUS in flavours and shape.cpu_milli:
            yield CPUS, sum(piece_needs(shape, piece)[0] for piece in placement) / 1000
        for flavour in self._typed:
            of_type = self._nodes_of(flavour)
            amount = sum(piece.gpus + piece.gpu_milli / 1000 for piece in placement if of_type >> piece.node & 1)
            if amount:
                yield flavour, amount

    def _nodes_of(self, flavour: str) -> int:
        """The nodes of a GPU type, as a bit set; also those that are away, for what is still counted there."""
        if self._layout != self.pool.layout:
            self._layout = self.pool.layout
            self._nodes = {}
            for number, node in enumerate(self.pool.nodes):
                kind = node.gpu_type.lower()
                self._nodes[kind] = self._nodes.get(kind, 0) | 1 << number
        return self._nodes.get(flavour.lower(), 0)

    # What a queue may take ----------------------------------------------------------------------------------------

    def refuses(self, job: Job) -> Token | None:
        """Why its queue may not start this job now, wherever it went; None = it may."""
        tree = self.tree
        queue = tree.resolve(job.queue)
        if not tree.takes_jobs(queue):
            return Token.QUEUE_NOT_FOUND
        shape = job.shape
        for node in tree.path(queue):
            token = self._limited(node, job)
            if token is not None:
                return token
        if not self._may(job, queue, GPUS, shape.total_gpus):
            return Token.QUOTA_EXCEEDED
        if shape.cpu_milli and not self._may(job, queue, CPUS, max(shape.num_nodes, 1) * shape.cpu_milli / 1000):
            return Token.QUOTA_EXCEEDED
        if self._typed and shape.total_gpus:
            barred = self.barred(job)
            if barred and not any(nodes & ~barred for nodes in self.pool.allowed(shape)):
                return Token.QUOTA_EXCEEDED
        return None

    def _limited(self, node: QueueNode, job: Job) -> Token | None:
        """What a queue on the job's path says, quotas apart."""
        limits = node.limits
        if node.paused:
            return Token.QUEUE_PAUSED
        if limits.running_jobs is not None and self._counts.get(node.name, 0) >= limits.running_jobs:
            return Token.QUOTA_EXCEEDED
        if limits.job_gpus is not None and job.shape.total_gpus > limits.job_gpus:
            return Token.QUOTA_EXCEEDED
        gpus, jobs = self._by_user.get((node.name, job.user), (0.0, 0.0))
        if limits.user_gpus is not None and gpus + job.shape.total_gpus > limits.user_gpus:
            return Token.USER_LIMIT
        if limits.user_running_jobs is not None and jobs >= limits.user_running_jobs:
            return Token.USER_LIMIT
        return None

    def running(self, queue: str) -> int:
        """Jobs that hold GPUs, of a queue and those below it."""
        return self._counts.get(queue, 0)

    def held_by(self, queue: str, user: str) -> tuple[float, int]:
        """(GPUs, jobs) of a user in a queue and those below it; counted where that queue limits its users."""
        gpus, jobs = self._by_user.get((queue, user), (0.0, 0))
        return gpus, int(jobs)

    def barred(self, job: Job) -> int:
        """Nodes (a bit set) of the GPU types that its queue may have no more of."""
        queue, gpus = self.tree.resolve(job.queue), job.shape.total_gpus
        barred = 0
        for flavour in self._typed:
            if not self._may(job, queue, flavour, gpus):
                barred |= self._nodes_of(flavour)
        return barred

    def _may(self, job: Job, queue: str, flavour: str, amount: float) -> bool:
        """Whether it may take so much of a flavour: within the headroom, and of its own if nobody can stop it."""
        if not self.usage.fits(queue, flavour, amount):
            return False
        if job.preemptible or self.tree[queue].non_preemptible_may_borrow:
            return True
        return not self._over(queue, flavour, amount)

    def borrows(self, job: Job) -> bool:
        """Whether its queue would hold more than is its own with this job."""
        queue = self.tree.resolve(job.queue)
        if queue not in self.tree:
            return False
        gpus = job.shape.total_gpus
        kinds = {kind.lower() for kind in job.shape.gpu_types}
        typed = [flavour for flavour in self._typed if flavour.lower() in kinds]
        return any(self._over(queue, flavour, gpus) for flavour in (GPUS, *typed))

    def _over(self, queue: str, flavour: str, amount: float) -> bool:
        """Whether a queue would be above its own and lent quota of a flavour with so much more."""
        return milli(self.usage.over_nominal(queue, flavour, amount)) > 0

    def above(self, queue: str, claimant: str) -> bool:
        """Whether a queue holds more than its own, as seen from another: up to where their paths meet."""
        tree = self.tree
        shared = {node.name for node in tree.path(claimant)}
        for node in tree.path(queue):
            if node.name in shared:
                return True
            if not any(self.usage.over_nominal(node.name, flavour) > 0 for flavour in tree.flavours):
                return False
        return False  # they have no queue in common: neither lends to the other

    def min_runtime(self, job: Job) -> float:
        """Seconds that a job's queue lets it run before it may be preempted."""
        queue = self.tree.resolve(job.queue)
        return self.tree.min_runtime(queue) if queue in self.tree else 0.0

    def fairer(self, job: Job, victim: Job) -> bool:
        """Whether the claimant's queue would hold no larger share of what is borrowed than the victim's keeps.

        Shares are compared where the two paths meet. Kueue's first rule; with it two queues of one cohort cannot
        preempt each other in turn.
        """
        tree = self.tree
        mine, theirs = tree.path(tree.resolve(job.queue)), tree.path(tree.resolve(victim.queue))
        above = {node.name for node in theirs} & {node.name for node in mine}
        claimant = next(node for node, up in pairwise(mine) if up.name in above)
        loser = next(node for node, up in pairwise(theirs) if up.name in above)
        after = self.borrowed_share(claimant, job.shape.total_gpus)
        return after <= self.borrowed_share(loser, -victim.shape.total_gpus)

    def borrowed_share(self, node: QueueNode, more: float = 0.0) -> float:
        """A queue's GPUs beyond its own, as a share of what its parent's pool lends, over its weight."""
        most = 0.0
        for flavour in self.tree.flavours:
            lendable = self.tree.subtree_quota(node.parent or node.name, flavour)
            if lendable and lendable < math.inf:
                most = max(most, self.usage.over_nominal(node.name, flavour, more) / lendable)
        return most / node.weight if node.weight else math.inf if most else 0.0
