"""Each law catches the policy that breaks it: a law that cannot fail proves nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from gpusched.cluster.pool import Pool, bits
from gpusched.jobs.job import Job, Piece, Placement, Shape
from gpusched.policies.blocking import Skip, Strict
from gpusched.policies.greedy import Greedy, Policy
from gpusched.policies.place import best_fit, first_fit
from gpusched.policies.plan import Plan, Preemption, Start
from gpusched.policies.queue import Key, Queue
from gpusched.policies.testing import LawBrokenError, Promises, check_policy


class Simple:
    """Skipping FIFO in a few lines, right in every respect; those below each spoil one."""

    name = "simple"
    version = "1"

    def order(self, job: Job) -> Key:
        return (job.submitted,)

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        return first_fit(shape, pool, nodes)

    def where(self, shape: Shape, pool: Pool) -> Placement | None:
        return next(filter(None, (self.place(shape, pool, nodes) for nodes in pool.allowed(shape))), None)

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:  # noqa: ARG002 - the protocol's
        plan = Plan()
        for job in queue.in_order():
            placement = self.where(job.shape, pool)
            if placement is not None:
                self.take(pool, job.shape, placement)
                plan.starts.append(Start(job, placement))
        return plan

    def take(self, pool: Pool, shape: Shape, placement: Placement) -> None:
        pool.take(shape, placement)


SIMPLE = Promises(reasons=False)


def test_the_simple_policy_keeps_the_laws():
    check_policy(Simple, promises=SIMPLE)


class DoubleBooking(Simple):
    """Decides several starts from one unchanged view of the cluster."""

    def take(self, pool: Pool, shape: Shape, placement: Placement) -> None:
        pass


class Overfull(Simple):
    """Looks at GPUs alone, so a node runs out of CPUs or memory."""

    def where(self, shape: Shape, pool: Pool) -> Placement | None:
        return super().where(replace(shape, cpu_milli=0, memory=0), pool)

    def take(self, pool: Pool, shape: Shape, placement: Placement) -> None:
        super().take(pool, replace(shape, cpu_milli=0, memory=0), placement)


class PartialGang(Simple):
    """Starts the pieces of a gang that fit."""

    def where(self, shape: Shape, pool: Pool) -> Placement | None:
        whole = super().where(shape, pool)
        return whole if whole is None or len(whole) == 1 else whole[:-1]


class AnyType(Simple):
    """Takes any node that takes work."""

    def where(self, shape: Shape, pool: Pool) -> Placement | None:
        return self.place(shape, pool, pool.up)


class OnCordoned(Simple):
    """Uses every node that is there, cordoned ones too."""

    def where(self, shape: Shape, pool: Pool) -> Placement | None:
        if shape.plain and shape.num_nodes == 1 and not shape.labels and not shape.gpu_types:
            room = [number for number in bits(pool.present) if pool.free[number] >= shape.gpus]
            return (Piece(room[0], shape.gpus),) if room else None
        return super().where(shape, pool)


class Together(Simple):
    """Forgets that some gangs want each piece on a node of its own."""

    def where(self, shape: Shape, pool: Pool) -> Placement | None:
        return super().where(replace(shape, distinct=False), pool)


_whims = itertools.cycle([False, True, True])


class Whimsical(Simple):
    """Starts from either end of the cluster, as it pleases."""

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        found = first_fit(shape, pool, nodes)
        if found is not None and len(found) == 1 and next(_whims):
            others = first_fit(shape, pool, nodes & ~(1 << found[0].node))
            return others or found
        return found


class Sulking(Simple):
    """Remembers what did not fit once, and never looks at it again."""

    def __init__(self) -> None:
        self.given_up: set[Shape] = set()

    def where(self, shape: Shape, pool: Pool) -> Placement | None:
        found = None if shape in self.given_up else super().where(shape, pool)
        if found is None:
            self.given_up.add(shape)
        return found


class NoGangs(Simple):
    """Leaves out what is wide."""

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        return None if shape.num_nodes > 1 else super().place(shape, pool, nodes)


class Twice(Simple):
    """Starts a job two times."""

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        plan = super().plan(now, queue, pool)
        return Plan(starts=plan.starts * 2)


class Untidy(Simple):
    """Tries on the pool and does not take back what it tried."""

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        found = first_fit(shape, pool, nodes)
        if found is not None:
            pool.take(shape, found)
        return found

    def take(self, pool: Pool, shape: Shape, placement: Placement) -> None:
        pass


class Generous(Simple):
    """Gives back to the pool what it never took."""

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        plan = super().plan(now, queue, pool)
        for job, placement in plan.starts:
            pool.give(job.shape, placement)
        return plan


class Speechless(Simple):
    """Answers with nothing when it starts nothing."""

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        plan = super().plan(now, queue, pool)
        return plan if plan.starts else None  # type: ignore[return-value] - that is what is wrong with it


class Assassin(Simple):
    """Preempts jobs that do not run."""

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        plan = super().plan(now, queue, pool)
        started = {job.id for job, _ in plan.starts}
        return Plan(
            starts=plan.starts, preemptions=[Preemption(job) for job in queue.in_order() if job.id not in started]
        )


class Cutting(Simple):
    """Cuts every total in two, also where it fits one node."""

    def place(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        if shape.num_nodes == 0 and shape.plain and shape.gpus > 1:
            half = shape.gpus // 2
            with pool.trial():
                first = first_fit(Shape(1, half), pool, nodes)
                if first is None:
                    return None
                pool.take(Shape(1, half), first)
                second = first_fit(Shape(1, shape.gpus - half), pool, nodes & ~(1 << first[0].node))
            return None if second is None else (*first, *second)
        return super().place(shape, pool, nodes)


def skipping() -> Policy:
    return Greedy("skipping", place=best_fit, blocking=Skip())


class Impatient(Greedy):
    """Says it is strict, and lets the second in line pass when the first does not fit."""

    def __init__(self) -> None:
        super().__init__("impatient", place=first_fit, blocking=Strict())

    def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
        return skipping().plan(now, queue, pool)


@pytest.mark.parametrize(
    ("broken", "promises", "law"),
    [
        (DoubleBooking, SIMPLE, "no GPU is given twice"),
        (Overfull, SIMPLE, "no GPU is given twice"),
        (PartialGang, SIMPLE, "no gang in part"),
        (AnyType, SIMPLE, "type, labels and nodes are honoured"),
        (OnCordoned, SIMPLE, "type, labels and nodes are honoured"),
        (Together, SIMPLE, "type, labels and nodes are honoured"),
        (Whimsical, SIMPLE, "same input, same plan|its past changes nothing"),
        (Sulking, SIMPLE, "its past changes nothing"),
        (NoGangs, SIMPLE, "sooner or later"),
        (Twice, SIMPLE, "starts what waits, once"),
        (Untidy, SIMPLE, "leaves the pool as it found it|no GPU is given twice"),
        (Generous, SIMPLE, "leaves the pool as it found it"),
        (Speechless, SIMPLE, "answers with a plan"),
        (Assassin, SIMPLE, "preempts what runs"),
        (Simple, Promises(), "who waits knows why"),
        (Simple, Promises(strict=True, reasons=False), "nobody overtakes"),
        (Impatient, Promises(strict=True), "nobody overtakes"),
        (Cutting, Promises(never_splits=True, reasons=False), "never splits what fits one node"),
        (skipping, Promises(patience=3600.0), "sooner or later"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_broken_policy_is_caught_by_its_law(broken: Callable[[], Policy], promises: Promises, law: str):
    with pytest.raises((LawBrokenError, ExceptionGroup)) as caught:
        check_policy(broken, promises=promises, examples=400)
    raised = caught.value
    found = raised.exceptions if isinstance(raised, ExceptionGroup) else (raised,)
    laws = {one.law for one in found if isinstance(one, LawBrokenError)}
    assert laws & set(law.split("|")), found


def test_the_smallest_world_that_breaks_the_law_is_told():
    with pytest.raises(LawBrokenError) as caught:
        check_policy(NoGangs, promises=SIMPLE)
    told = "\n".join(caught.value.__notes__)
    assert "Failing life" in told
    assert "nodes=[Node(" in told
    assert told.count("('submit', Shape(") == 1, "one gang is enough to show it"
    assert len(told.splitlines()) < 8


def test_a_seed_draws_other_worlds():
    drawn: list[int] = []

    class Counting(Simple):
        def plan(self, now: float, queue: Queue, pool: Pool) -> Plan:
            drawn.append(len(queue) * 1000 + len(pool.nodes))
            return super().plan(now, queue, pool)

    check_policy(Counting, promises=SIMPLE, examples=10)
    first, drawn = drawn, []
    check_policy(Counting, promises=SIMPLE, examples=10)
    assert drawn == first, "without a seed the worlds are the same each time"
    drawn = []
    check_policy(Counting, promises=SIMPLE, examples=10, seed=1)
    assert drawn != first
