"""What the engine demands of every start that a policy plans, beside room on the nodes (which the pool checks)."""

from __future__ import annotations

from ..cluster.pool import Pool
from ..jobs.errors import PlanError
from ..jobs.job import Job, Placement


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
