"""Windows: which jobs a report measures, as the field defines them.

The jobs outside a window still ran: they load the cluster, and no figure of jobs counts them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ...jobs.errors import GpuschedError
from ...jobs.job import Job
from ...jobs.units import UnitError, parse_duration
from .run import Run

HINT = "write full, batch:1d..5d (times since the first submission, or dates), or steady:1000..5000 (jobs by number)"

_FORM = re.compile(r"(batch|steady):(.*)\.\.(.*)")


class WindowError(GpuschedError):
    """A window that cannot be read, or that this run does not have."""

    code = "invalid_window"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Window:
    """Which jobs of a run are measured.

    - `full`: all of them, drain included (as in Helios).
    - `batch`: those submitted from `start` on and before `stop`, drain included (as in Pollux and Sia).
    - `steady`: those with index in [start, stop) in order of submission, of an arrival process that goes on until all
      of them have ended (as in Gavel). Where it does not go on that long, the report says so.

    Attributes:
        kind: one of the three.
        start, stop: of a batch seconds on the run's clock since its first submission, or Unix times where `dated`; of a
            steady window indices. `stop` may be infinite.
        dated: start and stop are Unix times.
        text: as it was written.
    """

    kind: Literal["full", "batch", "steady"] = "full"
    start: float = 0.0
    stop: float = math.inf
    dated: bool = False
    text: str = "full"

    @classmethod
    def parse(cls, text: str) -> Window:
        """A window from its text; either end of a range may be left out.

        Raises:
            WindowError: it is none.
        """
        written = text.strip()
        if written in {"full", "batch"}:
            return cls(kind="full" if written == "full" else "batch", text=written)
        found = _FORM.fullmatch(written)
        if not found:
            raise WindowError(f"{text!r} is no window", hint=HINT)
        kind, first, last = (part.strip() for part in found.groups())
        if kind == "steady":
            start, stop, dated = _index(first, 0.0, text), _index(last, math.inf, text), False
        else:
            dates = [_date(part) for part in (first, last)]
            dated = any(date is not None for date in dates)
            start, stop = (
                (_moment(part, date, default, text, dated=dated))
                for part, date, default in zip((first, last), dates, (-math.inf, math.inf), strict=True)
            )
        if start >= stop:
            raise WindowError(f"{text!r} is an empty window", hint="its end comes after its start; " + HINT)
        return cls("steady" if kind == "steady" else "batch", start, stop, dated, written)

    def select(self, run: Run) -> list[Job]:
        """The jobs of the run that this window measures, in order of submission; `full` keeps the run's own order.

        Raises:
            WindowError: the run has no such job, or dates are asked of a run whose clock has none.
        """
        if self.kind == "full":
            return list(run.jobs)
        ordered = sorted(run.jobs, key=lambda job: (job.submitted, job.id))
        if not ordered:
            return []
        if self.kind == "steady":
            last = len(ordered) if self.stop == math.inf else int(self.stop)
            if last > len(ordered) and self.stop != math.inf:
                raise WindowError(
                    f"window {self.text}: the run has only {len(ordered):,} jobs",
                    hint=f"numbers count from 0 in order of submission; the last possible end is {len(ordered)}",
                )
            chosen = ordered[int(self.start) : last]
        else:
            zero = self._zero(run, ordered)
            chosen = [job for job in ordered if self.start <= job.submitted - zero < self.stop]
        if not chosen:
            span = ordered[-1].submitted - ordered[0].submitted
            raise WindowError(
                f"window {self.text}: no job was submitted in it",
                hint=f"the run has {len(ordered):,} jobs, submitted within {span:,.0f} s of the first",
            )
        return chosen

    def _zero(self, run: Run, ordered: Sequence[Job]) -> float:
        """What is 0 for `start` and `stop`, on the run's clock."""
        if not self.dated:
            return ordered[0].submitted
        if run.epoch is None:
            raise WindowError(
                f"window {self.text}: the times of {run.trace} are not dates",
                hint="give times since the first submission, as in batch:1d..5d",
            )
        return -run.epoch


FULL = Window()


def _index(part: str, default: float, text: str) -> float:
    if not part:
        return default
    if not part.isdecimal():
        raise WindowError(f"{text!r}: {part!r} is no job number", hint=HINT)
    return float(int(part))


def _date(part: str) -> float | None:
    """Unix time of an ISO 8601 date, with or without its time; UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(part)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _moment(part: str, date: float | None, default: float, text: str, *, dated: bool) -> float:
    if date is not None:
        return date
    if not part:
        return default
    if dated:
        raise WindowError(f"{text!r} mixes a date with a duration", hint=HINT)
    try:
        return parse_duration(part)
    except UnitError as error:
        raise WindowError(f"{text!r}: {error.message}", hint=error.hint) from None
