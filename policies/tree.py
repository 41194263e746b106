"""The queues of a site as a tree, and the arithmetic of their quotas: nominal, borrowed, lent.

The words and the arithmetic are Kueue's (hierarchical cohorts): a queue's *nominal quota* is its own; what it leaves
unused is lent to the queues below the same parent, up to its *lending limit*; it may use more than its own, up to its
*borrowing limit*, while others leave theirs unused. A parent pools what its queues lend and what quota it has itself,
and borrows from its own parent in the same way. Queues without a parent share nothing with one another.

Quotas are by *flavour*: a GPU type such as `H100`, `gpus` for GPUs of any type, `cpus` for CPUs. A flavour that no
queue of a tree has a quota of is not limited there. Amounts are GPUs (or CPUs), exact to the thousandth.
Everything here is frozen; what the queues hold is counted by `quota.Usage`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from .quota import milli

if TYPE_CHECKING:
    from .quota import Usage

GPUS = "gpus"
"""The flavour of GPUs of any type."""
CPUS = "cpus"
"""The flavour of CPUs."""
DEFAULT = "default"
"""The queue of jobs that name none."""

Rule = Literal["never", "lower_priority", "any"]
"""Whose jobs a claimant may preempt: nobody's, those of a lower priority than its own, anybody's."""


class Quota(NamedTuple):
    """A queue's quota of one flavour.

    Attributes:
        nominal: GPUs that are its own.
        borrowing_limit: GPUs that it may use beyond them while others leave theirs unused; None = as many as there are.
        lending_limit: of its own, the GPUs that others may use while it does not; None = all.
    """

    nominal: float = 0.0
    borrowing_limit: float | None = None
    lending_limit: float | None = None


class PreemptionRules(NamedTuple):
    """Whose preemptible jobs the jobs of a queue may preempt, in Kueue's words.

    Attributes:
        within_queue: jobs of the same queue.
        reclaim_within_cohort: jobs of queues above their nominal quota, by a claimant that stays within its own.
        borrow_within_cohort: the same by a claimant that borrows.
    """

    within_queue: Rule = "lower_priority"
    reclaim_within_cohort: Rule = "any"
    borrow_within_cohort: Rule = "never"


class Limits(NamedTuple):
    """What a queue with all queues below it may run at most; None = no limit. GPUs are those of any type.

    Attributes:
        running_jobs: jobs at a time. user_gpus, user_running_jobs: GPUs and jobs of one user at a time.
        job_gpus: GPUs of one job.
    """

    running_jobs: int | None = None
    user_gpus: float | None = None
    user_running_jobs: int | None = None
    job_gpus: float | None = None


@dataclass(frozen=True, slots=True)
class QueueNode:
    """One queue. Jobs wait in those that have no queue below them; the others share out among theirs.

    Attributes:
        name: unique in the tree. parent: the queue above it; empty = none.
        weight: its share of what is not anybody's by quota, against its siblings'; 0 = only what they leave.
        quotas: by flavour.
        preemption: whose jobs its own may preempt.
        min_runtime: seconds that a job of it runs before it may be preempted; a job's own may be longer.
        grace: seconds that a job of it has to save and leave, if it does not say itself; None = as its parent's.
        limits: for its jobs and those of the queues below it.
        priority_min, priority_max: a job's priority is brought within them.
        non_preemptible_may_borrow: whether work that cannot be preempted may go beyond the nominal quota. If not,
            as in KAI, nobody waits for what was lent out.
        paused: nothing of it or below it starts; what runs goes on, and jobs may be submitted.
        users: weights of users among each other; a user not named has 1.
        cells: virtual cells that it owns under the policy `hived`, by level: `gpu`, `node` or a node label.
        submitters: who may submit to it and to the queues below it: `ann`, `group:nlp`, `role:operator`; None = whoever
            may submit to the queue above it, in the end everybody.
    """

    name: str
    parent: str = ""
    weight: float = 1.0
    quotas: Mapping[str, Quota] = field(default_factory=lambda: MappingProxyType({}))
    preemption: PreemptionRules = field(default_factory=PreemptionRules)
    min_runtime: float = 0.0
    grace: float | None = None
    limits: Limits = field(default_factory=Limits)
    priority_min: int = 0
    priority_max: int = 100
    non_preemptible_may_borrow: bool = False
    paused: bool = False
    users: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    cells: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    submitters: tuple[str, ...] | None = None


class Bounds(NamedTuple):
    """A queue's quota of one flavour with all below it, in thousandths of a GPU.

    Attributes:
        subtree: its own and what the queues below it lend. kept: the part of it that is never lent to the parent.
        most: what it may hold of the parent's pool, its own part of that included; None = no limit.
    """

    subtree: int
    kept: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Tree:
    """All queues of a site.

    Attributes:
        queues: in the order of the file. default: the queue of jobs that name none; empty = such jobs are refused.
        topology: node labels that are the levels of the cluster's topology, the widest first; empty = the usual ones.
        flavours: those that any queue has a quota of.
        paths: for each queue by number, the numbers from it up to its root, itself included.
        bounds: for each flavour, the `Bounds` of each queue by number.
    """

    queues: tuple[QueueNode, ...]
    default: str = ""
    topology: tuple[str, ...] = ()
    flavours: tuple[str, ...] = field(init=False, repr=False, compare=False)
    paths: tuple[tuple[int, ...], ...] = field(init=False, repr=False, compare=False)
    bounds: Mapping[str, Sequence[Bounds]] = field(init=False, repr=False, compare=False)
    _numbers: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _children: Mapping[str, tuple[QueueNode, ...]] = field(init=False, repr=False, compare=False)
    _limited: frozenset[tuple[int, str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        queues = self.queues
        numbers = {node.name: number for number, node in enumerate(queues)}
        assert len(numbers) == len(queues), "a name is given twice"
        assert all(not node.parent or node.parent in numbers for node in queues), "a parent is missing"
        paths = tuple(tuple(_climb(queues, numbers, number)) for number in range(len(queues)))
        children: dict[str, list[QueueNode]] = {"": [], **{node.name: [] for node in queues}}
        for node in queues:
            children[node.parent].append(node)
        flavours = tuple(sorted({flavour for node in queues for flavour in node.quotas}))
        limited = frozenset((paths[numbers[node.name]][-1], flavour) for node in queues for flavour in node.quotas)
        settled = {
            "flavours": flavours,
            "paths": paths,
            "bounds": {flavour: _bounds(queues, numbers, paths, flavour) for flavour in flavours},
            "_numbers": numbers,
            "_children": {name: tuple(found) for name, found in children.items()},
            "_limited": limited,
        }
        # Derived once: policies ask for them at every start.
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    # Looking around -----------------------------------------------------------------------------------------------

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def __iter__(self) -> Iterator[QueueNode]:
        return iter(self.queues)

    def __len__(self) -> int:
        return len(self.queues)

    def __getitem__(self, name: str) -> QueueNode:
        """A queue by its name. Raises KeyError."""
        return self.queues[self._numbers[name]]

    def number(self, name: str) -> int:
        """A queue's place in `queues`. Raises KeyError."""
        return self._numbers[name]

    def children(self, name: str = "") -> tuple[QueueNode, ...]:
        """The queues right below one, in the order of the file; of "", those without a parent."""
        return self._children[name]

    def path(self, name: str) -> tuple[QueueNode, ...]:
        """A queue and those above it, up to its root."""
        return tuple(self.queues[number] for number in self.paths[self._numbers[name]])

    def ancestors(self, name: str) -> tuple[QueueNode, ...]:
        """The queues above one, the nearest first."""
        return self.path(name)[1:]

    def leaves(self) -> tuple[QueueNode, ...]:
        """The queues that take jobs."""
        return tuple(node for node in self.queues if not self._children[node.name])

    def takes_jobs(self, name: str) -> bool:
        """Whether there is such a queue and none is below it."""
        return name in self._numbers and not self._children[name]

    def resolve(self, name: str) -> str:
        """The queue that a job means: the one that it names, or the default one if it names none."""
        return self.default if self.default and name == DEFAULT and name not in self._numbers else name

    def home(self, name: str) -> str:
        """The queue in which a job that says `name` waits; empty = there is none, or it takes no jobs."""
        meant = self.resolve(name)
        return meant if self.takes_jobs(meant) else ""

    def paused(self, name: str) -> str:
        """The queue that keeps jobs of `name` from starting: itself or one above it; empty = none does."""
        return next((node.name for node in self.path(name) if node.paused), "")

    def user_weight(self, name: str, user: str) -> float:
        """A user's weight in a queue: what it says, else what the nearest queue above it says, else 1."""
        return next((node.users[user] for node in self.path(name) if user in node.users), 1.0)

    def submitters(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """Who may submit to a queue, and which queue says so: itself or the nearest above it; None = everybody may."""
        return next(
            ((node.name, node.submitters) for node in self.path(name) if node.submitters is not None),
            None,
        )

    def grace(self, name: str) -> float | None:
        """Seconds of grace for jobs of a queue that say none: its own or the nearest above it; None = nobody says."""
        return next((node.grace for node in self.path(name) if node.grace is not None), None)

    def min_runtime(self, name: str) -> float:
        """Seconds that a job of a queue runs before it may be preempted: the longest of its path."""
        return max(node.min_runtime for node in self.path(name))

    # Quotas -------------------------------------------------------------------------------------------------------

    def limited(self, root: int, flavour: str) -> bool:
        """Whether the tree below this root (by number) has a quota of a flavour."""
        return (root, flavour) in self._limited

    def headroom(self, queue: str, flavour: str, usage: Usage) -> float:
        """GPUs of a flavour that jobs of a queue may still take, borrowing as far as limits and others allow.

        As Kueue's `available`: from the root down, what the parent has left, cut to the borrowing limit, and what the
        queue keeps to itself. Negative if quotas shrank under running jobs; infinite for a flavour without quotas.
        O(depth).
        """
        return usage.headroom(queue, flavour)

    def nominal(self, queue: str, flavour: str) -> float:
        """A queue's nominal quota of a flavour; infinite if its tree has none. 0 = it lives by borrowing."""
        number = self._numbers[queue]
        if not self.limited(self.paths[number][-1], flavour):
            return math.inf
        return self.queues[number].quotas.get(flavour, Quota()).nominal

    def subtree_quota(self, queue: str, flavour: str) -> float:
        """A queue's nominal quota and what the queues below it lend; infinite if its tree has none of the flavour."""
        number = self._numbers[queue]
        if not self.limited(self.paths[number][-1], flavour):
            return math.inf
        return self.bounds[flavour][number].subtree / 1000

    def potential(self, queue: str, flavour: str) -> float:
        """The most that jobs of a queue could hold if nothing ran, borrowing included; infinite without quotas."""
        number = self._numbers[queue]
        root = self.paths[number][-1]
        if not self.limited(root, flavour):
            return math.inf
        bounds = self.bounds[flavour]
        most = bounds[root].subtree
        for step in self.paths[number][-2::-1]:
            _, kept, limit = bounds[step]
            most = kept + (most if limit is None else min(most, limit))
        return most / 1000

    def totals(self) -> dict[str, float]:
        """All nominal quotas by flavour, for comparison with the cluster."""
        return {
            flavour: sum(milli(node.quotas[flavour].nominal) for node in self.queues if flavour in node.quotas) / 1000
            for flavour in self.flavours
        }


def _climb(queues: Sequence[QueueNode], numbers: Mapping[str, int], number: int) -> Iterable[int]:
    """Numbers from a queue up to its root."""
    for _ in queues:
        yield number
        parent = queues[number].parent
        if not parent:
            return
        number = numbers[parent]
    raise AssertionError(f"{queues[number].name} is above itself")


def _bounds(
    queues: Sequence[QueueNode], numbers: Mapping[str, int], paths: Sequence[Sequence[int]], flavour: str
) -> list[Bounds]:
    """The bounds of every queue, the deepest first: a parent pools what those below it lend."""
    lent = [0] * len(queues)
    found = [Bounds(0, 0, None)] * len(queues)
    for number in sorted(range(len(queues)), key=lambda number: -len(paths[number])):
        node = queues[number]
        quota = node.quotas.get(flavour, Quota())
        subtree = milli(quota.nominal) + lent[number]
        kept = 0 if quota.lending_limit is None else max(0, subtree - milli(quota.lending_limit))
        most = None if quota.borrowing_limit is None else subtree - kept + milli(quota.borrowing_limit)
        found[number] = Bounds(subtree, kept if node.parent else 0, most)
        if node.parent:
            lent[numbers[node.parent]] += subtree - kept
    return found
