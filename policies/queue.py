"""The jobs as a policy sees them: those that wait, grouped by shape and ordered inside, and those that hold GPUs."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..jobs.job import Job, Placement, Shape
from .plan import Lane, Line, Plan, Reservation, Start, Token, Why
from .reach import Reach
from .stoppable import Stoppable
from .timed import Keys, Timed

if TYPE_CHECKING:
    from .candidates import Candidates
    from .quotas import Quotas

Key = tuple[Any, ...]
"""What jobs are ordered by; smaller goes first. The job's id is added as the last tie-break."""

LONGEST_TRAIL = 4096
"""Changes of nodes that are remembered; who has not looked since looks at all nodes again."""

_key_of = itemgetter(0)


def size_class(gpus: float) -> int:
    """GPUs of a gang rounded up to a power of two, as its exponent: 1 -> 0, 2 -> 1, 3 and 4 -> 2, 5 to 8 -> 3, ..."""
    return max(math.ceil(gpus) - 1, 0).bit_length()


class Group:
    """Waiting jobs of one line, in order: one lane, one shape. To a placer they are interchangeable.

    Attributes:
        line: whose they are and what each asks for; lane and shape are its parts.
        peers: everything of the shape but its GPUs; of two groups with equal peers the one that asks for more GPUs
            cannot fit where the other did not.
        needs: GPUs of one whole gang; size_class: the same rounded up to a power of two. count: jobs waiting.
        why: the last reason given for them; None = none yet.
        misfit: the pool's growth at which the shape was last found not to fit; -1 = not found so.
        never: why not even the idle cluster could hold it; None = it could. layout: the pool's layout for which
            that is known.
    """

    __slots__ = (
        "_at",
        "_first",
        "_jobs",
        "count",
        "lane",
        "layout",
        "line",
        "misfit",
        "needs",
        "never",
        "number",
        "peers",
        "shape",
        "size_class",
        "why",
    )

    def __init__(self, lane: Lane, shape: Shape, number: int) -> None:
        self.line = Line(lane, shape)
        self.lane = lane
        self.shape = shape
        self.number = number
        self.needs = shape.total_gpus
        self.size_class = size_class(shape.total_gpus)
        self.peers = (
            shape.num_nodes,
            bool(shape.gpu_milli),
            shape.gpu_types,
            shape.labels,
            shape.cpu_milli,
            shape.memory,
            shape.distinct,
            shape.topology,
            shape.avoid,
            shape.closing,
            # A total that is split shares out its CPUs: with more GPUs each node carries fewer of them.
            0 if shape.num_nodes or not (shape.cpu_milli or shape.memory) else shape.gpus,
        )
        self.count = 0
        self.why: Why | None = None
        self.misfit = -1
        self.never: Token | None = None
        self.layout = -1
        self._jobs: list[tuple[Key, Job]] = []
        self._first = 0
        self._at = 0

    def add(self, key: Key, job: Job) -> None:
        """Put a job in its place."""
        jobs = self._jobs
        if not jobs or key > jobs[-1][0]:
            jobs.append((key, job))
        else:
            insort(jobs, (key, job), lo=self._first, key=_key_of)
        self.count += 1

    def leave(self, job: Job, key: Callable[[Job], Key]) -> None:
        """Take a job out, by its key with its id. One that comes back is in the list once, wherever it belongs now."""
        jobs, first = self._jobs, self._first
        self.count -= 1
        if jobs[first][1] is job:  # as nearly always: jobs start in order
            self._first = first = first + 1
            if not self.count:
                jobs.clear()
                self._first = 0
            elif first > 64 and first * 2 > len(jobs):  # noqa: PLR2004 - let go of the past now and then
                del jobs[:first]
                self._first = 0
            return
        at = bisect_left(jobs, key(job), lo=first, key=_key_of)
        if at == len(jobs) or jobs[at][1] is not job:
            # Its key changed while it waited, against the rule: a site's own order may do that.
            at = next(at for at in range(first, len(jobs)) if jobs[at][1] is job)
        del jobs[at]

    def first(self) -> Job | None:
        """The first waiting job; unlike `head` it leaves alone where `following` goes on."""
        return self._jobs[self._first][1] if self.count else None

    def first_key(self) -> Key:
        """The key of the first waiting job; there has to be one."""
        return self._jobs[self._first][0]

    def head(self) -> tuple[Key, Job] | None:
        """The first waiting job with its key; None when the group is empty."""
        if not self.count:
            return None
        self._at = self._first
        return self._jobs[self._first]

    def following(self) -> tuple[Key, Job] | None:
        """The waiting job after the one that `head` or the last `following` gave; None when there is none."""
        self._at += 1
        return self._jobs[self._at] if self._at < len(self._jobs) else None

    def waiting(self) -> Iterator[tuple[Key, Job]]:
        """All that wait, in order, with their keys."""
        return islice(self._jobs, self._first, None)


