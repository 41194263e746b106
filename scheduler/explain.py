"""Why a job is where it is, in numbers of this moment, and what would make it start.

Everything here looks at an engine between two of its ticks and leaves it as it was.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..cluster.pool import Pool, bits
from ..jobs.errors import PlanError
from ..jobs.job import HOLDING, Job, Placement, Shape, State, TopologyWish
from ..policies.plan import Token, Why
from ..policies.queue import Key
from ..policies.reasons import never, not_now
from .closed_words import closed_nodes, closed_words, token_of
from .drains import at
from .engine import Engine
from .queue_words import queue_reason
from .shortage import behind_words, held_words, never_words, not_now_words, victims_words, why_words

FEW = 5
"""Jobs ahead that are named."""
DEEP = 2000
"""Waiting jobs up to which plans are tried out for suggestions and estimates: each trial costs a pass over all."""


_ELSEWHERE = {Token.TOPOLOGY_UNSATISFIED, Token.RESERVED_FOR_OTHER}
"""Why a job may wait although there is room for its shape: where that is is not where it may go now."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason for which a job waits, in words, and the numbers in it."""

    token: Token
    message: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Eta:
    """When a job would start if what is known of the others holds; `basis` says what that is."""

    time: float
    basis: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What there is to say on a waiting job.

    Attributes:
        reasons: all that apply, the most fundamental first.
        position: place in the queue, from 1; None = it is not in line. ahead: the first few before it.
        why: the reason as the policy gave it last; None = none yet.
        suggestions: (change to the request, what it would do).
        eta: None = not enough is known to tell.
        promised: when it starts at the latest if no job runs longer than was said, as the policy promised it, in
            seconds; None = it is promised nothing.
    """

    reasons: list[Reason]
    position: int | None
    waiting: int
    ahead: list[Job]
    why: Why | None
    suggestions: list[tuple[str, str]]
    eta: Eta | None
    promised: float | None = None


def explain(engine: Engine, job: Job, now: float) -> Explanation:
    """Look at a job in HELD or QUEUED."""
    group = engine.queue.group_of(job)
    in_line = job.state is State.QUEUED and job.not_before <= now
    position = position_of(engine, job) if in_line else None
    deep = len(engine.queue) > DEEP
    ahead = list(itertools.islice(engine.queue.in_order(), FEW if position is None else min(FEW, position - 1)))
    return Explanation(
        reasons=list(_reasons(engine, job, now)),
        position=position,
        waiting=len(engine.queue),
        ahead=ahead if position else [],
        why=group.why if group is not None and in_line else None,
        suggestions=[] if deep or not in_line else list(_suggestions(engine, job, now)),
        eta=None if deep or not in_line else estimate_start(engine, job, now),
        promised=_promised(engine, job, now) if in_line else None,
    )


def _promised(engine: Engine, job: Job, now: float) -> float | None:
    """The start that the policy promised it; one that has passed is none any more."""
    reservation = engine.queue.promised.get(job.id)
    return None if reservation is None or reservation.start < now else reservation.start


def position_of(engine: Engine, job: Job) -> int | None:
    """Place in the queue from 1; None = it is not in it. O(jobs ahead)."""
    queue = engine.queue
    group = queue.group_of(job)
    if group is None or job.state is not State.QUEUED:
        return None
    mine: Key | None = next((key for key, other in group.waiting() if other is job), None)
    if mine is None:
        return None
    ahead = 0
    for other in queue.all_groups():
        for key, _ in other.waiting():
            if key >= mine:
                break
            ahead += 1
    return ahead + 1


def _reasons(engine: Engine, job: Job, now: float) -> Iterator[Reason]:
    """All that stands between the job and its start, the most fundamental first."""
    pool, shape = engine.pool, job.shape
    if not pool.present:
        yield Reason(Token.SCALING_UP, "the cluster has no nodes yet")
        if job.state is State.HELD:
            yield Reason(Token.HELD, f"{held_words(job.reason)}; `gpusched release` lets it go")
        return
    token = never(shape, pool, engine.policy.place)
    if token is not None:
        away = {} if token is Token.INFEASIBLE else closed_words(closed_nodes(shape, pool), pool)[1]
        yield Reason(token, never_words(token, shape, pool), {"needs": shape.total_gpus, **away})
    victims = [one for one in map(engine.jobs.get, engine.queue.claimants.get(job.id, ())) if one is not None]
    # What its victims still hold counts against its queue, until they are gone.
    refused = None if engine.quotas is None or victims else queue_reason(engine.quotas, job)
    if refused is not None and refused[0] is Token.QUEUE_NOT_FOUND:
        yield Reason(*refused)
    yield from _of_itself(job, now)
    if refused is not None and refused[0] is not Token.QUEUE_NOT_FOUND:
        yield Reason(*refused)
    yield from _of_others(engine, job)
    if victims:
        numbers = {"victims": [victim.id for victim in victims]}
        yield Reason(Token.WAITING_FOR_VICTIMS, victims_words(victims), numbers)
    yield from _avoided(shape, pool)
    if token is None and not fits_now(shape, pool, engine):
        lack = not_now(shape, shape.total_gpus, pool, 0)
        if lack is not Token.NODES_DRAINING:
            words, numbers = not_now_words(lack, shape, pool)
            yield Reason(lack, words, numbers)
        yield from _closed(shape, pool)
    elif token is None and not victims:
        yield from _not_there(engine, job)


def _closed(shape: Shape, pool: Pool) -> Iterator[Reason]:
    """That enough would be free if nodes that take no work now, or close too soon, took it."""
    numbers = closed_nodes(shape, pool)
    free = sum(max(pool.free[number], 0) for number in numbers)
    if free and free + pool.free_on(pool.reach(shape)) >= shape.total_gpus:
        words, told = closed_words(numbers, pool)
        yield Reason(
            token_of(numbers, shape, pool),
            f"{free:g} GPU{'s' * (free != 1)} free where it may not go now: {words}",
            {"needs": shape.total_gpus, **told},
        )


def _avoided(shape: Shape, pool: Pool) -> Iterator[Reason]:
    """That it keeps off nodes on which it failed, where they have room; or that it cannot."""
    avoided = pool.avoided(shape)
    if not avoided:
        return
    names = [pool.nodes[number].name for number in bits(avoided)]
    numbers = {"avoid": names}
    if avoided & pool.reach(shape):
        words = f"it failed on {', '.join(names)}, and may go there again: the others that take work could not hold it"
        yield Reason(Token.AVOIDS_NODES, words, numbers)
    elif free := pool.free_on(avoided):
        words = f"{free:g} GPU{'s' * (free != 1)} free on {', '.join(names)}, which it avoids because it failed there"
        yield Reason(Token.AVOIDS_NODES, words, numbers)


def _of_itself(job: Job, now: float) -> Iterator[Reason]:
    """That it is held back, or not due yet."""
    if job.state is State.HELD:
        yield Reason(Token.HELD, f"{held_words(job.reason)}; `gpusched release` lets it go")
    if job.not_before > now:
        wait = f"{job.not_before - now:.0f} s from now, at {at(job.not_before)}"
        words = f"starts {wait}, at the earliest"
        if job.attempt and job.reason:
            failed = f", failed {job.failures} time{'s' * (job.failures != 1)} so far" if job.failures else ""
            words = f"the next attempt is not before {wait}{failed}: {job.reason}"
        numbers = {"not_before": job.not_before, "failures": job.failures, "cause": job.cause}
        yield Reason(Token.BEGIN_TIME, words, numbers)


def _of_others(engine: Engine, job: Job) -> Iterator[Reason]:
    """That another waiting job goes first."""
    group = engine.queue.group_of(job)
    why = None if group is None else group.why
    behind = engine.jobs.get(why.behind) if why is not None and why.behind else None
    if behind is not None and behind is not job and behind.state is State.QUEUED:
        assert why is not None
        reserved = why.token is Token.RESERVED_FOR_OTHER
        yield Reason(
            Token.RESERVED_FOR_OTHER if reserved else Token.PRIORITY,
            behind_words(behind, reserved=reserved),
            {"behind": behind.id},
        )


def _not_there(engine: Engine, job: Job) -> Iterator[Reason]:
    """That there is room for its shape, but not where it may go now: it has a rung to climb, or it is others'."""
    group = engine.queue.group_of(job)
    why = None if group is None else group.why
    if why is not None and not why.behind and why.token in _ELSEWHERE:
        numbers = {"needs": why.needs, "free": why.free, "largest": why.largest}
        yield Reason(why.token, why_words(why, job.shape), numbers)


