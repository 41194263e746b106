"""What a job's queue has against its start, in words and with the numbers of this moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..jobs.job import Job
from ..policies.plan import Token
from ..policies.quotas import Quotas
from ..policies.tree import CPUS, GPUS, QueueNode

SHORT = {
    Token.QUEUE_NOT_FOUND: "its queue is gone, or takes no jobs any more",
    Token.QUEUE_PAUSED: "its queue is paused",
    Token.USER_LIMIT: "its user has as much as the queue allows",
    Token.QUOTA_EXCEEDED: "its queue may have no more now",
    Token.WAITING_FOR_VICTIMS: "others gave way to it, and it starts when their processes are gone",
}
"""Each reason that a queue or its victims give, without its numbers."""


def queue_reason(quotas: Quotas, job: Job) -> tuple[Token, str, dict[str, Any]] | None:
    """(reason, words, numbers) for which its queue does not let a job start now; None = it does."""
    token = quotas.refuses(job)
    if token is None:
        return None
    tree, name = quotas.tree, quotas.tree.resolve(job.queue)
    if token is Token.QUEUE_NOT_FOUND:
        words = f"queue {name} takes no jobs: it has queues below it" if name in tree else f"there is no queue {name}"
        return token, f"{words}; it starts when such a queue is configured again", {"queue": name}
    if token is Token.QUEUE_PAUSED:
        return token, f"queue {tree.paused(name)} is paused", {"queue": tree.paused(name)}
    for node in tree.path(name):
        said = _limited(quotas, node, job, token)
        if said is not None:
            return token, said, {"queue": node.name}
    return token, "; ".join(_quotas(quotas, name, job)) or SHORT[token], {"queue": name}


def _limited(quotas: Quotas, node: QueueNode, job: Job, token: Token) -> str | None:
    """What a limit of one queue on the way up says; None = it is not what holds the job up."""
    limits, asked = node.limits, job.shape.total_gpus
    gpus, jobs = quotas.held_by(node.name, job.user)
    who = job.user or "its user"
    if token is Token.USER_LIMIT:
        if limits.user_gpus is not None and gpus + asked > limits.user_gpus:
            return f"{who} holds {gpus:g} of the {limits.user_gpus:g} GPUs that a user of queue {node.name} may hold"
        if limits.user_running_jobs is not None and jobs >= limits.user_running_jobs:
            return f"{who} runs {jobs} jobs, as many as a user of queue {node.name} may run"
        return None
    if limits.running_jobs is not None and quotas.running(node.name) >= limits.running_jobs:
        return f"queue {node.name} runs {quotas.running(node.name)} jobs, as many as it may"
    if limits.job_gpus is not None and asked > limits.job_gpus:
        return f"asks for {asked:g} GPUs, and a job in queue {node.name} may have {limits.job_gpus:g} at most"
    return None


def _quotas(quotas: Quotas, name: str, job: Job) -> Iterator[str]:
    """Each flavour of which the queue may not have as much more as the job asks for."""
    tree, usage, shape = quotas.tree, quotas.usage, job.shape
    asked = {GPUS: shape.total_gpus, CPUS: max(shape.num_nodes, 1) * shape.cpu_milli / 1000}
    for flavour in tree.flavours:
        amount = asked.get(flavour, shape.total_gpus)
        typed = flavour not in asked
        kinds = {kind.lower() for kind in shape.gpu_types}
        if not amount or (typed and kinds and flavour.lower() not in kinds):
            continue
        what = {GPUS: "GPUs", CPUS: "CPUs"}.get(flavour, f"{flavour} GPUs")
        held = f"queue {name} holds {usage.of(name, flavour):g} {what} of {tree.nominal(name, flavour):g} of its own"
        if not usage.fits(name, flavour, amount):
            room = max(0.0, usage.headroom(name, flavour))
            yield f"{held}, and may take {room:g} more now; this asks for {amount:g}"
        elif not job.preemptible and usage.over_nominal(name, flavour, amount):
            yield f"{held}; to borrow, a job must be preemptible"
