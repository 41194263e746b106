"""What a run leaves behind: the one input of every report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ...cluster.backend import Node
from ...jobs.events import Event
from ...jobs.job import Job


@dataclass(frozen=True, slots=True)
class Run:
    """What a run leaves behind: all that reports are made of.

    Attributes:
        policy: name of the policy that decided.
        trace: where the jobs came from, for people: a file's path, or a live queue's name.
        cluster: the nodes; pieces in the journal name them by index.
        jobs: every job that was accepted, as it stands after the run.
        journal: every event of these jobs, in order of time or nearly so. The data of a PLACED event is the placement
            itself or `{"pieces": [[node, gpus, gpu_milli, slot], ...]}`; that of an attempt's end may tell `kept`,
            `lost` and `overhead`, each in wall seconds of the attempt.
        rejected: jobs that were not accepted, as (name, why).
        seconds: wall time that the run took.
        notes: what a reader of the figures must know, such as the rows that a trace reader left out.
        epoch: Unix time of second 0 of the run's clock; None = not known.
        decision_seconds: wall time of each decision of the policy, where it was measured.
    """

    policy: str
    trace: str
    cluster: Sequence[Node]
    jobs: Sequence[Job]
    journal: Sequence[Event]
    rejected: Sequence[tuple[str, str]] = ()
    seconds: float = 0.0
    notes: Sequence[str] = ()
    epoch: float | None = None
    decision_seconds: Sequence[float] = ()


def span_of(run: Run, journal: Sequence[Event]) -> tuple[float, float]:
    """First submission and last event of a run whose journal is in order; the same instant twice for an empty run."""
    start = min((job.submitted for job in run.jobs), default=journal[0].time if journal else 0.0)
    return start, max(start, journal[-1].time if journal else start)


def cluster_in_words(nodes: Sequence[Node]) -> str:
    """The nodes as the command line takes them, `NxG[:TYPE],...`, alike ones together in order of appearance."""
    alike = Counter((node.gpus, node.gpu_type) for node in nodes)
    return ",".join(f"{n}x{gpus}:{kind}" if kind else f"{n}x{gpus}" for (gpus, kind), n in alike.items())
