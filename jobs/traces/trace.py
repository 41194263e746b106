"""The value that every reader yields: jobs with their arrival and their true run time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from ..job import Shape

DEFAULT_QUEUE = "default"
DEFAULT_PRIORITY = 50
_NOUN = re.compile(r"\b(job|row|pod|attempt|line|list|step|time)s\b")


def counted(count: int, plural: str) -> str:
    """A count with what it counts: (1204, "CPU-only jobs") -> "1,204 CPU-only jobs", (1, ...) -> "1 CPU-only job"."""
    return f"{count:,} " + (_NOUN.sub(r"\1", plural, count=1) if count == 1 else plural)


class TraceJob(NamedTuple):
    """One job of a trace. A tuple, because a replay reads a million of them.

    Times in whole seconds stay `int`, so that results on published traces are exact.

    Attributes:
        id: place in the order of submission, from 0; ties between equal submission times are broken by it.
        name: the trace's own id of the job; for a table without ids `row-<line>`.
        submitted: seconds from the first submission of the trace.
        duration: true run time in seconds, above 0.
        shape: what it asks for; equal asks share one object.
        user, queue: as the trace names them; queue is `default` where it names none.
        priority: 0 to 100, higher first.
        estimate: run time that was asked for or promised, in seconds (a time limit in most traces); None = not known.
        state: outcome in the trace's own words; empty = not known.
        limit: run time after which the job is stopped, in seconds; None = none. Only our own export knows it.
        attempts: how often it was started. Only our own export knows it.
    """

    id: int
    name: str
    submitted: float
    duration: float
    shape: Shape
    user: str = ""
    queue: str = DEFAULT_QUEUE
    priority: int = DEFAULT_PRIORITY
    estimate: float | None = None
    state: str = ""
    limit: float | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace as it was read, with an account of all that was left out or changed.

    Attributes:
        jobs: in order of submission; `jobs[i].id == i` and `jobs[0].submitted == 0`.
        name: the file, as the user named it.
        format: which reader read it.
        notes: what was changed or is odd, one sentence each, with its count.
        skipped: rows left out, by reason: `{"CPU-only jobs": 1204}`.
        epoch: Unix time of the first submission; None where the trace has only relative times. Times without a zone
            are taken as UTC.
        models: what jobs train, by the job's name, where the trace says so. A profile may have rates of its own for it.
    """

    jobs: list[TraceJob]
    name: str
    format: str
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    epoch: float | None = None
    models: dict[str, str] = field(default_factory=dict)

    def remarks(self) -> list[str]:
        """Every quirk as one sentence, what was skipped first; empty for a trace without quirks."""
        return ["skipped " + counted(count, reason) for reason, count in self.skipped.items()] + self.notes

    def model(self, name: str) -> str:
        """What the job of this name trains, empty if not known; a job drawn again (`name#2`) trains the same."""
        return self.models.get(name) or self.models.get(name.rpartition("#")[0], "")

    def gpu_hours(self) -> float:
        """GPU-hours that the jobs take when each runs once for its true run time."""
        return sum(job.duration * job.shape.total_gpus for job in self.jobs) / 3600
