"""What is promised to whom, and what may start beside it: the future of the pool, node by node.

A reservation is a promise with room behind it: from its start on, these nodes hold this gang. A job may start now if at
no instant of its run a node has to hold more than it has: the running jobs leave at their estimated ends, the
reservations come and go. A job that is to get a reservation gets the earliest instant from which on that holds for it.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from ..cluster.pool import Pool, piece_needs
from ..jobs.errors import PlanError
from ..jobs.job import Piece, Placement, Shape
from .future import End, Ends
from .place import Placer
from .plan import Reservation
from .sweep import Stay, Steps, Sweep

_CARRIED = 2
"""Pools of instants to come that are kept from pass to pass."""


class Someday(NamedTuple):
    """Room that is kept for a job whose start cannot be told: running jobs leave in the order in which they started.

    Attributes:
        job: its id. shape: what it asks for. placement: where it goes.
        last: (placed, id) of the last running job that it waits for.
    """

    job: int
    shape: Shape
    placement: Placement
    last: tuple[float, int]


class Table:
    """Reservations on nodes, as one pass sees and changes them.

    Args:
        now: seconds.
        pool: what is free now; in a trial, and what starts in this pass is taken from it.
        ends: the running jobs.
        place: the policy's placer.
        carried: what `carry` of the last pass gave, if all ends are still where they were.

    Attributes:
        held: the reservations by job. someday: the one whose start cannot be told; None = there is none.
    """

    def __init__(
        self, now: float, pool: Pool, ends: Ends, place: Placer, carried: Mapping[float, tuple[Pool, int]]
    ) -> None:
        self._now = now
        self._pool = pool
        self._ends = ends
        self._place_on = place
        self.held: dict[int, Reservation] = {}
        self.someday: Someday | None = None
        self._held_on: dict[int, list[int]] = {}  # node -> jobs with a reservation there
        self._new: list[Stay] = []  # what this pass started, by its end
        self._new_on: dict[int, list[Stay]] = {}
        self._full: dict[int, int] = {}  # job -> nodes where its reservation leaves nothing over
        self._stuck: dict[int, list[_Load]] = {}  # job -> what was tried in its way, and it could not go elsewhere
        self._steps: Steps | None = None  # the number of free GPUs over time
        self._carried = dict(carried)
        self._ahead: dict[object, Pool] = {}  # the pool at some instants to come, without reservations

    # What changes -----------------------------------------------------------------------------------------------------

    def hold(self, job_id: int, reservation: Reservation) -> None:
        """Keep this room."""
        self.held[job_id] = reservation
        self._full.clear()
        self._count(reservation, 1)
        for node in _nodes_of(reservation.placement):
            self._held_on.setdefault(node, []).append(job_id)

    def drop(self, job_id: int) -> Reservation:
        """Keep it no longer."""
        reservation = self.held.pop(job_id)
        self._full.clear()
        self._stuck.pop(job_id, None)
        self._count(reservation, -1)
        for node in _nodes_of(reservation.placement):
            self._held_on[node].remove(job_id)
        return reservation

    def took(self, job_id: int, shape: Shape, placement: Placement, length: float) -> None:
        """The pass starts this job; the pool has it already."""
        stay = Stay((self._now + length, self._now, job_id), shape, placement)
        insort(self._new, stay)
        if self._steps is not None:
            self._steps.add(stay.end[0], self._most(stay))
        for node in _nodes_of(placement):
            self._new_on.setdefault(node, []).append(stay)
        for instant, ahead in self._ahead.items():
            if not isinstance(instant, float) or stay.end[0] > instant:
                ahead.take(shape, placement)

    # What may start now -----------------------------------------------------------------------------------------------

    def find(
        self, shape: Shape, length: float, nodes: Iterable[int], *, moving: bool = True
    ) -> tuple[Placement | None, bool]:
        """(where it may start now for so long, whether it fits now but for what is reserved).

        `nodes` are the sets that it may use, the preferred first. First it is put where the placer wants it; where that
        would delay a promise, on other nodes; at last, if `moving`, the promised gang may go elsewhere, if it starts as
        promised.
        """
        wanted: list[Placement] = []  # where the placer would have it, in each set
        for allowed in nodes:
            left = allowed
            while (placement := self._place_on(shape, self._pool, left)) is not None:
                if left == allowed:
                    wanted.append(placement)
                against = self.against(shape, placement, self._now, length)
                if not against:
                    return placement, True
                left &= ~(against | self._full_nodes(shape, length))
        if moving:
            for placement in wanted:
                if self._gives_way(shape, placement, length):
                    return placement, True
        return None, bool(wanted)

    def _full_nodes(self, shape: Shape, length: float) -> int:
        """Of the nodes where room is kept at some time of this run, those where none is left over beside it."""
        full = 0
        if shape.total_gpus:
            for job_id, other in self.held.items():
                if other.start < self._now + length:
                    nodes = self._full.get(job_id)
                    if nodes is None:
                        nodes = self._full[job_id] = self.against_any(other)
                    full |= nodes
        return full

    def against_any(self, other: Reservation) -> int:
        """Nodes (a bit set) where nobody could have one more GPU, or a part of one, when this reservation starts."""
        full = 0
        start = max(other.start, self._now)
        for node in _nodes_of(other.placement):
            if self._pool.open[node]:
                continue  # parts may be left over
            active = [self.held[job_id] for job_id in self._held_on[node]]
            stays = [(one.shape, _on(one.placement, node)) for one in active if one.start <= start < one.end]
            stays.append((_ONE, [Piece(node, 1)]))
            if not self._holds(node, stays, lambda stay: stay[0] <= start):
                full |= 1 << node
        return full

    def behind(self, length: float) -> tuple[float, int]:
        """(the latest promised start that a run of this length would overlap, the job it is promised to)."""
        found = [(res.start, job_id) for job_id, res in self.held.items() if res.start < self._now + length]
        return max(found, default=(-math.inf, 0 if self.someday is None else self.someday.job))

    def against(
        self, shape: Shape, placement: Placement, start: float, length: float, *, at_start: bool = False
    ) -> int:
        """Nodes (a bit set) that this run would overfill, given all reservations. `at_start` also checks its start."""
        wrong = 0
        for node in _nodes_of(placement):
            if self._overfills(node, shape, placement, start, length, at_start=at_start):
                wrong |= 1 << node
        return wrong

    def _overfills(
        self, node: int, shape: Shape, placement: Placement, start: float, length: float, *, at_start: bool
    ) -> bool:
        end = start + length
        there = [self.held[job_id] for job_id in self._held_on.get(node, ())]
        there = [other for other in there if other.start < end and start < other.end]
        someday = self.someday
        waits = someday is not None and any(piece.node == node for piece in someday.placement)
        if not there and not waits and not at_start:
            return False
        mine = [piece for piece in placement if piece.node == node]
        instants = {max(other.start, start) for other in there}
        if at_start:
            instants.add(start)
        for instant in instants:
            stays = [(shape, mine)]
            stays += [
                (other.shape, _on(other.placement, node)) for other in there if other.start <= instant < other.end
            ]
            # By now nobody has left, not even who starts in this pass and is said to need no time at all.
            by = instant if instant > self._now else -math.inf
            if not self._holds(node, stays, lambda stay, by=by: stay[0] <= by):  # type: ignore[misc] # mypy infers no lambda with a default
                return True
        if someday is not None and waits:
            last = someday.last
            stays = [(shape, mine), (someday.shape, _on(someday.placement, node))]
            return not self._holds(node, stays, lambda stay: stay[1:] <= last)
        return False

    def _holds(self, node: int, stays: list[tuple[Shape, list[Piece]]], left: Callable[[End], bool]) -> bool:
        """Whether a node holds these beside the running jobs that have not left by then."""
        pool = self._pool
        running = [(job.shape, job.placement, self._ends.end(job.id)) for job in self._ends.on.get(node, {}).values()]
        running += [(stay.shape, stay.placement, stay.end) for stay in self._new_on.get(node, ())]
        if pool.open[node] or any(shape.gpu_milli for shape, _ in stays):
            return self._holds_parts(node, stays, [(shape, where) for shape, where, end in running if not left(end)])
        free = [pool.free[node], pool.cpu[node], pool.memory[node]]
        for shape, placement, end in running:
            if left(end):
                _add(free, shape, _on(placement, node), 1)
        wants_room = False
        for shape, pieces in stays:
            wants_room = wants_room or not shape.plain
            _add(free, shape, pieces, -1)
        # A node that shrank may lack CPUs or memory; that is nobody's fault who asks for none.
        return free[0] >= 0 and (not wants_room or (free[1] >= 0 and free[2] >= 0))

    def _holds_parts(
        self, node: int, stays: list[tuple[Shape, list[Piece]]], running: list[tuple[Shape, Placement]]
    ) -> bool:
        """The same where GPUs are shared: put one after another on a pool of that node alone."""
        alone = Pool([self._pool.nodes[node]])
        try:
            for shape, placement in running:
                alone.take(shape, tuple([piece._replace(node=0) for piece in placement if piece.node == node]))
            for shape, pieces in stays:
                alone.take(shape, tuple([piece._replace(node=0) for piece in pieces]))
        except PlanError:
            return False
        return True

    def _gives_way(self, shape: Shape, placement: Placement, length: float) -> bool:
        """Whether the one promised gang in the way can go elsewhere at its start; then it does."""
        end = self._now + length
        hindered = [
            job_id
            for job_id, other in self.held.items()
            if other.start < end and not _nodes(other.placement).isdisjoint(_nodes(placement))
        ]
        someday = self.someday
        loads = _loads(shape, placement)
        if someday is not None and not _nodes(someday.placement).isdisjoint(_nodes(placement)):
            return not hindered and self._someday_gives_way(someday, shape, placement)
        if len(hindered) != 1 or self._known_to_be_stuck(hindered[0], loads):
            return False
        return self._held_gives_way(hindered[0], shape, placement, length)

    def _known_to_be_stuck(self, job_id: int, loads: list[_Load]) -> bool:
        """Whether as little or less was in its way before, and it could not go elsewhere."""
        return any(
            tried[0] == load[0] and tried[1] <= load[1] and tried[2] <= load[2] and tried[3] <= load[3]
            for tried in self._stuck.get(job_id, ())
            for load in loads
        )

    def _held_gives_way(self, job_id: int, shape: Shape, placement: Placement, length: float) -> bool:
        known = (self._stuck.setdefault(job_id, []), dict(self._full))
        other = self.drop(job_id)
        moved = self._elsewhere(other, shape, placement)
        if moved is not None:
            self.hold(job_id, other._replace(placement=moved))
            if not self.against(shape, placement, self._now, length) and not self.against_others(job_id):
                return True
            self.drop(job_id)
        elif len(_nodes(placement)) == 1:
            # With nothing but its GPUs in the way, who asks for other CPUs or memory need not be tried either.
            bare = Shape(max(shape.num_nodes, 1), shape.gpus, shape.gpu_milli)
            alone = placement if shape.num_nodes else (Piece(placement[0].node, shape.gpus),)
            known[0].append(_load(shape if self._elsewhere(other, bare, alone) is not None else bare, alone))
        self.hold(job_id, other)
        self._stuck[job_id], self._full = known
        return False

    def _elsewhere(self, other: Reservation, shape: Shape, placement: Placement) -> Placement | None:
        """Where a gang that is promised a start could go then if this run were in its way; it is not held now."""
        ahead = self.at(other.start)
        outer = ahead.begin()
        try:
            ahead.take(shape, placement)
            for held in self.held.values():
                if held.start <= other.start < held.end:
                    ahead.take(held.shape, held.placement)
            return self._first(other.shape, ahead)
        except PlanError:
            return None  # it does not fit beside what starts before
        finally:
            ahead.rollback(outer)

    def against_others(self, job_id: int) -> bool:
        """Whether a reservation would overfill a node later, when others start."""
        mine = self.drop(job_id)
        wrong = self.against(mine.shape, mine.placement, mine.start, mine.end - mine.start)
        self.hold(job_id, mine)
        return bool(wrong)

    def _someday_gives_way(self, someday: Someday, shape: Shape, placement: Placement) -> bool:
        ahead = self._ahead.get(someday.last)
        if ahead is None:
            ahead = self._pool.copy()
            for stay in self._running():
                if stay.end[1:] <= someday.last:
                    ahead.give(stay.shape, stay.placement)
            self._ahead[someday.last] = ahead
        outer = ahead.begin()
        try:
            ahead.take(shape, placement)
            moved = self._first(someday.shape, ahead)
        except PlanError:
            return False
        finally:
            ahead.rollback(outer)
        if moved is not None:
            self.someday = someday._replace(placement=moved)
        return moved is not None

    def room_at(self, shape: Shape, start: float, length: float) -> Placement | None:
        """Where it can start at an instant to come, beside all reservations; None = nowhere."""
        return self._beside(shape, length, start, self.at(start))

    # What is promised -------------------------------------------------------------------------------------------------

    def earliest(self, shape: Shape, length: float, before: float = math.inf) -> tuple[float, Placement] | None:
        """The earliest instant after now, and before `before`, at which it can start; None = it cannot be told."""
        if not self.held:
            if before < math.inf and not self._fits_just_before(before, shape):
                return None
            with self._sweep(before) as sweep:
                first = sweep.search(lambda pool: self._first(shape, pool), shape)
                return None if first is None else (first, self._found(shape, sweep.pool))
        instants = list(self._instants(shape, length, before))
        if not instants:
            return None
        with self._sweep(math.nextafter(instants[-1], math.inf)) as sweep:
            # Without the reservations it could start no earlier.
            start = sweep.search(lambda pool: self._first(shape, pool), shape)
            for instant in instants:
                if start is not None and instant < start:
                    continue
                sweep.to(instant)
                placement = self._beside(shape, length, instant, sweep.pool)
                if placement is not None:
                    return instant, placement
        return None

    def _fits_just_before(self, instant: float, shape: Shape) -> bool:
        """Whether it could start before those leave that leave at an instant. If not, it could at no time before."""
        ahead = self.at(instant)
        outer = ahead.begin()
        order, jobs = self._ends.order, self._ends.jobs
        for end in order[bisect_left(order, (instant,)) : bisect_right(order, (instant, math.inf, 0))]:
            job = jobs[end[2]]
            ahead.stay(job.shape, job.placement)
        for stay in self._new:
            if stay.end[0] == instant:
                ahead.stay(stay.shape, stay.placement)
        fits = self._first(shape, ahead) is not None
        ahead.rollback(outer)
        return fits

    def _sweep(self, before: float) -> Sweep:
        return Sweep(self.at(-math.inf), list(takewhile(lambda stay: stay.end[0] < before, self._running())))

    def _instants(self, shape: Shape, length: float, before: float) -> Iterator[float]:
        """Instants after now at which somebody leaves and, by their number alone, GPUs enough are free for so long."""
        steps = self._steps
        if steps is None:
            steps = self._steps = Steps()
            for stay in self._running():
                steps.add(stay.end[0], self._most(stay))
            for other in self.held.values():
                self._count(other, 1)
        needs = int(shape.total_gpus) if not shape.gpu_milli else 0
        return steps.holes(self._now, self._pool.free_gpus, needs, length, before)

    def _most(self, stay: Stay) -> int:
        """GPUs that are free when it leaves: at most, since others may share one of them."""
        up = self._pool.up
        return sum([piece.gpus or piece.gpu_milli > 0 for piece in stay.placement if up >> piece.node & 1])

    def _count(self, reservation: Reservation, sign: int) -> None:
        """A reservation counts in the number of free GPUs, or no longer does."""
        if self._steps is not None:
            gpus = sign * sum([piece.gpus for piece in reservation.placement])
            self._steps.add(max(reservation.start, self._now), -gpus)
            self._steps.add(max(reservation.end, self._now), gpus)

    def _beside(self, shape: Shape, length: float, instant: float, ahead: Pool) -> Placement | None:
        """Where it could start at an instant, for which `ahead` is the pool, beside all reservations."""
        outer = ahead.begin()
        try:
            for other in self.held.values():
                if other.start <= instant < other.end:
                    ahead.take(other.shape, other.placement)
            for allowed in ahead.allowed(shape):
                left = allowed
                while (placement := self._place_on(shape, ahead, left)) is not None:
                    against = self.against(shape, placement, instant, length)
                    if not against:
                        return placement
                    left &= ~against
        except PlanError:
            return None  # a promise that others overran: it is looked after in its turn
        finally:
            ahead.rollback(outer)
        return None

    def wait_for(self, job_id: int, shape: Shape) -> bool:
        """Keep room for a job whose start cannot be told, if there is a way to think of one."""
        running = sorted(self._running(), key=_began)
        stays = [stay._replace(end=(index, *stay.end[1:])) for index, stay in enumerate(running)]
        with Sweep(self.at(-math.inf), stays) as sweep:
            last = sweep.search(lambda pool: self._first(shape, pool), shape)
            if last is None:
                return False
            self.someday = Someday(job_id, shape, self._found(shape, sweep.pool), stays[int(last)].end[1:])
        return True

    def at(self, instant: float) -> Pool:
        """The pool at an instant to come: without those that have left by then, with all that this pass started.

        At minus infinity nobody has left: it is the pool as it is now, to let time run in.
        """
        ahead = self._ahead.get(instant)
        if ahead is None:
            ahead = self._ahead[instant] = self._carried_on(instant) or self._made(instant)
            ahead.begin()  # what this pass adds; `carry` takes it back
            for stay in self._new:
                if stay.end[0] > instant:
                    ahead.take(stay.shape, stay.placement)
        return ahead

    def _made(self, instant: float) -> Pool:
        ahead = self._pool.copy()
        for stay in self._new:
            ahead.give(stay.shape, stay.placement)
        jobs = self._ends.jobs
        for end in takewhile(lambda end: end[0] <= instant, self._ends.order):
            job = jobs[end[2]]
            ahead.give(job.shape, job.placement)
        return ahead

    def _carried_on(self, instant: float) -> Pool | None:
        """The pool of an earlier pass, with what has come and gone since; None = there is none, or too much has."""
        ahead, position = self._carried.pop(instant, (None, 0))
        changes = self._ends.since(position)
        if ahead is None or changes is None:
            return None
        for end, shape, placement, came in changes:
            if end[0] > instant:
                (ahead.take if came else ahead.give)(shape, placement)
        return ahead

    def carry(self) -> dict[float, tuple[Pool, int]]:
        """The pools at promised starts, for the next pass. This one is over then."""
        carried = {}
        for start in (-math.inf, *sorted({one.start for one in self.held.values()})[:_CARRIED]):
            ahead = self._ahead.get(start)
            if ahead is not None:
                ahead.rollback(None)
                carried[start] = (ahead, self._ends.position)
            elif start in self._carried:
                carried[start] = self._carried[start]
        return carried

    def _running(self) -> Iterator[Stay]:
        """Who holds GPUs, by estimated end, those of this pass too."""
        jobs, new = self._ends.jobs, self._new
        at = 0
        for end in self._ends.order:
            while at < len(new) and new[at].end < end:
                yield new[at]
                at += 1
            job = jobs[end[2]]
            yield Stay(end, job.shape, job.placement)
        yield from new[at:]

    def _first(self, shape: Shape, pool: Pool) -> Placement | None:
        for nodes in pool.allowed(shape):
            placement = self._place_on(shape, pool, nodes)
            if placement is not None:
                return placement
        return None

    def _found(self, shape: Shape, pool: Pool) -> Placement:
        placement = self._first(shape, pool)
        assert placement is not None, "it fitted there"
        return placement


_Load = tuple[int, float, int, int]
"""(node, GPUs, thousandths of a CPU, bytes) that a run takes there."""
_ONE = Shape(1, 1)


def _loads(shape: Shape, placement: Placement) -> list[_Load]:
    """What a run takes of each of its nodes."""
    return [_load(shape, _on(placement, node)) for node in _nodes_of(placement)]


def _load(shape: Shape, pieces: Sequence[Piece]) -> _Load:
    """What pieces on one node take of it. A part of a GPU counts as such: who could not stand it stands no more."""
    taken = [0, 0, 0]
    _add(taken, shape, pieces, 1)
    return (pieces[0].node, taken[0] + sum([piece.gpu_milli for piece in pieces]) / 1000, taken[1], taken[2])


def _add(free: list[int], shape: Shape, pieces: Iterable[Piece], sign: int) -> None:
    """Add what these pieces hold of one node to what is free there: whole GPUs, thousandths of a CPU, bytes."""
    for piece in pieces:
        free[0] += sign * piece.gpus
        if not shape.plain:
            cpu, memory = piece_needs(shape, piece)
            free[1] += sign * cpu
            free[2] += sign * memory


def _began(stay: Stay) -> tuple[float, int]:
    return stay.end[1:]


def _on(placement: Placement, node: int) -> list[Piece]:
    return [piece for piece in placement if piece.node == node]


def _nodes(placement: Placement) -> set[int]:
    return {piece.node for piece in placement}


def _nodes_of(placement: Placement) -> Iterable[int]:
    return (placement[0].node,) if len(placement) == 1 else {piece.node: None for piece in placement}
