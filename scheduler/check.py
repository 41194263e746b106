"""What the engine demands of a policy's plan, beside room on the nodes (which the pool checks)."""

from __future__ import annotations

from collections.abc import Mapping

from ..cluster.pool import Pool
from ..jobs.errors import PlanError
from ..jobs.events import MOVES, Kind
from ..jobs.job import Job, Placement, State
from ..policies.plan import Plan, Preemption, Start


def check_plan(plan: Plan, jobs: Mapping[int, Job], pool: Pool, by: str, *, kept: bool) -> None:
    """Every start is a waiting job's, whole, where it may go; what the trial did not keep is taken here.

    Args:
        plan: what the policy answered.
        jobs: all that are not finished, by id.
        pool: what is free.
        by: the policy, for messages.
        kept: whether the pool holds the starts already.

    Raises:
        PlanError: it breaks one of these; nothing of the plan is taken.
    """
    seen: set[int] = set()
    taken: list[Start] = []
    try:
        for job, placement in plan.starts:
            if job.state is not State.QUEUED or jobs.get(job.id) is not job or job.id in seen:
                why = "twice" if job.id in seen else f"which does not wait (it is {job.state})"
                raise PlanError(f"policy {by} starts job {job.id}, {why}")  # noqa: TRY301 - undone below
            seen.add(job.id)
            check_whole(job, placement, pool, by)
            if not kept:
                pool.take(job.shape, placement)
                taken.append(Start(job, placement))
        for victim in plan.preemptions:
            if not isinstance(victim, Preemption):
                raise PlanError(f"policy {by} preempts {victim!r}", hint="write Preemption(job, claimant)")  # noqa: TRY301 - the same
            job = victim.job
            if Kind.PREEMPTED not in MOVES[job.state] or jobs.get(job.id) is not job:
                raise PlanError(f"policy {by} preempts job {job.id}, which does not run (it is {job.state})")  # noqa: TRY301 - the same
    except PlanError:
        for job, placement in plan.starts if kept else taken:
            pool.give(job.shape, placement)
        raise


def check_whole(job: Job, placement: Placement, pool: Pool, by: str) -> None:
    """All or nothing, in the pieces and on the nodes that the job allows.

    Raises:
        PlanError: it is in part, in other pieces, or on a node of another type, label or that takes no work.
    """
    shape = job.shape
    if len(placement) == 1 and shape.plain and shape.num_nodes <= 1:
        number, gpus, milli, _ = placement[0]
        if number >= 0 and gpus == shape.gpus and not milli and pool.reach(shape) >> number & 1:
            return
    if shape.num_nodes == 0 and shape.gpus:
        whole = sum([piece[1] for piece in placement]) == shape.gpus
        whole = whole and all(piece[1] > 0 and not piece[2] for piece in placement)
    else:
        whole = len(placement) == max(shape.num_nodes, 1)
        whole = whole and all(piece[1] == shape.gpus and piece[2] == shape.gpu_milli for piece in placement)
    if not whole:
        raise PlanError(f"policy {by} starts job {job.id} ({shape}) in part: {placement}")
    used = 0
    for piece in placement:
        used |= 1 << piece[0] if piece[0] >= 0 else ~0
    if not any(used & ~nodes == 0 for nodes in pool.allowed(shape)):
        raise PlanError(f"policy {by} starts job {job.id} on nodes that it may not use or that take no work")
    if shape.distinct and used.bit_count() != len(placement):
        raise PlanError(f"policy {by} puts two pieces of job {job.id} on one node, which it rules out")
