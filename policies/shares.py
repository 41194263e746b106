"""Dominant resource fairness, flat and along a tree of queues: who holds the least of what they use most goes first.

Sources: Ghodsi et al., "Dominant Resource Fairness", NSDI 2011; Bhattacharya et al., "Hierarchical Scheduling for
Diverse Datacenter Workloads", SoCC 2013 (H-DRF). Choices: shares are of what jobs hold now, not of the past; resources
are GPUs (of all types together), CPUs and memory; a job that does not fit is passed over by the blocking rule; one
user's jobs go by priority, then arrival; equal shares by the order of names. Nothing is known of run times, nobody is
stopped by the order itself. Each start costs O(depth x siblings).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..cluster.pool import Pool
from ..jobs.job import Job
from .order import Order, Ranks
from .plan import Lane
from .queue import Book, Group, Key, Queue
from .tree import Tree

BOOK = "shares"
"""Name of the book that these orders ask for."""

Vector = tuple[float, float, float]
"""GPUs, CPUs in thousandths, memory in bytes."""

Account = tuple[str, str]
"""(queue, user)."""


def asks(job: Job) -> Vector:
    """What a whole gang holds."""
    shape = job.shape
    pieces = max(shape.num_nodes, 1)
    return shape.total_gpus, float(pieces * shape.cpu_milli), float(pieces * shape.memory)


class Shares:
    """What each user holds in each queue, as a book."""

    def __init__(self) -> None:
        self.held: dict[Account, Vector] = {}
        self._jobs: dict[Account, int] = {}

    def started(self, job: Job) -> None:
        """It holds what it asked for."""
        account = (job.queue, job.user)
        self._jobs[account] = self._jobs.get(account, 0) + 1
        self.held[account] = _sum(self.held.get(account, (0.0, 0.0, 0.0)), asks(job))

    def ended(self, job: Job, time: float) -> None:  # noqa: ARG002 - a Book's
        """It holds nothing."""
        account = (job.queue, job.user)
        self._jobs[account] -= 1
        if self._jobs[account]:
            gpus, cpus, memory = asks(job)
            self.held[account] = _sum(self.held[account], (-gpus, -cpus, -memory))
        else:
            del self._jobs[account], self.held[account]  # what rounding left of it is nobody's


class DominantShare(Order):
    """The lane with the smallest dominant share goes first: from the root down, at each level the smallest.

    Args:
        by_queue: shares are compared along the queues first (H-DRF), and among the users of one queue last. Without
            it users are compared wherever their jobs wait (DRF).
    """

    def __init__(self, *, by_queue: bool) -> None:
        self._by_queue = by_queue
        self.lane = self._lane

    @staticmethod
    def _lane(job: Job) -> Lane:
        return job.queue, job.user

    def key(self, job: Job) -> Key:
        """Among the jobs of one user: the higher priority first, then by arrival."""
        return -job.priority, job.submitted

    def books(self) -> Mapping[str, Book]:
        """What each user holds."""
        return {BOOK: Shares()}

    def ranks(self, now: float, queue: Queue, pool: Pool) -> Ranks:  # noqa: ARG002 - shares are of this moment
        """By the shares at this moment."""
        book = queue.books[BOOK]
        assert isinstance(book, Shares), "the queue was made for another policy"
        tree = None if queue.quotas is None else queue.quotas.tree
        return _Standing(book, queue, pool.capacity(), tree, by_queue=self._by_queue)


class _Node:
    """A queue or a user with what it holds: `vector` after rescaling, `share` its largest part of the cluster.

    `wants` is, for a user, which resources each kind of its waiting jobs asks for. `blocked`: nothing of it or below it
    waits, or all that does asks for a resource of which nothing is left.
    """

    __slots__ = ("blocked", "children", "number", "parent", "share", "vector", "wants", "weight")

    def __init__(self, parent: _Node | None, number: int, weight: float) -> None:
        self.parent = parent
        self.number = number
        self.weight = weight
        self.children: dict[str, _Node] = {}
        self.vector: Vector = (0.0, 0.0, 0.0)
        self.wants: set[tuple[bool, ...]] = set()
        self.share = 0.0
        self.blocked = True


class _Standing:
    """The tree of shares during one walk. Built when it is first asked for."""

    def __init__(self, book: Shares, queue: Queue, capacity: Vector, tree: Tree | None, *, by_queue: bool) -> None:
        self._book = book
        self._queue = queue
        self._capacity = capacity
        self._tree = tree
        self._by_queue = by_queue
        self._held: Vector = (0.0, 0.0, 0.0)
        self._full: tuple[bool, ...] = ()  # of which resources nothing is left
        self._root: _Node | None = None
        self._leaves: dict[Account, _Node] = {}

    def of(self, group: Group, job: Job) -> Key:  # noqa: ARG002 - the protocol's
        """Shares from the root down, then the job's own key."""
        if self._root is None:
            self._build()
        node: _Node | None = self._leaf((job.queue, job.user))
        rank: list[float] = []
        while node is not None and node.parent is not None:
            rank += (node.number, node.share)
            node = node.parent
        rank.reverse()
        return (*rank, *self._queue.key(job), job.id)

    def took(self, job: Job) -> None:
        """Its user holds so much more."""
        root = self._root or self._build()
        leaf = self._leaf((job.queue, job.user))
        leaf.vector = _sum(leaf.vector, asks(job))
        self._held = _sum(self._held, asks(job))
        if self._full_now() != self._full:
            self._full = self._full_now()
            self._weigh_all(root)
        else:
            self._weigh_up(leaf)

    def _build(self) -> _Node:
        root = self._root = _Node(None, 0, 1.0)
        wants: dict[Account, set[tuple[bool, ...]]] = {}
        for group in self._queue.active:
            job = group.first()
            if job is not None:
                wants.setdefault((job.queue, job.user), set()).add(tuple(amount > 0 for amount in asks(job)))
        # In the order of names: who is first among equals must not hang on who came first.
        for account in sorted(wants.keys() | self._book.held.keys()):
            leaf = self._leaf(account)
            held = self._book.held.get(account, (0.0, 0.0, 0.0))
            leaf.vector = _sum(leaf.vector, held)
            leaf.wants |= wants.get(account, set())
            self._held = _sum(self._held, held)
        self._full = self._full_now()
        self._weigh_all(root)
        return root

    def _full_now(self) -> tuple[bool, ...]:
        return tuple(held >= has for held, has in zip(self._held, self._capacity, strict=True))

    def _leaf(self, account: Account) -> _Node:
        found = self._leaves.get(account)
        if found is None:
            node = self._root
            assert node is not None, "built before"
            for name, weight in self._path(account):
                child = node.children.get(name)
                if child is None:
                    child = node.children[name] = _Node(node, len(node.children), weight)
                node = child
            found = self._leaves[account] = node
        return found

    def _path(self, account: Account) -> Sequence[tuple[str, float]]:
        """(name, weight) from below the root down to the user."""
        queue, user = account
        tree = self._tree
        if tree is None or tree.resolve(queue) not in tree:
            return ((f"queue {queue}", 1.0), (user, 1.0)) if self._by_queue else ((user, 1.0),)
        queue = tree.resolve(queue)
        weight = tree.user_weight(queue, user)
        if not self._by_queue:
            return ((user, weight),)
        return (*((f"queue {node.name}", node.weight) for node in reversed(tree.path(queue))), (user, weight))

    # Shares -------------------------------------------------------------------------------------------------------

    def _weigh_all(self, node: _Node) -> None:
        for child in node.children.values():
            self._weigh_all(child)
        self._weigh(node)

    def _weigh_up(self, node: _Node) -> None:
        above: _Node | None = node
        while above is not None:
            self._weigh(above)
            above = above.parent

    def _weigh(self, node: _Node) -> None:
        """A node's vector from its children's: those that are not blocked rescaled to the smallest share among them.

        So a user's share of one resource does not cost its siblings theirs of another, and one that can get no more
        does not hold the others down.
        """
        children = node.children.values()
        if children:
            open_shares = [child.share for child in children if not child.blocked and child.share > 0]
            smallest = min(open_shares, default=0.0)
            total: Vector = (0.0, 0.0, 0.0)
            for child in children:
                if child.share > 0:
                    part = 1.0 if child.blocked else smallest / child.share
                    gpus, cpus, memory = child.vector
                    total = _sum(total, (part * gpus, part * cpus, part * memory))
            node.vector = total
            node.blocked = all(child.blocked for child in children)
        else:
            full = self._full
            node.blocked = all(
                any(asked and gone for asked, gone in zip(want, full, strict=True)) for want in node.wants
            )
        dominant = max((held / has for held, has in zip(node.vector, self._capacity, strict=True) if has), default=0.0)
        node.share = dominant / node.weight if node.weight else math.inf


def _sum(one: Vector, other: Vector) -> Vector:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
