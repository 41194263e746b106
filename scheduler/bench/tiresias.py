"""The experiment of Tiresias (Gu et al., NSDI 2019), after its published simulator: its jobs, cluster and policies.

Every run goes through gpusched's own engine. `fifo` and `fjf` are compositions of the catalogue; so are the
others where the simulator does what its paper says. Where it does not, its quirks have names (`QUIRKS`) and count
unless they are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...cluster.pool import Pool
from ...jobs.errors import GpuschedError, NotFoundError
from ...jobs.events import Kind
from ...jobs.job import Placement, Shape
from ...jobs.traces.trace import Trace
from ...policies.artifact import Artifact
from ...policies.attained import LeastAttained
from ...policies.blocking import Skip, Strict
from ...policies.greedy import Greedy, Policy
from ...policies.order import arrival
from ...policies.orders import ORDERS
from ...policies.place import PLACERS, Placer
from ...policies.reclaim import ByOrder
from ..report import Run
from ..report.distribution import mean, percentile
from ..simulate import simulate
from .tiresias_files import Machines
from .tiresias_index import Index
from .tiresias_list import LIMITS, ByIndex, EveryOther, Listed, Lists, Queues, Sorted
from .tiresias_list import QUIRKS as LIST_QUIRKS

JSON = dict[str, Any]

POLICIES = {
    "fifo": "by arrival, the first that does not fit blocks",
    "fjf": "by arrival, what does not fit is passed over",
    "sjf": "fewest GPUs first, preemptive",
    "lpjf": "longest pending first, the first that does not fit blocks",
    "shortest": "least remaining time first, preemptive",
    "shortest-gpu": "least remaining GPU time first, preemptive",
    "dlas": "discretised least attained time, preemptive",
    "dlas-gpu": "discretised least attained GPU time (Tiresias-L), preemptive",
    "gittins": "Gittins index of the GPU time had, preemptive",
    "dlas-gpu-gittins": "dlas-gpu, and inside a queue by Gittins index (Tiresias-G)",
}
"""Name in the simulator -> what its authors say it is. `dlas-gpu-P` promotes as well: 05 = 0.5, else whole numbers."""
DEFAULT = tuple(POLICIES)[:9]
_PROMOTING = re.compile(r"dlas-gpu-(\d+)")

SCHEMES = {
    "count": "only the number of free GPUs matters",
    "yarn": "one node, or for more GPUs than a node has idle nodes and one for the rest; all on one switch",
    "random": "any GPUs: what fits is the same as by count",
    "crandom": "one node if possible, else any GPUs: what fits is the same as by count",
}
"""Placement schemes that are played; `greedy`, `balance`, `cbalance` and `gandiva` are not."""

QUIRKS = {
    "kept-places": "sjf, shortest, shortest-gpu, dlas, dlas-gpu: equals keep the places that earlier events gave them; "
    "without it the catalogue's policy of that name decides",
    **LIST_QUIRKS,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is run.

    Attributes:
        policies, schemes: names of POLICIES and SCHEMES; every pair is run.
        quirks: names of QUIRKS that count.
        limits: attained service at which a job leaves each queue but the last.
        sample: GPU-seconds that jobs needed, for the Gittins index; empty where no policy asks.
    """

    policies: tuple[str, ...] = DEFAULT
    schemes: tuple[str, ...] = ("count",)
    quirks: frozenset[str] = frozenset(QUIRKS)
    limits: tuple[float, ...] = tuple(map(float, LIMITS))
    sample: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for name in self.policies:
            if name not in POLICIES and not _PROMOTING.fullmatch(name):
                raise NotFoundError(
                    f"--schedule: there is no {name!r}", hint=f"one of {', '.join(POLICIES)}, or dlas-gpu-P"
                )
        for what, given, known in (("--scheme", self.schemes, SCHEMES), ("--quirks", self.quirks, QUIRKS)):
            for name in sorted(set(given) - set(known)):
                raise NotFoundError(f"{what}: there is no {name!r}", hint=f"one of {', '.join(known)}")
        if any(low >= high for low, high in zip((0.0, *self.limits), self.limits, strict=False)):
            raise GpuschedError("--limits: each is above the one before it, and the first above 0", hint="as 3250,7200")


@dataclass(frozen=True, slots=True)
class Done:
    """One run. Attributes: policy, scheme: by the simulator's names; by: what decided; run: what it left behind."""

    policy: str
    scheme: str
    by: str
    run: Run

    def times(self) -> Iterator[JSON]:
        """Each job as the simulator logs it, in the order of the file's submissions."""
        stopped = preempted(self.run)
        for job in sorted(self.run.jobs, key=lambda one: one.id):
            assert job.ended is not None, "every job of a run ends"
            assert job.first_start is not None, "and started before"
            assert job.estimate is not None, "its run time is told"
            yield {
                "schedule": self.policy,
                "scheme": self.scheme,
                "job_id": job.name,
                "num_gpu": job.shape.gpus,
                "submit_time": int(job.submitted),
                "start_time": int(job.first_start),
                "end_time": int(job.ended),
                "executed_time": int(job.ended - job.first_start),
                "JCT": int(job.ended - job.submitted),
                "duration": int(job.estimate),
                "pending_time": int(job.ended - job.submitted - job.estimate),
                "preempt": stopped[job.id],
            }


def preempted(run: Run) -> Counter[int]:
    """How often each job was preempted, by id."""
    return Counter(event.job for event in run.journal if event.kind is Kind.PREEMPTED)