class Memo:
    """What the last pass found out and the next may rely on; it saves work and never changes an answer.

    Attributes:
        growth, layout: the pool's, when the last pass looked at every group; -1 = look at all again.
        withheld: nodes that jobs blocked then withhold from those behind them.
        blocker: id of the first job that withholds any; 0 = none. behind: id of the job that all others wait behind.
        barrier: the group of that job.
        last: the highest key that was looked at.
        classes: size classes that are blocked, and by which job.
        until: the time up to which this holds.
        cut: whether the pass ended early, for want of GPUs, and those behind were not asked what they withhold.
        claims: gangs that wait for victims, and where they will go; claimed: those nodes.
        told: running jobs that this pass has told to go so far, by id.
        wake: when a job that did not fit may go somewhere else than now, only because time passes.
    """

    __slots__ = (
        "barrier",
        "behind",
        "blocker",
        "claimed",
        "claims",
        "classes",
        "cut",
        "growth",
        "last",
        "layout",
        "told",
        "until",
        "wake",
        "withheld",
    )

    def __init__(self) -> None:
        self.reset(-1, -1)

    def reset(self, growth: int, layout: int) -> None:
        """Know nothing; a pass over all groups follows."""
        self.growth = growth
        self.layout = layout
        self.classes: dict[int, int] = {}
        self.withheld = 0
        self.blocker = 0
        self.behind = 0
        self.barrier: Group | None = None
        self.cut = False
        self.last: Key = ()
        self.until = math.inf
        self.wake = math.inf
        self.told: Mapping[int, Job] = {}
        self.claims: list[tuple[Job, Placement]] = []
        self.claimed = 0


class Running:
    """The jobs that hold GPUs.

    Attributes:
        jobs: all of them, by id, in the order in which they were placed. vacating: of these, the ones told to go.
        by_shape: for each shape its preemptible jobs that were not told to go, with the keys that order them, the last
            to give way first. Kept only for policies that say how to order them.
        stoppable: the preemptible ones that were not told to go, by priority. Kept with `by_shape`.
        guarded: when the minimum run time of those ends that have one, by id, in seconds.
        floor: the minimum run time that a job's queue gives it; None = no queue gives any.
        keys: what orders the jobs of `by_shape` among those of their shape, by id.
        on_node: for each node what runs there, by id, each with the GPUs that it holds there (parts of a GPU as one).
        trail: numbers of the nodes where a job started, ended or got another key, the oldest first; `trail_begins` is
            how many were forgotten. These two are kept with `by_shape`.
        version: rises whenever a job joins or leaves any of these. turns: whenever keys changed in between;
            moves: the (old, new) keys of the last time that they did.
        lasts: a reclaim rule's own note of one moment (time, version, turns): the lists of `by_shape`, and the key of
            the last of each.
    """

    def __init__(self, inner: Callable[[Job], Key] | None = None, timed: Timed | None = None) -> None:
        self.jobs: dict[int, Job] = {}
        self.vacating: dict[int, Job] = {}
        self.guarded: dict[int, float] = {}
        self.floor: Callable[[Job], float] | None = None
        self.by_shape: dict[Shape, list[tuple[Key, Job]]] = {}
        self.stoppable = Stoppable()
        self.on_node: dict[int, dict[int, tuple[Job, int]]] = {}
        self.trail: list[int] = []
        self.trail_begins = 0
        self.version = 0
        self.turns = 0
        self.moves: list[tuple[Key, Key]] = []
        self.lasts: tuple[tuple[float, int, int], list[list[tuple[Key, Job]]], list[Key]] = ((-1.0, 0, 0), [], [])
        self._inner = inner
        self.keys: dict[int, Key] = {}
        self._timed = None if timed is None or inner is None else Keys(timed.inner_at)

    def add(self, job: Job, books: Mapping[str, Book]) -> None:
        """A job was placed."""
        self.jobs[job.id] = job
        self.version += 1
        runs = job.min_runtime if self.floor is None else max(job.min_runtime, self.floor(job))
        if runs:
            self.guarded[job.id] = job.placed + runs
        if self._inner is None:
            return
        for number, gpus, milli, _ in job.placement:
            there = self.on_node.setdefault(number, {})
            there[job.id] = (job, gpus + (milli > 0) + (there[job.id][1] if job.id in there else 0))
        self._changed(job)
        if not job.preemptible:
            return
        self.stoppable.add(job)
        timed = self._timed
        key = (*self._inner(job), job.id) if timed is None else timed.add(job, job.placed, books)
        self.keys[job.id] = key
        insort(self.by_shape.setdefault(job.shape, []), (key, job), key=_key_of)

    def changes_at(self) -> float:
        """When the next key changes although nothing happens; infinity = none does."""
        return math.inf if self._timed is None else self._timed.next()

    def advance(self, now: float, books: Mapping[str, Book]) -> None:
        """Let keys be those of now."""
        moved = () if self._timed is None else self._timed.advance(now, books)
        for job, old, new in moved:
            alike = self.by_shape[job.shape]
            del alike[bisect_left(alike, old, key=_key_of)]
            insort(alike, (new, job), key=_key_of)
            self.keys[job.id] = new
            self._changed(job)
        if moved:
            self.turns += 1
            self.moves = [(old, new) for _, old, new in moved]

    def told_to_go(self, job: Job) -> None:
        """It was told to give its GPUs back, for whatever reason, and still holds them."""
        self.vacating[job.id] = job
        self.version += 1
        self._forget(job)
        if self._inner is not None:
            self._changed(job)

    def remove(self, job: Job) -> None:
        """Its GPUs are free."""
        self.jobs.pop(job.id, None)
        self.version += 1
        if self.vacating:
            self.vacating.pop(job.id, None)
        if self.guarded:
            self.guarded.pop(job.id, None)
        if self._inner is not None:
            self._forget(job)
            for piece in job.placement:
                self.on_node[piece[0]].pop(job.id, None)
            self._changed(job)

    def _changed(self, job: Job) -> None:
        trail = self.trail
        trail += [piece[0] for piece in job.placement]
        if len(trail) > LONGEST_TRAIL:
            self.trail_begins += len(trail)
            trail.clear()

    def _forget(self, job: Job) -> None:
        key = self.keys.pop(job.id, None)
        if key is not None:
            self.stoppable.discard(job)
            alike = self.by_shape[job.shape]
            del alike[bisect_left(alike, key, key=_key_of)]
            if self._timed is not None:
                self._timed.leave(job)


