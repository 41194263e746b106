"""What can be asserted: every metric by its name, over any set of jobs, and who is to blame for its value.

The formulas are those of the reports (docs/metrics.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from math import fsum

from ...jobs.job import Job, State
from ..report.fairness import jain
from ..report.ledger import Account, Waste, waste
from ..report.load import first_wait
from ..report.metric import METRICS
from .kinds import GPU_TIME, INDEX, NUMBER, SHARE, TIME, Kind
from .quantities import ALIASES, QUANTITIES, names, statistic
from .scene import Found, Subset, called


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric. Attributes: better: -1 = lower is, 1 = higher is, 0 = neither; whole: of the cluster, not of jobs."""

    name: str
    kind: Kind
    better: int
    find: Callable[[Subset], Found]
    whole: bool = False


def _longest_wait(subset: Subset) -> Found:
    if not subset.jobs:
        return Found(None, subset.nobody())
    end = subset.scene.measured.last
    value, job = max(((first_wait(job, end), job) for job in subset.jobs), key=lambda pair: (pair[0], -pair[1].id))
    return Found(value, called(job) if job.first_start is not None else f"{called(job)}, which never started")


def _makespan(subset: Subset) -> Found:
    ended = [(job.ended, job) for job in subset.jobs if job.ended is not None]
    if not ended:
        return Found(None, subset.nobody())
    end, last = max(ended, key=lambda pair: (pair[0], -pair[1].id))
    return Found(end - min(job.submitted for job in subset.jobs), f"last {called(last)}")


def _counted(count: Callable[[Job, Subset], float], *, most: bool = False) -> Callable[[Subset], Found]:
    """The sum (or with `most` the maximum) over the jobs, and the job that has most of it."""

    def find(subset: Subset) -> Found:
        if not subset.jobs:
            return Found(None, subset.nobody())
        counts = [(count(job, subset), job) for job in subset.jobs]
        top, job = max(counts, key=lambda pair: (pair[0], -pair[1].id))
        total = top if most else fsum(value for value, _ in counts)
        return Found(total, f"most {called(job)}" if top else "")

    return find


_NOTHING = Account()


def _account(job: Job, subset: Subset) -> Account:
    return subset.scene.measured.books.get(job.id, _NOTHING)


def _per_job(find: Callable[[Subset], Found]) -> Callable[[Subset], Found]:
    def divided(subset: Subset) -> Found:
        if not subset.rows:
            return Found(None, subset.nobody())
        total, who = find(subset)
        return Found(None if total is None else total / len(subset.rows), who)

    return divided


def _evenness(owner: Callable[[Job], str], what: str) -> Callable[[Subset], Found]:
    def find(subset: Subset) -> Found:
        held: dict[str, float] = defaultdict(float)
        for job in subset.jobs:
            held[owner(job)] += job.gpu_seconds
        if len(held) < 2:  # noqa: PLR2004 - one alone is neither even nor uneven
            return Found(None, f"fewer than two {what}s have jobs here")
        index = jain(held.values())
        least, most = min(held, key=lambda name: (held[name], name)), max(held, key=lambda name: (held[name], name))
        return Found(index, f"least {what} {least or '-'}, most {most or '-'}")

    return find


def _wasted(part: Callable[[Waste], float]) -> Callable[[Subset], Found]:
    def find(subset: Subset) -> Found:
        if not subset.jobs:
            return Found(None, subset.nobody())
        books = subset.scene.measured.books
        worst = max(subset.jobs, key=lambda job: (part(waste(books, [job])), -job.id))
        value = part(waste(books, subset.jobs))
        return Found(value, f"most {called(worst)}" if value else "")

    return find


def _whole(key: str, kind: Kind, better: int, *, bounds: bool = False) -> Measure:
    """A figure of the whole cluster, as the reports have it."""
    metric = next(metric for metric in METRICS if metric.key == key)

    def find(subset: Subset) -> Found:
        summary = subset.scene.bounded if bounds else subset.scene.summary
        value = metric.value(summary)
        why = next((note for note in summary.notes if "no lower bounds" in note), "it has no meaning here")
        return Found(value, "" if value is not None else why)

    return Measure(key, kind, better, find, whole=True)


def _rejected(subset: Subset) -> Found:
    rejected = subset.scene.run.rejected
    return Found(len(rejected), f"job {rejected[0][0]}: {rejected[0][1]}" if rejected else "")


_FAILED = frozenset({State.FAILED, State.LOST, State.TIMEOUT})