def run_all(
    trace: Trace, machines: Machines, asked: Asked, progress: Callable[[int, int], None] | None = None
) -> list[Done]:
    """Every policy under every scheme, told every run time."""
    nodes = machines.inventory()
    pairs = [(policy, scheme) for scheme in asked.schemes for policy in asked.policies]
    done = []
    for number, (name, scheme) in enumerate(pairs):
        policy = policy_of(name, scheme, machines, asked)
        by = policy.name
        policy.name = name if len(asked.schemes) == 1 else f"{name} ({scheme})"
        run = simulate(trace, nodes, policy)
        done.append(Done(name, scheme, by, run))
        if progress is not None:
            progress(number + 1, len(pairs))
    return done


def rows(done: Sequence[Done]) -> list[JSON]:
    """The figures of each run. Times in seconds; median = sorted[n // 2], the others nearest rank."""
    return [_row(one) for one in done]


def _row(one: Done) -> JSON:
    ended = [job for job in one.run.jobs if job.ended is not None]
    jct = sorted(job.ended - job.submitted for job in ended if job.ended is not None)
    delays = [job.first_start - job.submitted for job in ended if job.first_start is not None]
    ends = [job.ended for job in ended if job.ended is not None]
    stopped = preempted(one.run)
    return {
        "schedule": one.policy,
        "scheme": one.scheme,
        "decided_by": one.by,
        "jobs": len(ended),
        "left_out": len(one.run.rejected),
        "jct_mean": mean(jct),
        "jct_median": jct[len(jct) // 2] if jct else None,
        "jct_p95": percentile(jct, 95),
        "jct_p99": percentile(jct, 99),
        "first_start_delay_mean": mean(delays),
        "makespan": max(ends) - min(job.submitted for job in ended) if ends else None,
        "preemptions": sum(stopped.values()),
        "preempted_jobs": len(stopped),
    }


# From the simulator's names to policies -------------------------------------------------------------------------------


def policy_of(name: str, scheme: str, machines: Machines, asked: Asked) -> Policy:
    """The policy that plays `name`; its own name says what it is."""
    place = placer(scheme, machines)
    placed = "yarn" if scheme == "yarn" else "count"
    if name in {"fifo", "fjf"} or (name == "lpjf" and "every-other" not in asked.quirks):
        rule = Skip() if name == "fjf" else Strict()
        return Greedy(f"arrival+{placed}+{rule.name}", order=arrival, place=place, blocking=rule)
    if name == "lpjf":
        return EveryOther(f"arrival+{placed}+every-other", place)
    if name in _SORTED:
        key, ours = _SORTED[name]
        if scheme != "yarn" and "kept-places" in asked.quirks:
            return Listed(f"list by {name}", lambda: Sorted(key))
        return _preemptive(f"{ours}+{placed}+skip+preempt", ORDERS[ours](), place)
    return _by_attained(name, asked)


_SORTED: dict[str, tuple[Callable[[Any], float], str]] = {
    "sjf": (lambda turn: turn.gpus, "smallest"),
    "shortest": (lambda turn: turn.left, "srtf"),
    "shortest-gpu": (lambda turn: turn.left * turn.gpus, "srsf"),
}
"""Key of the list, and the order of the catalogue that means the same."""


def _by_attained(name: str, asked: Asked) -> Policy:
    """The policies by attained service. The simulator places them by count, whatever the scheme."""
    limits, quirks = asked.limits, asked.quirks
    lists: Callable[[], Lists]
    if name in {"gittins", "dlas-gpu-gittins"}:
        index = Index(asked.sample)
        if name == "gittins":
            lists = lambda: ByIndex(index, quirks)  # noqa: E731 - a factory, as below
        else:
            lists = lambda: Queues(by_gpus=True, limits=limits, index=index, quirks=quirks)  # noqa: E731 - as above
        return Listed(f"list by {name}", lists)
    found = _PROMOTING.fullmatch(name)
    promote = float("0.5" if found and found[1] == "05" else found[1] if found else 0)
    by_gpus = name != "dlas"
    if "kept-places" in quirks:
        return Listed(f"list by {name}", lambda: Queues(by_gpus=by_gpus, limits=limits, promote=promote, quirks=quirks))
    count = PLACERS["count"]
    if by_gpus and not promote and "late-demotion" in quirks:
        return _preemptive("tiresias?wake=tiresias-artifact+count+skip+preempt", Artifact(limits), count)
    order = LeastAttained(limits=limits, by_gpus=by_gpus, promote=promote)
    ours = ("tiresias" if by_gpus else "tiresias by time") + (f"?promote={promote:g}" if promote else "")
    return _preemptive(f"{ours}+count+skip+preempt", order, count)


def _preemptive(name: str, order: Any, place: Placer) -> Policy:  # noqa: ANN401 - an Order, or a key
    return Greedy(name, order=order, place=place, blocking=Skip(), reclaim=ByOrder())


def placer(scheme: str, machines: Machines) -> Placer:
    """Where jobs go under a scheme."""
    if scheme != "yarn":
        return PLACERS["count"]
    return PLACERS["first_fit"] if machines.switches == 1 else OneSwitch(machines)


class OneSwitch:
    """First fit on the first switch that has room for the whole job."""

    def __init__(self, machines: Machines) -> None:
        together = (1 << machines.nodes) - 1
        self._switches = [together << switch * machines.nodes for switch in range(machines.switches)]

    def __call__(self, shape: Shape, pool: Pool, nodes: int) -> Placement | None:
        """A placement, whole, or None."""
        for switch in self._switches:
            if nodes & switch:
                found = PLACERS["first_fit"](shape, pool, nodes & switch)
                if found is not None:
                    return found
        return None
