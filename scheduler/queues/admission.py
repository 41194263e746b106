"""Which queue a job means, and whether that queue could ever start it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from ...jobs.errors import InfeasibleError, NotFoundError
from ...jobs.job import Job
from ...policies.tree import CPUS, DEFAULT, GPUS, Tree

MOST_NAMED = 10
"""Queues or jobs that one message names."""


def enter(tree: Tree, jobs: Sequence[Job], *, anyway: bool = False) -> None:
    """Put jobs into the queues that they mean, their priorities within the queues' bounds, all or none.

    Raises:
        NotFoundError: there is no such queue, or it takes no jobs.
        InfeasibleError: a job asks for more than its queue could ever give it (unless `anyway`).
    """
    for name in dict.fromkeys(job.queue for job in jobs):
        if not tree.home(name):
            raise missing(tree, name)
    faults = [] if anyway else [(job, why) for job in jobs if (why := too_much(tree, job))]
    if faults:
        shown = [f"{job.name}: {why}" if len(jobs) > 1 else why for job, why in faults[:MOST_NAMED]]
        if len(faults) > len(shown):
            shown.append(f"and {len(faults) - len(shown)} more like these")
        raise InfeasibleError(
            "\n".join(shown), hint="nothing was queued; --queue-anyway queues it until that has changed"
        )
    for job in jobs:
        job.queue = tree.home(job.queue)
        node = tree[job.queue]
        job.priority = min(max(job.priority, node.priority_min), node.priority_max)


def missing(tree: Tree, name: str) -> NotFoundError:
    """Why a job cannot go to a queue, and which ones there are."""
    leaves = [node.name for node in tree.leaves()]
    more = f" and {len(leaves) - MOST_NAMED} more" if len(leaves) > MOST_NAMED else ""
    listed = f"the queues that take jobs are {', '.join(leaves[:MOST_NAMED])}{more}"
    if name in tree:
        below = ", ".join(node.name for node in tree.children(name))
        return NotFoundError(f"queue {name} takes no jobs: it has queues below it", hint=f"submit to one of {below}")
    if name == DEFAULT:
        return NotFoundError("the job names no queue, and there is no default one", hint=f"name one: {listed}")
    near = get_close_matches(name, leaves, n=1)
    return NotFoundError(
        f"there is no queue {name!r}", hint=f"did you mean {near[0]}? {listed.capitalize()}" if near else listed
    )


def too_much(tree: Tree, job: Job) -> str:
    """Why a job could never start in its queue, in words; empty = it could."""
    shape, name = job.shape, tree.home(job.queue)
    total = shape.total_gpus
    for node in tree.path(name):
        limit = node.limits.job_gpus
        if limit is not None and total > limit:
            return f"asks for {_amount(total, GPUS)}, and a job in queue {node.name} may have {limit:g} at most"
    asked = [(GPUS, total)] if total else []
    if shape.cpu_milli:
        asked.append((CPUS, max(shape.num_nodes, 1) * shape.cpu_milli / 1000))
    if total and len(shape.gpu_types) == 1:
        asked.append((shape.gpu_types[0], total))
    for flavour, amount in asked:
        most, own = tree.potential(name, flavour), tree.nominal(name, flavour)
        if amount > most + _SLACK:
            return f"asks for {_amount(amount, flavour)}, and queue {name} with all it borrows could have {most:g}"
        if not job.preemptible and not tree[name].non_preemptible_may_borrow and amount > own + _SLACK:
            return (
                f"asks for {_amount(amount, flavour)}, and queue {name} has {own:g} of its own: to borrow,"
                " a job must say `preemptible: true`"
            )
    return ""


_SLACK = 1e-6
"""Far below the thousandth of a GPU that is the smallest amount."""


def _amount(amount: float, flavour: str) -> str:
    what = {GPUS: "GPU", CPUS: "CPU"}.get(flavour, f"{flavour} GPU")
    return f"{amount:g} {what}{'s' * (amount != 1)}"