def fits_now(shape: Shape, pool: Pool, engine: Engine) -> bool:
    """Whether there is room for it at this moment, whoever else waits."""
    return _place(shape, pool, engine) is not None


def _place(shape: Shape, pool: Pool, engine: Engine) -> Placement | None:
    for nodes in pool.allowed(shape):
        placement = engine.policy.place(shape, pool, nodes)
        if placement is not None:
            return placement
    return None


# What would help ------------------------------------------------------------------------------------------------


def _suggestions(engine: Engine, job: Job, now: float) -> Iterator[tuple[str, str]]:
    """Smaller or less particular requests that the policy would start at once in this job's place."""
    found = 0
    for change, shape in _smaller(job.shape):
        twin = _twin(job, shape)
        plan = engine.foresee([twin], now, instead_of=job)
        if any(start.job is twin for start in plan.starts):
            yield change, "would start now"
            found += 1
            if found == 3:  # noqa: PLR2004 - more are no help
                return


def _smaller(shape: Shape) -> Iterator[tuple[str, Shape]]:
    """Requests that ask for one thing less, the smallest change first."""
    if shape.gpu_types:
        yield "any GPU type", _changed(shape, gpu_types=())
    if shape.labels:
        yield "no node labels", _changed(shape, labels=())
    if shape.cpu_milli > 1000:  # noqa: PLR2004 - one CPU, in thousandths
        yield "1 CPU per node", _changed(shape, cpu_milli=1000)
    if shape.memory:
        yield "no memory reserved", _changed(shape, memory=0)
    if shape.topology is not None and shape.topology.mode == "required":
        yield (
            f"{shape.topology.level} preferred, not required",
            _changed(shape, topology=TopologyWish("preferred", shape.topology.level)),
        )
    if shape.distinct:
        yield "pieces sharing nodes", _changed(shape, distinct=False)
    gpus = shape.gpus // 2
    while gpus:
        per_node = " per node" if shape.num_nodes > 1 else ""
        yield f"{gpus} GPU{'s' * (gpus > 1)}{per_node}", _changed(shape, gpus=gpus)
        gpus //= 2
    nodes = shape.num_nodes // 2
    while nodes:
        yield f"{nodes} node{'s' * (nodes > 1)}", _changed(shape, num_nodes=nodes)
        nodes //= 2


