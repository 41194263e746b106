"""Backfill: who cannot start is promised when it will, and others may go first where that delays no promise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, ClassVar, cast

from ..cluster.pool import Pool
from ..jobs.errors import NotFoundError
from ..jobs.job import Job, Placement, Shape
from .candidates import Candidates
from .estimates import LAST, QUANTILE, Estimates
from .future import OVERRUN, Ends
from .place import count
from .plan import Plan, Reservation, Token, start_of
from .queue import Book, Group, Key, Queue
from .reasons import not_now, numbers
from .reservation import Table
from .totals import Totals
from .walk import Walk

if TYPE_CHECKING:
    from .greedy import Greedy

PATIENCE = 3600.0
"""Seconds that a start may lie behind what was first promised before estimates are no longer trusted for that job."""


_Entry = tuple["Key", int, Job, "Group"]
"""(key, group number, job, its group)."""
_PROMISED = -1
"""In place of the group number: an entry for one job that was promised a start."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """EASY backfill (Lifka, JSSPP 1995), and conservative backfill (Mu'alem and Feitelson, TPDS 2001), by depth.

    In the policy's order each job starts if it fits. The first `depth` jobs that do not are promised a start: the
    earliest instant at which, by the estimated ends of the running jobs (those started in this pass too) and beside
    the promises already made, the policy's own placer finds room for them on nodes that stay free for their whole run.
    That room is kept. Any other job starts now if it keeps no promise from being kept: it ends by its estimate no
    later than a promised start, or uses what is left over beside it. `depth` 1 is EASY, where the promised start is
    the shadow time and what is left over are its extra nodes; without bound it is conservative.

    A promise is kept until its job starts: it moves to an earlier start when a job ends before its estimate
    (compression, in order, until nothing moves), and to a later one only if estimates were too short or nodes went.

    Where a promised gang could go on other nodes at the same instant, it does if that lets a candidate start. With
    the placer `count` and jobs that ask for a total alone only the number of free GPUs counts, which is the textbook.

    Estimates: see `Estimates`. A job that outlasts its own is taken to run `overrun` of its length longer, and again.
    Where no end is known, and for a job that waits `patience` seconds beyond the start that it was first promised, no
    estimate is trusted: running jobs are taken to leave in the order in which they started, and nobody starts on what
    the job needs when as many of them as it takes have left. Those ahead of it only get fewer, so it does not starve.

    Blocking: none but by promises. Estimates, not an oracle (a simulation may make them exact). Nobody is stopped, so
    restarts cost nothing. Events: every start, end and arrival. Ties: by the job's id.

    Args:
        depth: how many waiting jobs are promised a start.
        shortest_first: candidates go shortest first (SJBF) instead of in the policy's order.
        overrun: by which part of its length a job that outlasts its estimate is extended.
        patience: seconds, see above.
        last, quantile: what is taken of a user's last runs for jobs that say nothing of theirs.
    """

    depth: float = 1
    shortest_first: bool = False
    overrun: float = OVERRUN
    patience: float = PATIENCE
    last: int = LAST
    quantile: float = QUANTILE
    by_class: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.depth >= 1 and self.last >= 1 and 0 < self.quantile <= 1 and self.overrun > 0):
            raise NotFoundError(
                "backfill needs depth and last of at least 1, a quantile above 0 and up to 1, and an overrun above 0",
                hint=f"it was given {self}",
            )

    @property
    def name(self) -> str:
        """EASY or conservative, with what is not the textbook's."""
        if self.depth == 1:
            kind = "EASY backfill"
        else:
            kind = "conservative backfill" if math.isinf(self.depth) else f"backfill beside {self.depth:g} promises"
        return kind + ", shortest first" * self.shortest_first

    def withheld(self, job: Job, now: float, pool: Pool, already: int) -> int:  # noqa: ARG002 - the protocol's
        """No whole nodes: what is kept is kept from then on."""
        return 0

    def until(self, job: Job) -> float:  # noqa: ARG002 - the protocol's
        """Never changes."""
        return math.inf

    def books(self) -> Mapping[str, Book]:
        """How long jobs run, and when those that run end."""
        estimates = Estimates(self.last, self.quantile)
        return {"estimates": estimates, "ends": Ends(estimates, self.overrun)}

    def candidates(self, queue: Queue) -> Candidates:
        """The waiting jobs by how long they run."""
        return Candidates(
            lambda job: cast("Estimates", queue.books["estimates"]).length(job), shortest_first=self.shortest_first
        )

    def walk(self, policy: Greedy, now: float, queue: Queue, pool: Pool, plan: Plan) -> Walk:
        """One pass: everything that it decides is in the plan then."""
        walk = BackfillWalk(
            policy, now, queue=queue, pool=pool, plan=plan, ranks=policy.ordering.ranks(now, queue, pool)
        )
        walk.decide(self)
        return walk


class BackfillWalk(Walk):
    """One pass over the queue with the promises at hand."""

    __slots__ = (
        "_bare",
        "_by",
        "_carried",
        "_ends",
        "_freed",
        "_grown",
        "_relaid",
        "_rule",
        "_said",
        "_started",
        "_table",
        "_to_visit",
        "_waiting",
    )

    def decide(self, rule: Backfill) -> None:
        """Look at as few groups as may have changed."""
        queue, pool, memo, now = self._queue, self._pool, self._memo, self._now
        waiting = queue.candidates
        assert waiting is not None, "the queue is kept as the policy asks"
        self._rule = rule
        self._waiting = waiting
        self._ends = cast("Ends", queue.books["ends"])
        self._ends.extend(now)
        self._started: set[int] = set()
        self._said: set[Group] = set()
        fresh, queue.fresh = queue.fresh, {}
        anew = memo.growth < 0 or memo.layout != pool.layout or waiting.layout != pool.layout
        shorter = anew or waiting.late != self._ends.late
        self._carried, waiting.ahead = ({} if shorter else waiting.ahead), {}
        latest = self._ends.latest_of(waiting.early)
        self._relaid = waiting.layout != pool.layout
        self._table = self._load()
        # With one promise, who ends before its start only does so sooner than was said; it changes nothing.
        first = min([one.start for one in self._table.held.values()], default=math.inf)
        shorter = shorter or first < now  # whoever is due was hindered by a run that was longer than was said
        first = first if rule.depth == 1 else 0.0
        self._grown = shorter or latest >= first
        self._freed = math.inf if shorter else latest  # from then on all is as it was
        waiting.late, waiting.early, waiting.layout = self._ends.late, self._ends.early, pool.layout
        if (
            shorter
            or memo.growth != pool.growth
            or waiting.unsure
            or now >= memo.until
            or any([key <= memo.last for key in fresh.values()])  # noqa: C419 - faster than a generator
            or (memo.cut and not all([group.needs for group in fresh]))  # noqa: C419 - the same
            or (memo.blocker and self.moving)  # who is first may be another now
        ):
            memo.reset(pool.growth, pool.layout)
            waiting.unsure = False
            if shorter:
                self._repair()
            while self._over_all():
                pass
        else:
            again = self.reclaim is not None or queue.quotas is not None or self._open()
            self._over_fresh({group: key for group, key in fresh.items() if again or group.misfit != pool.growth})
        # The gang that waits for nobody knows when may be put otherwise when others come.
        waiting.unsure = waiting.unsure or self._table.someday is not None
        self._promise()
        waiting.ahead = self._table.carry()
        memo.until = min(memo.until, self._ends.next())

    # Promises ---------------------------------------------------------------------------------------------------------

    def _load(self) -> Table:
        """What was promised and still waits."""
        policy, queue, pool = self._policy, self._queue, self._pool
        by_count = getattr(policy, "_place", None) is count and not pool.sharing
        total = by_count and all([_total(group.shape) for group in queue.active])  # noqa: C419 - faster than a generator
        table = (Totals if total else Table)(self._now, pool, self._ends, policy.place, self._carried)
        for job_id, reservation in queue.promised.items():
            job = self._waiting.job(job_id)
            if job is not None and job.shape == reservation.shape:
                table.hold(job_id, reservation)
        return table

    def _overdue(self, job_id: int) -> bool:
        """Whether estimates were wrong about this job for so long that none is trusted."""
        promised = self._queue.promised.get(job_id)
        return promised is not None and self._now > promised.first + self._rule.patience

    def _repair(self) -> None:
        """Jobs run longer than was said, or nodes went: each promise in turn is kept if it can be, or made later."""
        table = self._table
        held = sorted([(one.start, job_id) for job_id, one in table.held.items()])
        broken = [(job_id, table.drop(job_id)) for _, job_id in held]
        late: list[tuple[int, Reservation, float]] = []
        for job_id, one in broken:
            job = self._waiting.job(job_id)
            assert job is not None, "who is promised a start waits"
            length = self._waiting.length(job)
            start = max(one.start, self._now)
            there = one.placement and self._may_go(one.shape, one.placement)
            one = one._replace(start=start, end=start + length)  # noqa: PLW2901 - as it is to be kept from now on
            if there and not table.against(one.shape, one.placement, start, length, at_start=True):
                table.hold(job_id, one)
            elif (placement := table.room_at(one.shape, start, length)) is not None:
                table.hold(job_id, one._replace(placement=placement))
            else:
                late.append((job_id, one, length))
        for job_id, one, length in late:
            self._later(job_id, one, length)

    def _may_go(self, shape: Shape, placement: Placement) -> bool:
        """Whether all its nodes take work and may hold this shape."""
        return any(all(nodes >> piece.node & 1 for piece in placement) for nodes in self._pool.allowed(shape))

    def _later(self, job_id: int, one: Reservation, length: float) -> None:
        """A promise that cannot be kept: the next best."""
        found = self._table.earliest(one.shape, length)
        if found is not None:
            start, placement = found
            # What nodes that went have broken is no fault of estimates.
            first = start if self._relaid else one.first
            self._table.hold(job_id, Reservation(one.shape, start, start + length, placement, first))

    def _open(self) -> bool:
        """Whether one more job may be promised a start."""
        return self._table.someday is None and len(self._table.held) < self._rule.depth

    def _reserve(self, job: Job, length: float) -> None:
        """Promise it the earliest start; where none can be told, keep room for it all the same."""
        table = self._table
        found = table.earliest(job.shape, length)
        if found is not None:
            start, placement = found
            table.hold(job.id, Reservation(job.shape, start, start + length, placement, start))
        else:
            table.wait_for(job.id, job.shape)
        self._memo.blocker = self._memo.blocker or job.id

    def _promise(self) -> None:
        """Tell what is promised, where it is new or another."""
        plan, promised, held = self._plan, self._queue.promised, self._table.held
        for job_id, one in held.items():
            before = promised.get(job_id)
            if before != one:
                plan.reserved[job_id] = one
                if before is None or before.start != one.start:
                    plan.promises[job_id] = one.start
        for job_id in promised:
            if job_id not in held and self._waiting.job(job_id) is not None:
                plan.reserved[job_id] = None
        self._memo.until = min(
            [self._memo.until, *[one.first + self._rule.patience for one in held.values()]]  # then it is overdue
        )

    # The pass ---------------------------------------------------------------------------------------------------------

    def _over_all(self) -> bool:
        """Look at every group. True = a promise moved to an earlier start after others had been passed over."""
        table, queue = self._table, self._queue
        heap = self._heads(queue.active)
        self._to_visit = 0
        for job_id, one in list(table.held.items()):
            self._memo.blocker = self._memo.blocker or job_id
            as_it_was = not self._grown and one.start > self._now and not self._overdue(job_id)
            if as_it_was and not self._rule.shortest_first:  # there who comes before it goes in order
                continue
            job = self._waiting.job(job_id)
            group = None if job is None else queue.group_of(job)
            assert job is not None, "who is promised a start waits"
            assert group is not None, "and so has a group"
            if group.never is not None:
                table.drop(job_id)
                continue
            self._to_visit += 1
            key, _, job, group = self._entry(group, (self._waiting.key(job_id), job))
            heap.append((key, _PROMISED, job, group))
        heapify(heap)
        return self._pass(heap)

    def _over_fresh(self, groups: Mapping[Group, Key]) -> None:
        """Look at the jobs of these groups that came since the last pass, from the first of them on."""
        self._to_visit = 0
        heap = [
            self._entry(group, found)
            for *_, group in self._heads(groups)
            if (found := self._waiting.next(group, groups[group], too=True))
        ]
        heapify(heap)
        self._pass(heap)

    def _pass(self, heap: list[_Entry]) -> bool:
        """Go through jobs in order, those that are promised a start in between; True = go through all again."""
        waiting = self._waiting
        self._bare = sum([not entry[3].needs for entry in heap])
        self._by: dict[Group, float] = {}  # when the next of a group to be looked at has to end
        passed_over = moved = False
        while heap and not self._ends_here(heap):
            key, number, job, group = heap[0]
            if not self.moving:
                self._memo.last = max(self._memo.last, key)
            elif (rank := self._rank(group, waiting.key(job.id), job)) > key:
                heapreplace(heap, (rank, number, job, group))
                continue
            if number == _PROMISED:
                heappop(heap)
                self._bare -= not group.needs
                self._to_visit -= 1
                moved = (self._keep(job, group) and passed_over) or moved
                if job.id not in self._started:
                    self._waits(job)
            elif job.id in self._started or job.id in self._table.held:
                self._go_on_after(heap, job, group)
                continue
            else:
                self._try(job, group)
                self._go_on_after(heap, job, group)
            passed_over = passed_over or job.id not in self._started
        return moved

    def _ends_here(self, heap: list[_Entry]) -> bool:
        """Whether nothing is left to do for those in the heap, or it is done in another way."""
        if self._to_visit or self._open():
            return False
        if self._rule.shortest_first:
            self._by_length({entry[3]: None for entry in heap})
            return True
        if self._bare or not self._nothing_left():
            return False
        self._memo.cut = True
        for entry in heap:
            self._lacks(entry[3])
        return True

    def _go_on_after(self, heap: list[_Entry], job: Job, group: Group) -> None:
        """The next of the first group that may still start is looked at in its turn."""
        waiting = self._waiting
        by = self._by.get(group, math.inf)
        following = None if by == -math.inf else waiting.next(group, waiting.key(job.id), self._now, by)
        if following is None:
            heappop(heap)
            self._bare -= not group.needs
        else:
            heapreplace(heap, self._entry(group, following))

    def _entry(self, group: Group, found: tuple[Key, Job]) -> tuple[Key, int, Job, Group]:
        return (self._rank(group, *found) if self.moving else found[0], group.number, found[1], group)

    def _try(self, job: Job, group: Group) -> None:
        """Start it, make room for it or promise it a start; else it waits, and those of its group that run as long."""
        refused = None if self._quotas is None else self._quotas.refuses(job)
        length = self._waiting.length(job)
        fits = False
        if refused is None:
            started, fits = self._starts_now(job, group, length)
            if started:
                return
        if self._claims(job, self._waiting.key(job.id), group):
            return
        if refused is not None:
            group.misfit = -1
            self._tell(group, refused, 0)  # it holds up nobody: others have quotas of their own
            self._by[group] = -math.inf
            return
        open_ = self._open()
        if open_:
            self._reserve(job, length)
        by, behind = self._table.behind(length) if fits else (-math.inf, 0)
        if fits:
            self._held_back(group, behind)
        else:
            self._lacks(group)
        if not open_:
            self._by[group] = by

    def _starts_now(self, job: Job, group: Group, length: float, *, moving: bool = True) -> tuple[bool, bool]:
        """(whether it is started, whether it would fit but for promises)."""
        shape, failed = group.shape, self._failed
        size = shape.gpus or shape.gpu_milli
        if failed and size >= failed.get(group.peers, math.inf):
            return False, False
        barred = 0 if self._quotas is None else self._quotas.barred(job)
        keep = ~(self._memo.claimed | barred)
        placement, fits = self._table.find(
            shape, length, [nodes & keep for nodes in self._pool.allowed(shape)], moving=moving
        )
        if placement is not None:
            self._take(job, group, placement, length)
            return True, True
        if not fits and not barred:
            failed[group.peers] = size
        if fits and shape.num_nodes != 1:
            self._waiting.unsure = True  # a gang may be put otherwise next time, and fit
        return False, fits

    def _take(self, job: Job, group: Group, placement: Placement, length: float) -> None:
        self._pool.take(group.shape, placement)
        self._plan.starts.append(start_of((job, placement)))
        self._table.took(job.id, group.shape, placement, length)
        self._started.add(job.id)
        group.misfit = -1
        self._took(job, placement)

    def _keep(self, job: Job, group: Group) -> bool:
        """A promised job starts if it can, or its promise moves to an earlier start.

        Returns:
            Whether it left room that was kept for it later on.
        """
        table, shape, now = self._table, group.shape, self._now
        one = table.held[job.id]
        if not self._grown and one.start > now:
            return False  # all is as it was when it was promised
        if self._quotas is not None and self._quotas.refuses(job) is not None:
            table.drop(job.id)
            return False  # its queue may not have it: nobody waits for it
        table.drop(job.id)
        someday, table.someday = table.someday, None  # what is promised does not wait for what is not
        length = self._waiting.length(job)
        try:
            # Promises do not give way to each other: what none could do when it was made none can until somebody ends.
            started, fits = self._starts_now(job, group, length, moving=False)
            if not started and one.start <= now and self._stands(one):
                self._take(job, group, one.placement, length)
                started = True
            if started:
                if one.start > now:
                    self._freed = max(self._freed, one.end)
                return one.start > now
            if fits:
                self._held_back(group, table.behind(length)[1])
            else:
                self._lacks(group)
            found = table.earliest(shape, length, min(one.start, self._freed)) if one.start > now else None
            if found is not None:
                self._freed = max(self._freed, one.end)
                table.hold(job.id, Reservation(shape, found[0], found[0] + length, found[1], min(one.first, found[0])))
                return True
            if one.start > now:
                table.hold(job.id, one)
            else:
                self._later(job.id, one, length)
        finally:
            table.someday = someday
        return False

    def _waits(self, job: Job) -> None:
        """A promised job that waits on. If it has for too long, nobody is let in by what is said of run times."""
        if self._overdue(job.id) and self._table.someday is None:
            self._table.wait_for(job.id, job.shape)

    def _stands(self, one: Reservation) -> bool:
        """Whether a job that is due can start on the very nodes that were kept for it."""
        if not one.placement or not self._may_go(one.shape, one.placement):
            return False
        if any(self._memo.claimed >> piece.node & 1 for piece in one.placement):
            return False  # others were told to leave that room to somebody
        length = one.end - self._now
        return not self._table.against(one.shape, one.placement, self._now, length, at_start=True)

    def _by_length(self, groups: Iterable[Group]) -> None:
        """Those that are left start shortest first, where they fit and delay no promise."""
        lines = {group.number: (group, self._waiting.shortest_first(group)) for group in groups}
        heap = [(length, key, number, job) for number, line in lines.items() for length, key, job in [next(line[1])]]
        heapify(heap)
        while heap:
            length, _, number, job = heap[0]
            group, line = lines[number]
            waits = job.id not in self._started and job.id not in self._table.held
            if waits and not self._starts_shortest(job, group, length):
                heappop(heap)  # those behind it ask for the same, for longer
                continue
            following = next(line, None)
            if following is None:
                heappop(heap)
            else:
                heapreplace(heap, (following[0], following[1], number, following[2]))

    def _starts_shortest(self, job: Job, group: Group, length: float) -> bool:
        refused = None if self._quotas is None else self._quotas.refuses(job)
        if refused is not None:
            group.misfit = -1
            self._tell(group, refused, 0)
            return False
        started, fits = self._starts_now(job, group, length)
        if not started and fits:
            self._held_back(group, self._table.behind(length)[1])
        elif not started:
            self._lacks(group)
        return started

    # Reasons ----------------------------------------------------------------------------------------------------------

    def _lacks(self, group: Group) -> None:
        """It does not fit, whatever is promised to whom. The reason of the first of a group is the group's."""
        group.misfit = self._pool.growth
        if group not in self._said:
            self._said.add(group)
            self._tell(group, not_now(group.shape, group.needs, self._pool, self._memo.claimed), 0)

    def _held_back(self, group: Group, behind: int) -> None:
        """It fits, and would delay what is promised to another."""
        group.misfit = -1
        if group in self._said:
            return
        self._said.add(group)
        why = group.why
        if why is None or why.token is not Token.RESERVED_FOR_OTHER or why.behind != behind:
            group.why = numbers(Token.RESERVED_FOR_OTHER, group.shape, group.needs, self._pool, behind)
            self._plan.waiting[group.line] = group.why


def _total(shape: Shape) -> bool:
    """Whether it asks for a number of GPUs and nothing else."""
    anywhere = not (shape.gpu_types or shape.labels or shape.topology or shape.avoid or shape.closing)
    return bool(shape.plain and not shape.num_nodes and shape.gpus and anywhere)
