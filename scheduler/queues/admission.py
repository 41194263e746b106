"""Which queue a job means, and whether that queue could ever start it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from ...jobs.errors import InfeasibleError, NotFoundError, TraceError
from ...jobs.job import Job, Shape
from ...jobs.traces.trace import TraceJob
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
    faults = [] if anyway else [(job, why) for job in jobs if (why := _too_much(tree, job))]
    if faults:
        shown = [f"{job.name}: {why}" if len(jobs) > 1 else why for job, why in faults[:MOST_NAMED]]
        if len(faults) > len(shown):
            shown.append(f"and {len(faults) - len(shown)} more like these")
        raise InfeasibleError(
            "\n".join(shown), hint="nothing was queued; --queue-anyway queues it until that has changed"
        )
    for job in jobs:
        place(tree, job)


def place(tree: Tree, job: Job) -> None:
    """Put a job into the queue that it means, which there is: a priority within its bounds, its grace by default."""
    job.queue = tree.home(job.queue)
    grace = tree.grace(job.queue)
    if grace is not None and job.spec is not None and job.spec.checkpoint.grace is None:
        checkpoint = job.spec.checkpoint.model_copy(update={"grace": grace})
        job.spec = job.spec.model_copy(update={"checkpoint": checkpoint})
    node = tree[job.queue]
    job.priority = min(max(job.priority, node.priority_min), node.priority_max)


def screen(tree: Tree, jobs: Iterable[TraceJob]) -> dict[tuple[str, Shape], str]:
    """For each (queue, shape) of a trace why that queue could never start it, preemptible as jobs of traces are.

    Raises:
        TraceError: jobs name queues that are not there; the message counts them.
    """
    named = Counter((job.queue, job.shape) for job in jobs)
    lost: Counter[str] = Counter()
    for (name, _), count in named.items():
        if not tree.home(name):
            lost[name] += count
    if lost:
        listed = ", ".join(f"{name} ({count:,})" for name, count in lost.most_common(MOST_NAMED))
        more = f" and {len(lost) - MOST_NAMED} others" if len(lost) > MOST_NAMED else ""
        many = lost.total() > 1
        raise TraceError(
            f"{lost.total():,} {'jobs' if many else 'job'} of the trace {'are' if many else 'is'} for queues that the "
            f"queue file does not have: {listed}{more}",
            hint=f"add them to the file, or set `default_queue` for those that name none; {_leaves(tree)}",
        )
    return {(name, shape): too_much(tree, tree.home(name), shape, preemptible=True) for name, shape in named}


def missing(tree: Tree, name: str) -> NotFoundError:
    """Why a job cannot go to a queue, and which ones there are."""
    leaves, listed = [node.name for node in tree.leaves()], _leaves(tree)
    if name in tree:
        below = ", ".join(node.name for node in tree.children(name))
        return NotFoundError(f"queue {name} takes no jobs: it has queues below it", hint=f"submit to one of {below}")
    if name == DEFAULT:
        return NotFoundError("the job names no queue, and there is no default one", hint=f"name one: {listed}")
    near = get_close_matches(name, leaves, n=1)
    return NotFoundError(
        f"there is no queue {name!r}", hint=f"did you mean {near[0]}? {listed.capitalize()}" if near else listed
    )


def _leaves(tree: Tree) -> str:
    leaves = [node.name for node in tree.leaves()]
    more = f" and {len(leaves) - MOST_NAMED} more" if len(leaves) > MOST_NAMED else ""
    return f"the queues that take jobs are {', '.join(leaves[:MOST_NAMED])}{more}"


def _too_much(tree: Tree, job: Job) -> str:
    return too_much(tree, tree.home(job.queue), job.shape, preemptible=job.preemptible)


def too_much(tree: Tree, name: str, shape: Shape, *, preemptible: bool) -> str:
    """Why a gang could never start in this queue, in words; empty = it could."""
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
        if not preemptible and not tree[name].non_preemptible_may_borrow and amount > own + _SLACK:
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