_SINGLE = (
    Measure("longest_wait", TIME, -1, _longest_wait),
    Measure("makespan", TIME, -1, _makespan),
    Measure("jobs", NUMBER, 0, _counted(lambda _job, _subset: 1)),
    Measure("finished", NUMBER, 1, _counted(lambda job, _: job.ended is not None)),
    Measure("unfinished", NUMBER, -1, _counted(lambda job, _: job.ended is None)),
    Measure("failed", NUMBER, -1, _counted(lambda job, _: job.state in _FAILED)),
    Measure("rejected", NUMBER, -1, _rejected, whole=True),
    Measure("preemptions", NUMBER, -1, _counted(lambda job, subset: _account(job, subset).preemptions)),
    Measure(
        "preemptions_per_job", NUMBER, -1, _per_job(_counted(lambda job, subset: _account(job, subset).preemptions))
    ),
    Measure("most_preemptions", NUMBER, -1, _counted(lambda job, subset: _account(job, subset).preemptions, most=True)),
    Measure("preempted_jobs", NUMBER, -1, _counted(lambda job, subset: _account(job, subset).preemptions > 0)),
    Measure("restarts", NUMBER, -1, _counted(lambda job, subset: _account(job, subset).restarts)),
    Measure("restarts_per_job", NUMBER, -1, _per_job(_counted(lambda job, subset: _account(job, subset).restarts))),
    Measure("most_restarts", NUMBER, -1, _counted(lambda job, subset: _account(job, subset).restarts, most=True)),
    Measure("gpu_seconds", GPU_TIME, 0, _counted(lambda job, _: job.gpu_seconds)),
    Measure("overhead_gpu_seconds", GPU_TIME, -1, _wasted(lambda kinds: kinds.overhead)),
    Measure("lost_gpu_seconds", GPU_TIME, -1, _wasted(lambda kinds: kinds.lost)),
    Measure("failed_gpu_seconds", GPU_TIME, -1, _wasted(lambda kinds: kinds.failed)),
    Measure("held_idle_gpu_seconds", GPU_TIME, -1, _wasted(lambda kinds: kinds.held_idle)),
    Measure("wasted_gpu_seconds", GPU_TIME, -1, _wasted(lambda kinds: kinds.total)),
    Measure("fairness_jain", INDEX, 1, _evenness(lambda job: job.user, "user")),
    Measure("fairness_jain_queues", INDEX, 1, _evenness(lambda job: job.queue, "queue")),
    _whole("allocation_ratio", SHARE, 1),
    _whole("fragmentation", SHARE, -1),
    _whole("offered_load", SHARE, 0),
    _whole("jct_above_bound", SHARE, -1, bounds=True),
    _whole("makespan_above_bound", SHARE, -1, bounds=True),
)
SINGLE: dict[str, Measure] = {measure.name: measure for measure in _SINGLE}

ELSEWHERE = {
    "utilization": "allocation_ratio",
    "utilisation": "allocation_ratio",
    "gpu_utilization": "allocation_ratio",
    "allocation": "allocation_ratio",
    "jain": "fairness_jain",
    "jain_index": "fairness_jain",
    "fairness": "fairness_jain",
    "max_wait": "longest_wait",
    "starvation": "longest_wait",
    "wait_max": "longest_wait",
    "p95_delay": "queueing_delay_p95",
    "gpu_hours": "gpu_seconds",
    "gpu_time": "gpu_seconds",
}
"""What else a metric may be called, to be told its name here."""


def find(name: str) -> Measure | None:
    """The metric of that name; None = there is none."""
    if name in SINGLE:
        return SINGLE[name]
    found = statistic(name)
    return None if found is None else Measure(name, found.kind, found.better, found.find)


def listed() -> Iterable[str]:
    """The names of all metrics, those of quantities with what may follow."""
    return [*names(), *SINGLE]


def hint(name: str) -> str:
    """What was probably meant, and all that there is."""
    word = name.lower().replace("-", "_").replace(" ", "_")
    ends = ("mean", "median", "max", "p50", "p90", "p95", "p99")
    known = [*SINGLE, *(f"{of}_{end}" for of in (*QUANTITIES, *ALIASES) for end in ends)]
    near = get_close_matches(word, known, n=1, cutoff=0.7)
    meant = word if find(word) else ELSEWHERE.get(word) or (near[0] if near else "")
    return (f"did you mean `{meant}`? " if meant else "") + f"the metrics are {', '.join(listed())}"
