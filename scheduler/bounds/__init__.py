"""Lower bounds on what any schedule could reach for a trace on a cluster, with proofs that anyone can check again.

They hold for every schedule, also for a clairvoyant one that preempts and migrates for nothing, and so for those that
do not preempt or that pay for restarts. `schedule / bound - 1` is at most how far a schedule is above the best that was
possible. docs/bounds.md says what is relaxed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...cluster.backend import Node
from ...jobs.traces.trace import Trace, TraceJob
from ...policies.place import Placer, first_fit
from ..report import rank
from .ascent import good_prices
from .certificate import Certificate, read_certificate, to_json, write_certificate
from .instance import SECOND, WHOLE, Instance, instance
from .makespan import makespan_bounds
from .prices import answer
from .squashed import height, mean_busy_times, squashed_srpt
from .verify import PRICE, verify

__all__ = ["Bounds", "Certificate", "lower_bounds", "read_certificate", "to_json", "verify", "write_certificate"]

JCT = {
    "L1": "squashed SRPT",
    "L2": "height",
    "L3": "mean busy times",
    "L5": "price certificate",
}
"""The bounds on mean JCT by name. L4, a linear program, is what L5 comes near from below without a solver."""
SLACK = 1e-9
"""Share by which a certificate claims less than floating point found, so that its exact proof reaches the claim."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds for a set of jobs on a cluster. Times in seconds.

    Attributes:
        jobs: how many jobs are bounded: all that were given and that an idle cluster of these nodes could hold.
        left_out: `TraceJob.id` of the others, which a simulation rejects.
        gpus: GPUs of the cluster.
        jct_by_name: bounds on the mean JCT of these jobs, by name of JCT.
        makespan_by_name: bounds on last end - first submission, by name of `makespan.FORMS`.
        jct_quantiles: bounds on the JCT's nearest-rank p50, p90 and p99: those of the run times.
        certificate: the proof of L5; None when there are no jobs.
    """

    jobs: int
    left_out: tuple[int, ...]
    gpus: int
    jct_by_name: Mapping[str, float]
    makespan_by_name: Mapping[str, float]
    jct_quantiles: Mapping[str, float]
    certificate: Certificate | None

    @property
    def jct(self) -> float | None:
        """The best bound on mean JCT: the greatest. None for no jobs."""
        return max(self.jct_by_name.values(), default=None)

    @property
    def makespan(self) -> float | None:
        """The best bound on the makespan: the greatest. None for no jobs."""
        return max(self.makespan_by_name.values(), default=None)


def lower_bounds(
    jobs: Trace | Sequence[TraceJob],
    nodes: Sequence[Node],
    rates: Mapping[str, float] | None = None,
    *,
    place: Placer = first_fit,
) -> Bounds:
    """Bound from below what any schedule of these jobs on these nodes could reach.

    The jobs that count are those that do all their work: leave out those that a simulation's failures end early.

    Args:
        jobs: a trace, or any of its jobs.
        nodes: the cluster.
        rates: speed by GPU type, where the trace's run times are at speed 1 and types without a rate run at 1. Each
            job counts as if all GPUs that it may use ran at the best of their rates.
        place: how the simulator's policy places; what it could not place on the idle cluster is left out.

    Raises:
        TraceError: there are no nodes, or a rate is not above 0.
    """
    whole = instance(jobs.jobs if isinstance(jobs, Trace) else jobs, nodes, rates, place=place)
    count = len(whole.items)
    if not count:
        return Bounds(0, whole.left_out, whole.capacity() // WHOLE, {}, {}, {}, None)
    released = sum(item.release for item in whole.items)
    capacity = whole.capacity()
    ends = {
        "L1": squashed_srpt(whole.items, capacity),
        "L2": height(whole.items),
        "L3": mean_busy_times(whole.items, capacity),
    }
    means = {name: max(total - released, 0) / (count * SECOND) for name, total in ends.items()}
    certificate = _certificate(whole)
    means["L5"] = certificate.jct_mean
    lengths = sorted(item.length for item in whole.items)
    places = {"p50": count // 2, "p90": rank(count, 90), "p99": rank(count, 99)}  # as report.Distribution counts
    return Bounds(
        jobs=count,
        left_out=whole.left_out,
        gpus=capacity // WHOLE,
        jct_by_name=means,
        makespan_by_name=makespan_bounds(whole),
        jct_quantiles={name: lengths[index] / SECOND for name, index in places.items()},
        certificate=certificate,
    )


def _certificate(whole: Instance) -> Certificate:
    """The best prices found, rounded as they are stored, with what they prove."""
    import numpy as np  # noqa: PLC0415 - only bounds need it

    market, edges, found, _ = good_prices(whole)
    prices = np.floor(found * PRICE)
    turns = np.append(True, np.any(np.diff(prices, axis=1) != 0, axis=0))  # slots of one price become one
    edges, prices = np.append(edges[:-1][turns], edges[-1]), prices[:, turns]
    proven = answer(market, edges, prices / PRICE).value + sum(item.length for item in whole.items) / SECOND
    first = min(item.release for item in whole.items)
    return Certificate(
        jobs=len(whole.items),
        digest=whole.digest(),
        left_out=whole.left_out,
        groups=whole.groups,
        rates=dict(whole.rates),
        edges=tuple(first + SECOND * int(edge) for edge in edges),
        rows=tuple((groups, tuple(map(int, row))) for groups, row in zip(market.rows, prices, strict=True)),
        jct_mean=max(proven / len(whole.items) * (1 - SLACK), 0.0),
    )