class Book(Protocol):
    """What a policy asks to have recorded of the past, as a pure function of it: usage, predictions."""

    def started(self, job: Job) -> None:
        """An attempt was placed, at `job.placed`."""
        ...

    def ended(self, job: Job, time: float) -> None:
        """An attempt gave its GPUs back at `time` (`job.placed` is still its start). `job.state` says what is next."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """A book that also has to be told when a job joins those that wait."""

    def joined(self, job: Job) -> None:
        """It waits from now on."""
        ...


class Queue:
    """All jobs that are not finished, in the order of one policy. Adding and removing cost O(log n) of their group.

    Attributes:
        groups: by lane, the groups of that lane by shape. active: those with a waiting job.
        fresh: of these, the ones that got a job since the last pass: the first such key.
        running: the jobs that hold GPUs.
        claimants: for each waiting job for which others were told to go, their ids.
        quotas: the queues as the site configured them, with what they hold; None = it did not.
        books: what the policy asked to have recorded, by name.
        kept: where moved jobs go again, and those for which they were moved (see `Plan.kept`).
        promised: the room that is kept for waiting jobs, by job. candidates: the waiting jobs by how long they run, if
            the policy asked for that.
    """

    def __init__(
        self,
        key: Callable[[Job], Key],
        *,
        lane: Callable[[Job], Lane] | None = None,
        inner: Callable[[Job], Key] | None = None,
        timed: Timed | None = None,
        books: Mapping[str, Book] | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self.key = key
        self.lane = lane
        self.groups: dict[Lane, dict[Shape, Group]] = {(): {}}
        self.active: dict[Group, None] = {}
        self.fresh: dict[Group, Key] = {}
        self.memo = Memo()
        self.reach = Reach()
        self.claimants: dict[int, list[int]] = {}
        self.running = Running(inner, timed)
        self.quotas = quotas
        self.books: dict[str, Book] = dict(books or {})
        self.promised: dict[int, Reservation] = {}
        self.kept: dict[int, Start] = {}
        self.candidates: Candidates | None = None
        self._bare = self.groups[()]
        self._recorders: list[Book] = list(self.books.values())
        self._watchers = [book.joined for book in self._recorders if isinstance(book, Watcher)]
        if quotas is not None:
            self._recorders.append(quotas)
            self.running.floor = quotas.min_runtime
        self._groups = 0
        self._count = 0
        self._timed = None if timed is None else Keys(timed.key_at)
        self._known: Keys | None = None
        self._turns = 0  # of the running jobs' keys, as of the last pass

    def __len__(self) -> int:
        return self._count

    def add(self, job: Job) -> None:
        """A job joins those that wait."""
        for joined in self._watchers:
            joined(job)
        timed = self._timed
        if timed is None:
            self._add(job, (*self.key(job), job.id))
        else:
            self._add(job, timed.add(job, job.queued, self.books, known=self._known))

    def _add(self, job: Job, key: Key) -> None:
        shape = job.shape
        lane = self.lane
        groups = self._bare if lane is None else self.groups.setdefault(lane(job), {})
        group = groups.get(shape)
        if group is None:
            group = groups[shape] = Group(() if lane is None else lane(job), shape, self._groups)
            self._groups += 1
        group.add(key, job)
        if self.candidates is not None:
            self.candidates.add(key, job, group)
        self.active[group] = None
        first = self.fresh.get(group)
        if first is None or key < first:
            self.fresh[group] = key
        self._count += 1

    def remove(self, job: Job) -> None:
        """A job that waited was cancelled or held."""
        self.left(job)
        # It may have been the one that others waited behind.
        self.memo.growth = -1

    def left(self, job: Job) -> None:
        """A job that waited waits no more. Called before anything that its key is made of changes."""
        self._leave(job, self.key_of)
        if self.claimants:
            self.claimants.pop(job.id, None)
        if self.promised:
            self.promised.pop(job.id, None)
        if self.kept:
            self.kept.pop(job.id, None)
        if self._timed is not None:
            self._timed.leave(job)

    def _leave(self, job: Job, key: Callable[[Job], Key]) -> None:
        group = (self._bare if self.lane is None else self.groups[self.lane(job)])[job.shape]
        group.leave(job, key)
        if self.candidates is not None:
            self.candidates.leave(job, group)
        self._count -= 1
        if not group.count:
            del self.active[group]

    def started(self, job: Job) -> None:
        """It was placed: it holds its GPUs."""
        if self._recorders:
            for book in self._recorders:
                book.started(job)
        self.running.add(job, self.books)

    def ended(self, job: Job, time: float) -> None:
        """Its GPUs are free."""
        self.running.remove(job)
        if self._recorders:
            for book in self._recorders:
                book.ended(job, time)

    def decided(self, plan: Plan) -> None:
        """The plan is being done: what it promises is kept."""
        for job_id, reservation in plan.reserved.items():
            if reservation is None:
                self.promised.pop(job_id, None)
            else:
                self.promised[job_id] = reservation
        for job_id, start in plan.kept.items():
            if start is None:
                self.kept.pop(job_id, None)
            else:
                self.kept[job_id] = start

    def share(self, other: Queue) -> None:
        """Look at the running jobs, the tree and the books of another queue of the same policy, to ask "what if"."""
        self.running, self.claimants = other.running, other.claimants
        self.quotas, self.books = other.quotas, other.books
        self.promised, self.kept = other.promised, other.kept
        self._known = other._timed

    def key_of(self, job: Job) -> Key:
        """The key, with its id, by which a waiting job is kept."""
        return (*self.key(job), job.id) if self._timed is None else self._timed.of(job)

    def changes_at(self) -> float:
        """When the next key changes although nothing happens; infinity = none does, or nobody waits."""
        if self._timed is None or not self._count:
            return math.inf
        return min(self._timed.next(), self.running.changes_at())

    def advance(self, now: float) -> None:
        """Let the keys be those of now. A pass begins so."""
        if self._timed is None:
            return
        moved = self._timed.advance(now, self.books)
        before = {job.id: old for job, old, _ in moved}
        for job, _, new in moved:
            self._leave(job, lambda one: before[one.id])
            self._add(job, new)
        self.running.advance(now, self.books)
        turns, self._turns = self._turns, self.running.turns
        if moved or self._turns > turns + 1 or (self._turns > turns and self._overtakes(self.running.moves)):
            self.memo.growth = -1  # others may go first now, and who could displace nobody may do so

    def _overtakes(self, moves: list[tuple[Key, Key]]) -> bool:
        """Whether a running job that took another place in the order is now behind a waiting one that it was before.

        Only the first of each group matters: who asks for the same and comes later has fewer to displace.
        """
        firsts = [group.first_key() for group in self.active]
        return any([old < first < new for old, new in moves for first in firsts])  # noqa: C419 - faster than a generator

    def group_of(self, job: Job) -> Group | None:
        """The group that it waits in, or would."""
        return self.groups.get(() if self.lane is None else self.lane(job), {}).get(job.shape)

    def all_groups(self) -> Iterator[Group]:
        """Every group that ever had a job."""
        for groups in self.groups.values():
            yield from groups.values()

    def in_order(self) -> Iterator[Job]:
        """Every waiting job in order; for people and for policies that look at all. O(n log groups)."""
        from heapq import merge  # noqa: PLC0415 - off the hot path

        for _, job in merge(*(group.waiting() for group in self.all_groups()), key=_key_of):
            yield job