def _changed(shape: Shape, **change: Any) -> Shape:  # noqa: ANN401 - any field of Shape
    fields = {
        "num_nodes": shape.num_nodes,
        "gpus": shape.gpus,
        "gpu_milli": shape.gpu_milli,
        "gpu_types": shape.gpu_types,
        "cpu_milli": shape.cpu_milli,
        "memory": shape.memory,
        "labels": shape.labels,
        "distinct": shape.distinct,
        "topology": shape.topology,
        "avoid": shape.avoid,
        "closing": shape.closing,
    }
    return Shape(**{**fields, **change})


def _twin(job: Job, shape: Shape) -> Job:
    """A stand-in of another shape with the same place in the queue."""
    twin = Job(
        job.id,
        shape,
        job.submitted,
        name=job.name,
        queue=job.queue,
        user=job.user,
        priority=job.priority,
        estimate=job.estimate,
        limit=job.limit,
        preemptible=job.preemptible,
    )
    twin.queued = job.queued
    return twin


# When -----------------------------------------------------------------------------------------------------------

MOST_AHEAD = 200
"""Waiting jobs up to which a start is estimated."""


def estimate_start(engine: Engine, job: Job, now: float) -> Eta | None:
    """When the job starts if running jobs end as estimated (or at their limits) and nobody overtakes.

    None if it cannot be told: too little is known of how long the others run.
    """
    if len(engine.queue) > MOST_AHEAD or not engine.pool.up or _impossible(engine, job):
        return None
    if engine.quotas is not None and engine.quotas.refuses(job) is not None:
        return None  # when its queue may have more depends on who gives back what
    ahead = _ahead_of(engine, job)
    try:
        pool, ends = _copy(engine, now)
    except PlanError:
        return None  # a node holds more than it has: it shrank, and nothing can be told from it
    ended: list[Job] = []
    time = now
    while True:
        while ahead and (placement := _place(ahead[0].shape, pool, engine)) is not None:
            first = ahead.pop(0)
            pool.take(first.shape, placement)
            length = _length(first)
            if length is not None:
                ends.append((time + length, first, placement))
        if not ahead and _place(job.shape, pool, engine) is not None:
            break
        if not ends:
            return None
        ends.sort(key=lambda end: end[0])
        time, done, placement = ends.pop(0)
        pool.give(done.shape, placement)
        ended.append(done)
    if not ended:
        return Eta(time, "there is room for it now")
    estimates = sum(other.estimate is not None for other in ended)
    counted = [f"{estimates} by estimate"] * bool(estimates)
    counted += [f"{len(ended) - estimates} by time limit"] * (estimates < len(ended))
    return Eta(time, f"if {len(ended)} running or earlier jobs end in time ({', '.join(counted)}) and none overtakes")


def _ahead_of(engine: Engine, job: Job) -> list[Job]:
    """Who goes first, in order. What can never start holds nobody up."""
    before = itertools.takewhile(lambda other: other is not job, engine.queue.in_order())
    return [other for other in before if not _impossible(engine, other)]


def _impossible(engine: Engine, job: Job) -> bool:
    """Whether the policy found that this cluster, as it is laid out now, could never hold the job."""
    group = engine.queue.group_of(job)
    known = group is not None and group.layout == engine.pool.layout
    return (group.never if known and group else never(job.shape, engine.pool, engine.policy.place)) is not None


def _copy(engine: Engine, now: float) -> tuple[Pool, list[tuple[float, Job, Placement]]]:
    """The cluster as it is, to let time run in, and when each running job ends as far as that is known."""
    source = engine.pool
    pool = Pool(source.nodes, source.levels)
    ends = []
    for job in engine.jobs.values():
        if job.state in HOLDING and all(source.present >> piece.node & 1 for piece in job.placement):
            pool.take(job.shape, job.placement)
            length = _length(job)
            if length is not None:
                ends.append((max(now, (job.started or job.placed) + length), job, job.placement))
    for number in range(len(source.nodes)):
        if not source.present >> number & 1:
            pool.drop(source.nodes[number].name)
    return pool, ends


def _length(job: Job) -> float | None:
    return job.limit if job.estimate is None else job.estimate


def names_of(placement: Placement, pool: Pool) -> list[str]:
    """Names of the nodes of a placement, in rank order."""
    return [pool.nodes[piece.node].name for piece in placement]
