"""One run's results as one flat row: the names are those of `gpusched simulate -o csv`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from ... import __version__
from ..report import Run, Summary
from ..report.table import to_dict
from .case import Case, Setup

Row = dict[str, Any]
Columns = dict[str, list[Any]]

SCHEMA_VERSION = 1
"""Version of the rows; it rises when a column changes its meaning or goes away, not when one is added."""

TEXTS = frozenset(
    {"key", "gpusched", "policy", "policy_asked", "policy_version", "trace", "trace_digest", "cluster"}
    | {"cluster_in_words", "estimates", "profile", "queues", "window", "swept"}
)
"""Columns of text."""
_COUNTED = frozenset(name for name, kind in get_type_hints(Summary).items() if kind is int)
COUNTS = _COUNTED | {"seed", "unfinished", "rejected"}
"""Columns of whole numbers. All other figures are floating-point: seconds, GPU-seconds, and shares from 0 to 1."""
ASKED = frozenset({*TEXTS, "load", "rate", "seed", "bootstrap", "start_up"})
"""Columns that say which run it is; what is in none of the three is a figure, or names of jobs."""


def row_of(key: str, case: Case, setup: Setup, summary: Summary) -> Row:
    """What was asked for, and every figure of the summary.

    `replay_seconds` and `jobs_per_second` are wall time: all else is the same each time. Names of jobs stand beside
    their count: `unfinished` and `unfinished_jobs`. What has a structure of its own is JSON.
    """
    policy = setup.policies[case.policy]
    point = dict(case.point)
    asked: Row = {
        "key": key,
        "gpusched": __version__,
        "policy": policy.name,
        "policy_asked": policy.asked,
        "policy_version": policy.version,
        "trace": case.trace,
        "trace_digest": setup.traces[case.trace].identity().get("sha256", ""),
        "cluster": case.cluster,
        "load": point.get("load"),
        "rate": point.get("rate"),
        "seed": case.seed,
        "bootstrap": setup.bootstrap,
        "estimates": point.get("estimates", setup.estimates),
        "start_up": point.get("start_up", setup.start_up),
        **{name: setup.extras[name].name if name in setup.extras else "" for name in ("profile", "queues", "window")},
        "swept": json.dumps(dict(case.point)),
    }
    figures = flat(to_dict(summary, timing=True))
    figures["cluster_in_words"] = figures.pop("cluster")
    for name in ("policy", "trace"):
        del figures[name]
    for name in ("unfinished", "rejected"):
        figures[f"{name}_jobs"] = [
            f"{job['name']}: {job['why']}" if isinstance(job, dict) else job for job in figures[name]
        ]
        figures[name] = len(figures[name])
    return asked | {name: _plain(value) for name, value in figures.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a summary holds
    """A value that a column can hold: a number, a text, or a list of texts."""
    if isinstance(value, list | tuple) and not all(isinstance(item, str) for item in value):
        return json.dumps(value, ensure_ascii=False)
    return value


def flat(whole: Mapping[str, Any], before: str = "") -> Row:
    """Mappings inside a mapping written as `outer_inner`."""
    row: Row = {}
    for name, value in whole.items():
        if isinstance(value, Mapping):
            row |= flat(value, f"{before}{name}_")
        else:
            row[before + name] = value
    return row


def jobs_of(run: Run) -> Columns:
    """One entry a job of a run, by column: who asked for what, and when it was submitted, started and ended.

    Times in seconds from the trace's first submission; None where it did not happen.
    """
    jobs = run.jobs
    return {
        "job": [job.id for job in jobs],
        "name": [job.name for job in jobs],
        "user": [job.user for job in jobs],
        "queue": [job.queue for job in jobs],
        "gpus": [job.shape.total_gpus for job in jobs],
        "state": [job.state.name for job in jobs],
        "submitted": [float(job.submitted) for job in jobs],
        "first_start": [None if job.first_start is None else float(job.first_start) for job in jobs],
        "ended": [None if job.ended is None else float(job.ended) for job in jobs],
        "attempts": [job.attempt for job in jobs],
        "gpu_seconds": [float(job.gpu_seconds) for job in jobs],
    }
