"""Summaries for machines: JSON and CSV. docs/metrics.md names every field."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from .distribution import Distribution, ratio
from .fairness import Rho
from .groups import Group
from .summary import Summary

SCHEMA_VERSION = 1
"""Version of the JSON and CSV forms; it rises when a field changes its meaning or goes away, not when one is added."""


def to_dict(summary: Summary, *, timing: bool = False) -> dict[str, Any]:
    """One summary as JSON-able values: seconds and shares from 0 to 1, keys in a fixed order.

    Wall time is left out unless asked for, so that the same input gives the same bytes.
    """
    whole: dict[str, Any] = {
        "policy": summary.policy,
        "trace": summary.trace,
        "cluster": summary.cluster,
        "nodes": summary.nodes,
        "gpus": summary.gpus,
        "submitted": summary.submitted,
        "finished": summary.finished,
        "measured": summary.measured,
        "unfinished": list(summary.unfinished),
        "rejected": [{"name": name, "why": why} for name, why in summary.rejected],
        "jct": _spread_dict(summary.jct),
        "queueing_delay": _spread_dict(summary.delay),
        "makespan": _number(summary.makespan),
        "allocation_ratio": _number(summary.allocation_ratio),
        "fragmentation": _number(summary.fragmentation),
        "fragmentation_by_size": {str(k): _number(share) for k, share in summary.fragmentation_by_size.items()},
        "preemptions": summary.preemptions,
        "restarts": summary.restarts,
        "bounded_slowdown": _number(summary.slowdown_mean),
        "fairness_jain": _number(summary.fairness),
        "window": summary.window,
        "wait": _spread_dict(summary.wait),
        "slowdown": _spread_dict(summary.slowdown),
        "queueing_delay_p95": _number(summary.delay_p95),
        "longest_wait": _number(summary.longest_wait),
        "offered_load": _number(summary.offered_load),
        "preempted_jobs": summary.preempted_jobs,
        "preemptions_per_job": _number(ratio(summary.preemptions, summary.measured)),
        "restarts_per_job": _number(ratio(summary.restarts, summary.measured)),
        "most_restarts": summary.most_restarts,
        "overhead_gpu_seconds": _number(summary.waste.overhead),
        "lost_gpu_seconds": _number(summary.waste.lost),
        "failed_gpu_seconds": _number(summary.waste.failed),
        "held_idle_gpu_seconds": _number(summary.waste.held_idle),
        "wasted_gpu_hours": _number(summary.waste.total / 3600),
        "rho_themis": _rho_dict(summary.rho_themis),
        "rho_isolated": _rho_dict(summary.rho_isolated),
        "rho_static": _rho_dict(summary.rho_static),
        "fairness_jain_queues": _number(summary.fairness_queues),
        "jct_bound": _number(summary.jct_bound),
        "jct_above_bound": _number(summary.jct_above_bound),
        "makespan_bound": _number(summary.makespan_bound),
        "makespan_above_bound": _number(summary.makespan_above_bound),
        "by_user": [_group_dict(group) for group in summary.by_user],
        "by_queue": [_group_dict(group) for group in summary.by_queue],
        "notes": list(summary.notes),
    }
    if timing:
        whole["replay_seconds"] = summary.seconds
        whole["jobs_per_second"] = summary.jobs_per_second
        whole["decisions"] = summary.decisions
        whole["decision_p50"] = None if summary.decision is None else summary.decision.p50
        whole["decision_p99"] = None if summary.decision is None else summary.decision.p99
        whole["decisions_per_second"] = summary.decisions_per_second
    return whole


def to_json(summaries: Sequence[Summary], *, timing: bool = False) -> str:
    """All summaries as one JSON document that ends in a line break; times in seconds."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "units": {"time": "s", "share": "0..1"},
        "runs": [to_dict(summary, timing=timing) for summary in summaries],
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(summaries: Sequence[Summary], *, timing: bool = False) -> str:
    """A header and one row a summary; times in seconds, an empty cell = the figure has no meaning there.

    Unfinished and rejected jobs are counted; their names, the notes and the figures by user and queue are in the JSON
    form. A cell that a spreadsheet would take
    for a formula (a name that begins with = + - @) starts with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    rows = [_flat(summary, timing=timing) for summary in summaries]
    header = _flat(_EMPTY, timing=timing) if not rows else rows[0]
    writer.writerow(header)
    for row in rows:
        writer.writerow(["" if value is None else _cell(value) for value in row.values()])
    return out.getvalue()


def _flat(summary: Summary, *, timing: bool) -> dict[str, Any]:
    whole = to_dict(summary, timing=timing)
    row: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
    for key, value in whole.items():
        if key in {"unfinished", "rejected"}:
            row[key] = len(value)
        elif key == "fragmentation_by_size":
            row.update({f"fragmentation_{k}": value.get(str(k)) for k in (1, 2, 4, 8)})
        elif key.startswith("rho_"):
            row.update({f"{key}_{part}": (value or {}).get(part) for part in _RHO_PARTS})
        elif isinstance(value, dict):
            row.update({f"{key}_{part}": number for part, number in value.items()})
        elif key not in {"notes", "by_user", "by_queue"}:
            row[key] = value
    return row


_RHO_PARTS = ("worst", "mean", "above_one", "jain", "jain_by_user", "jain_by_queue")


def _rho_dict(rho: Rho | None) -> dict[str, float | None] | None:
    return None if rho is None else {part: _number(getattr(rho, part)) for part in _RHO_PARTS}


def _group_dict(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "jobs": group.jobs,
        "measured": group.measured,
        "gpu_seconds": _number(group.gpu_seconds),
        "jct_mean": _number(group.jct_mean),
        "queueing_delay_mean": _number(group.delay_mean),
        "queueing_delay_p95": _number(group.delay_p95),
        "longest_wait": _number(group.longest_wait),
        "slowdown_mean": _number(group.slowdown_mean),
        "rho_themis_mean": _number(group.rho_themis_mean),
        "rho_themis_worst": _number(group.rho_themis_worst),
    }


def _spread_dict(spread: Distribution) -> dict[str, float | None]:
    return {
        "mean": _number(spread.mean),
        "p50": _number(spread.p50),
        "p90": _number(spread.p90),
        "p99": _number(spread.p99),
    }


def _number(value: float | None) -> float | None:
    """Whole values as integers: a trace in whole seconds reads as such, whatever type its reader used."""
    if value is None or not float(value).is_integer():
        return value
    return int(value)


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"} else value


_EMPTY = Summary(
    policy="",
    trace="",
    cluster="",
    nodes=0,
    gpus=0,
    submitted=0,
    finished=0,
    measured=0,
    unfinished=(),
    rejected=(),
    jct=Distribution(),
    delay=Distribution(),
    makespan=None,
    allocation_ratio=None,
    fragmentation=None,
    fragmentation_by_size={},
    preemptions=0,
    restarts=0,
    slowdown_mean=None,
    fairness=None,
    seconds=0.0,
)
