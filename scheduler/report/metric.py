"""Every figure that a table shows: its name, its meaning, how to read it and which way is better.

`key` is also its name in the CSV form, and what assertions and aggregates name it by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .distribution import Distribution
from .fairness import Rho
from .summary import Summary

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the tables.

    Attributes:
        section: heading that it stands under.
        label: its name for people.
        value: takes it out of a summary; None = it has no meaning there.
        text: writes a value for people.
        better: -1 = lower is better, 1 = higher is better, 0 = neither is.
        meaning: one line for whoever has not met it before.
        key: its name for machines.
        quiet: values that say nothing: a metric that has no other in any summary is not shown.
        detail: shown on the page and in machine forms, but not in a terminal.
    """

    section: str
    label: str
    value: Callable[[Summary], float | None]
    text: Callable[[float], str]
    better: int = 0
    meaning: str = ""
    key: str = ""
    quiet: tuple[float | None, ...] = ()
    detail: bool = False


def duration(seconds: float) -> str:
    """Seconds for people, in the two largest units that matter: 0.25s, 42s, 12m 05s, 3h 12m, 2d 04h.

    Each is rounded to its smallest unit shown.
    """
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < _MINUTE - 0.5:
        return f"{seconds:.0f}s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.2g}s"  # noqa: PLR2004 - two digits are enough
    if (whole := round(seconds)) < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02d}s"
    if (minutes := round(seconds / _MINUTE)) < _DAY // _MINUTE:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / _HOUR)
    return f"{hours // 24}d {hours % 24:02d}h"


def count(value: float) -> str:
    """A whole number with thousands apart."""
    return f"{value:,.0f}"


def percent(share: float) -> str:
    """A share from 0 to 1 in per cent."""
    return f"{100 * share:.1f}%"


def gpu_hours(gpu_seconds: float) -> str:
    """GPU-seconds in GPU-hours."""
    hours = gpu_seconds / _HOUR
    return f"{hours:,.0f} GPU h" if hours >= 100 else f"{hours:.3g} GPU h"  # noqa: PLR2004 - three digits are enough


def latency(seconds: float) -> str:
    """Wall time of a decision, in the unit that fits."""
    return f"{1e6 * seconds:.0f} µs" if seconds < 1e-3 else f"{1e3 * seconds:.2f} ms"  # noqa: PLR2004 - a millisecond


