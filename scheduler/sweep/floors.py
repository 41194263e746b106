"""Lower bounds beside simulated runs: computed once for a trace on a cluster, and set only where they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...cluster.backend import Node
from ...cluster.profile import Profile
from ...jobs.job import State
from ...jobs.traces.trace import Trace, counted
from ..report import Run, Summary


@dataclass(frozen=True, slots=True)
class Floor:
    """What no schedule can go below, clairvoyant and preemptive ones included.

    Attributes:
        jobs: how many jobs it is about.
        jct, makespan: seconds; None for no jobs.
        certificate: proof of the price bound, as JSON that `gpusched bound verify` checks; empty once it is stored.
    """

    jobs: int
    jct: float | None
    makespan: float | None
    certificate: str = ""


def floor_of(trace: Trace, nodes: Sequence[Node], profile: Profile) -> Floor:
    """The lower bounds of a trace on a cluster whose GPUs run as fast as the profile says, at best."""
    from ..bounds import lower_bounds, to_json  # noqa: PLC0415 - brings numpy, and few ask for bounds

    found = lower_bounds(trace, nodes, profile.best_rates(nodes))
    proof = to_json(found.certificate) if found.certificate is not None else ""
    return Floor(found.jobs, found.jct, found.makespan, proof)


def above(summary: Summary, run: Run, floor: Floor, profile: Profile) -> Summary:
    """The summary with its bounds, or with a note on why they do not hold for this run.

    They are about jobs that do all their work or run to their limit: a job that fails early could undercut them.
    """
    early = sum(job.state not in {State.SUCCEEDED, State.TIMEOUT} for job in run.jobs)
    if profile.estimates_are_limits:
        early += sum(job.state is State.TIMEOUT for job in run.jobs)
    if early:
        why = f"{counted(early, 'jobs')} did not do all of {'its' if early == 1 else 'their'} work"
    elif len(run.jobs) != floor.jobs:
        why = f"{counted(len(run.jobs), 'jobs')} were accepted, and the bounds are about {floor.jobs:,}"
    elif summary.window != "full":
        why = "they are about the full trace"
    else:
        return replace(summary, jct_bound=floor.jct, makespan_bound=floor.makespan)
    return replace(summary, notes=(*summary.notes, f"no lower bounds for {summary.policy}: {why}"))
