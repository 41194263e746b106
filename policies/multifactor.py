"""Slurm's multifactor priority: a weighted sum of age, fair share, size and the job's own priority.

Source: Slurm's documentation of the multifactor plugin and of the Fair Tree algorithm. Choices: fair share is by the
usage of accounts (queues, then users) with a half-life; it is worked out at each walk, not every five minutes; a job
that does not fit is passed over by the blocking rule; nobody is stopped; nothing is known of run times; equal sums go
by arrival. A walk costs O(accounts log accounts).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from ..cluster.pool import Pool
from ..jobs.job import Job
from .order import Order, Ranks
from .plan import Lane
from .queue import Book, Group, Key, Queue
from .tree import Tree
from .usage import WEEK, Account, DecayedUsage

BOOK = "usage"
"""Name of the book that this order asks for."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What each factor (0 to 1) counts for, and what the factors are made of.

    Attributes:
        age: of the time in the queue over `max_age` seconds, at most 1.
        fair_share: of the account's standing: 1 for the one that used least of its share.
        size: of the job's GPUs over the cluster's; of the rest of the cluster when `small_first`.
        priority: of the job's priority over 100.
        half_life: seconds after which use counts half.
    """

    age: float = 1000.0
    fair_share: float = 10_000.0
    size: float = 0.0
    priority: float = 2000.0
    max_age: float = WEEK
    half_life: float = WEEK
    small_first: bool = False


class Multifactor(Order):
    """The highest weighted sum goes first."""

    def __init__(self, weights: Weights | None = None) -> None:
        self.weights = weights or Weights()
        self.lane = self._lane

    @staticmethod
    def _lane(job: Job) -> Lane:
        return job.queue, job.user

    def key(self, job: Job) -> Key:
        """Among the jobs of one user and shape only priority and age differ, and all age at the same pace."""
        weights = self.weights
        return (weights.age * job.submitted / weights.max_age - weights.priority * job.priority / 100, job.submitted)

    def books(self) -> Mapping[str, Book]:
        """The usage of accounts."""
        return {BOOK: DecayedUsage(self.weights.half_life)}

    def ranks(self, now: float, queue: Queue, pool: Pool) -> Ranks:
        """By the sums at this moment."""
        return _Sums(self.weights, now, queue, pool.capacity()[0])

    def parts(self, job: Job, now: float, queue: Queue, pool: Pool) -> dict[str, float]:
        """A job's sum by its parts, as Slurm's sprio shows it."""
        return _Sums(self.weights, now, queue, pool.capacity()[0]).parts(job)


class _Sums:
    """The sums during one walk. Fair share is worked out when it is first asked for."""

    def __init__(self, weights: Weights, now: float, queue: Queue, gpus: float) -> None:
        self._weights = weights
        self._now = now
        self._queue = queue
        self._gpus = gpus
        self._factors: dict[Account, float] | None = None

    def of(self, group: Group, job: Job) -> Key:  # noqa: ARG002 - the protocol's
        """The sum, highest first."""
        return (-math.fsum(self.parts(job).values()), job.submitted, job.id)

    def took(self, job: Job) -> None:
        """Use is what was held, not what is about to be."""

    def parts(self, job: Job) -> dict[str, float]:
        """The sum by its parts."""
        weights = self._weights
        size = min(job.shape.total_gpus / self._gpus, 1.0) if self._gpus else 0.0
        return {
            "age": weights.age * min(max(self._now - job.submitted, 0.0) / weights.max_age, 1.0),
            "fair_share": weights.fair_share * self._factor((job.queue, job.user)) if weights.fair_share else 0.0,
            "size": weights.size * (1 - size if weights.small_first else size),
            "priority": weights.priority * job.priority / 100,
        }

    def _factor(self, account: Account) -> float:
        if self._factors is None:
            queue = self._queue
            book = queue.books[BOOK]
            assert isinstance(book, DecayedUsage), "the queue was made for another policy"
            waiting = {(job.queue, job.user) for group in queue.active if (job := group.first()) is not None}
            accounts = sorted(waiting | set(book.accounts()))
            used = {account: book.of(account, self._now) for account in accounts}
            self._factors = fair_tree(used, None if queue.quotas is None else queue.quotas.tree)
        return self._factors.get(account, 1.0)


# Fair Tree -----------------------------------------------------------------------------------------------------------


class _Branch:
    """A queue or a user: its share among its siblings, and what it used."""

    __slots__ = ("account", "below", "shares", "used")

    def __init__(self, shares: float, account: Account | None = None) -> None:
        self.shares = shares
        self.used = 0.0
        self.account = account
        self.below: dict[str, _Branch] = {}


def fair_tree(used: Mapping[Account, float], tree: Tree | None) -> dict[Account, float]:
    """The fair-share factor of each account: (U - i + 1) / U for the i-th of U.

    At each level siblings are sorted by (share of the siblings' shares) / (share of the siblings' use), highest first,
    and visited depth first. Users with equal values get equal factors; of queues with equal values the users below
    them are sorted together.

    Args:
        used: GPU-seconds by account.
        tree: the queues and their weights; None = queues of equal weight side by side.
    """
    root = _Branch(1.0)
    for account, seconds in used.items():
        queue, user = account
        branch = root
        for name, shares in _path(queue, tree):
            branch.used += seconds
            branch = branch.below.setdefault(name, _Branch(shares))
        branch.used += seconds
        shares = 1.0 if tree is None or tree.resolve(queue) not in tree else tree.user_weight(tree.resolve(queue), user)
        leaf = branch.below.setdefault(f"user {user}", _Branch(shares, account))
        leaf.used += seconds
    factors: dict[Account, float] = {}
    total = len(used)
    for group in _visit([root.below.values()]):
        factor = (total - len(factors)) / total
        factors |= dict.fromkeys(group, factor)
    return factors


def _path(queue: str, tree: Tree | None) -> Iterable[tuple[str, float]]:
    if tree is None or tree.resolve(queue) not in tree:
        return ((f"queue {queue}", 1.0),)
    return ((f"queue {node.name}", node.weight) for node in reversed(tree.path(tree.resolve(queue))))


def _visit(families: Iterable[Iterable[_Branch]]) -> Iterable[list[Account]]:
    """Accounts depth first, those with equal values together. A family is siblings; its values are its own."""
    valued = sorted(
        (
            (_level(branch, siblings), branch)
            for family in families
            for siblings in [list(family)]
            for branch in siblings
        ),
        key=lambda pair: -pair[0],
    )
    for _, equals in groupby(valued, key=lambda pair: pair[0]):
        branches = [branch for _, branch in equals]
        users = [branch.account for branch in branches if branch.account is not None]
        if users:
            yield users
        queues = [branch.below.values() for branch in branches if branch.account is None]
        if queues:
            yield from _visit(queues)


def _level(branch: _Branch, siblings: list[_Branch]) -> float:
    """Slurm's level value: above 1 = it used less than its share. One without shares comes last."""
    shares = math.fsum(one.shares for one in siblings)
    used = math.fsum(one.used for one in siblings)
    if not branch.shares:
        return 0.0
    if not branch.used:
        return math.inf
    return (branch.shares / shares) / (branch.used / used)