def _factor(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - three digits are enough


def _index(value: float) -> str:
    return f"{value:.3f}"


def _spread(
    section: str, key: str, of: Callable[[Summary], Distribution], text: Callable[[float], str], meaning: str
) -> tuple[Metric, ...]:
    return (
        Metric(section, "mean", lambda s: of(s).mean, text, -1, meaning, f"{key}_mean"),
        Metric(section, "p50", lambda s: of(s).p50, text, -1, meaning, f"{key}_p50"),
        Metric(section, "p90", lambda s: of(s).p90, text, -1, meaning, f"{key}_p90"),
        Metric(section, "p99", lambda s: of(s).p99, text, -1, meaning, f"{key}_p99"),
    )


def _rho(variant: str, of: Callable[[Summary], Rho | None], meaning: str, *, detail: bool) -> tuple[Metric, ...]:
    told = f"rho = JCT / {meaning}"
    parts: tuple[tuple[str, str, Callable[[Rho], float], Callable[[float], str], int], ...] = (
        (f"rho ({variant}) worst", "worst", lambda rho: rho.worst, _factor, -1),
        (f"rho ({variant}) mean", "mean", lambda rho: rho.mean, _factor, -1),
        (f"rho ({variant}) > 1", "above_one", lambda rho: rho.above_one, percent, -1),
        (f"Jain 1/rho ({variant})", "jain", lambda rho: rho.jain, _index, 1),
    )

    def metric(
        label: str, part: str, take: Callable[[Rho], float], text: Callable[[float], str], better: int
    ) -> Metric:
        def value(summary: Summary) -> float | None:
            rho = of(summary)
            return None if rho is None else take(rho)

        meant = f"share of jobs with {told} above 1" if part == "above_one" else told
        return Metric("Fairness", label, value, text, better, meant, f"rho_{variant}_{part}", (None,), detail)

    return tuple(metric(*part) for part in parts)


METRICS: tuple[Metric, ...] = (
    *_spread("JCT", "jct", lambda s: s.jct, duration, "job completion time: end - submission"),
    Metric(
        "JCT",
        "above JCT bound",
        lambda s: s.jct_above_bound,
        percent,
        -1,
        "mean JCT above the clairvoyant preemptive bound, which no schedule can beat",
        "jct_above_bound",
        quiet=(None,),
    ),
    *_spread("Queueing delay", "queueing_delay", lambda s: s.delay, duration, "first start - submission"),
    Metric(
        "Queueing delay",
        "longest wait",
        lambda s: s.longest_wait,
        duration,
        -1,
        "longest wait for a first start, of jobs that never started too",
        "longest_wait",
    ),
    Metric("Wait", "mean", lambda s: s.wait.mean, duration, -1, "JCT - time holding GPUs", "wait_mean"),
    Metric("Wait", "p99", lambda s: s.wait.p99, duration, -1, "JCT - time holding GPUs", "wait_p99", detail=True),
    Metric("Cluster", "makespan", lambda s: s.makespan, duration, -1, "last end - first submission", "makespan"),
    Metric(
        "Cluster",
        "above makespan bound",
        lambda s: s.makespan_above_bound,
        percent,
        -1,
        "makespan above the clairvoyant preemptive bound, which no schedule can beat",
        "makespan_above_bound",
        quiet=(None,),
    ),
    Metric(
        "Cluster",
        "allocation ratio",
        lambda s: s.allocation_ratio,
        percent,
        1,
        "GPU time held by jobs / (GPUs x span); not device utilization",
        "allocation_ratio",
    ),
    Metric(
        "Cluster",
        "fragmentation (gang)",
        lambda s: s.fragmentation,
        percent,
        -1,
        "share of idle GPUs in nodes that cannot host a piece of k GPUs, averaged over time and k = 1, 2, 4, 8",
        "fragmentation",
    ),
    Metric(
        "Cluster",
        "offered load",
        lambda s: s.offered_load,
        percent,
        0,
        "GPU time that the jobs ask for / (GPUs x span of their arrivals); above 100% there is no steady state",
        "offered_load",
    ),
    Metric("Jobs", "slowdown", lambda s: s.slowdown.mean, _factor, -1, "mean of JCT / run time", "slowdown_mean"),
    Metric(
        "Jobs",
        "bounded slowdown",
        lambda s: s.slowdown_mean,
        lambda x: f"{x:.2f}",
        -1,
        "mean of max(1, JCT / max(run time, 10 s))",
        "bounded_slowdown",
    ),
    Metric(
        "Jobs",
        "preemptions",
        lambda s: s.preemptions,
        count,
        -1,
        "running jobs told to give their GPUs back",
        "preemptions",
    ),
    Metric(
        "Jobs", "restarts", lambda s: s.restarts, count, -1, "attempts after which the job queued again", "restarts"
    ),
    Metric("Jobs", "finished", lambda s: s.finished, count, 1, "jobs in a final state", "finished"),
    Metric(
        "Jobs",
        "unfinished",
        lambda s: len(s.unfinished),
        count,
        -1,
        "jobs that had not ended; no JCT counts them",
        "unfinished",
    ),
    Metric("Jobs", "rejected", lambda s: len(s.rejected), count, -1, "jobs that were not accepted", "rejected"),
    Metric(
        "Fairness",
        "fairness (Jain)",
        lambda s: s.fairness,
        _index,
        0,
        "evenness of GPU time held by users",
        "fairness_jain",
    ),
    *_rho(
        "themis",
        lambda s: s.rho_themis,
        "time on 1/N of the cluster, N = mean active jobs while it was alive",
        detail=False,
    ),
    *_rho("isolated", lambda s: s.rho_isolated, "JCT under an equal static split among active jobs", detail=True),
    *_rho("static", lambda s: s.rho_static, "(run time x max(1, jobs / GPUs))", detail=True),
    Metric(
        "Waste",
        "overhead",
        lambda s: s.waste.overhead,
        gpu_hours,
        -1,
        "GPU time of start-up, restore and checkpoint",
        "overhead_gpu_seconds",
        quiet=(None, 0),
    ),
    Metric(
        "Waste",
        "lost work",
        lambda s: s.waste.lost,
        gpu_hours,
        -1,
        "GPU time of work thrown away by preemption or failure",
        "lost_gpu_seconds",
        quiet=(None, 0),
    ),
    Metric(
        "Waste",
        "failed",
        lambda s: s.waste.failed,
        gpu_hours,
        -1,
        "GPU time of jobs and attempts that failed",
        "failed_gpu_seconds",
        quiet=(None, 0),
    ),
    Metric(
        "Waste",
        "held idle",
        lambda s: s.waste.held_idle,
        gpu_hours,
        -1,
        "GPU time held before every rank of the gang ran",
        "held_idle_gpu_seconds",
        quiet=(None, 0),
    ),
)

SPEED: tuple[Metric, ...] = (
    Metric(
        "Replay",
        "jobs/s",
        lambda s: s.jobs_per_second,
        count,
        0,
        "jobs replayed a second of wall time",
        "jobs_per_second",
    ),
    Metric(
        "Replay",
        "decision p50",
        lambda s: None if s.decision is None else s.decision.p50,
        latency,
        0,
        "wall time of a decision of the policy, median",
        "decision_p50",
        quiet=(None,),
    ),
    Metric(
        "Replay",
        "decision p99",
        lambda s: None if s.decision is None else s.decision.p99,
        latency,
        0,
        "wall time of a decision of the policy, 99th percentile",
        "decision_p99",
        quiet=(None,),
    ),
)
"""Figures of wall time: shown where timing is asked for."""


def shown(metrics: Sequence[Metric], summaries: Sequence[Summary]) -> tuple[Metric, ...]:
    """The metrics without those that say nothing in any of the summaries."""
    return tuple(
        metric
        for metric in metrics
        if not metric.quiet or any(metric.value(summary) not in metric.quiet for summary in summaries)
    )


def best(metric: Metric, summaries: Sequence[Summary]) -> frozenset[int]:
    """Which summaries show the best value of a metric; none when all show the same or it knows no better."""
    texts: dict[int, str] = {}
    values: dict[int, float] = {}
    for i, summary in enumerate(summaries):
        if (value := metric.value(summary)) is not None:
            values[i], texts[i] = value, metric.text(value)
    if not metric.better or len(values) < 2 or len(set(texts.values())) == 1:  # noqa: PLR2004 - one alone is not best
        return frozenset()
    top = (max if metric.better > 0 else min)(values.values())
    return frozenset(i for i, text in texts.items() if text == metric.text(top))
