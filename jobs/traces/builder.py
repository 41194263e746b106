"""From rows to a Trace: what every reader does alike, so that every quirk is counted the same way."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import groupby
from operator import itemgetter
from sys import intern
from typing import Literal

from ..errors import TraceError
from ..job import Shape
from .options import Options
from .trace import DEFAULT_PRIORITY, DEFAULT_QUEUE, Trace, TraceJob, counted

NO_RUN = "jobs without a run time"
CPU_ONLY = "CPU-only jobs"

Names = Literal["ids", "unique ids", "row numbers", "labels"]
"""What a job's name is: an id of the trace (counted when two rows share it, or an error), the number of its row, or a
name that jobs may share."""

_Ask = tuple[int, int, int, tuple[str, ...], int, int]
_new = tuple.__new__


class Builder:
    """Collects the jobs of one trace in the order of its rows.

    Counts what it leaves out (`skip`) and what is odd (`count`); numbers the jobs, sorts them if the rows are not
    sorted, makes times relative to the first submission, and looks for repeated rows and ids.
    """

    def __init__(self, file: str, options: Options) -> None:
        self.file = file
        self.options = options
        self.skipped: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self.notes: list[str] = []
        self._jobs: list[TraceJob] = []
        self._rows = array("Q")
        self._models: dict[str, str] = {}
        self._first: float = 0
        self._last: float = 0
        self._unsorted = 0
        self._first_unsorted = 0
        self._by_nodes = options.gang == "nodes" or options.resources == "all"
        self._asks: dict[_Ask, Shape] = {}

    def skip(self, reason: str) -> None:
        """Leave a row out; `reason` completes "skipped 1,204 ...", so it is a plural."""
        self.skipped[reason] += 1

    def count(self, oddity: str) -> None:
        """Count a row that is kept, but is odd; `oddity` completes "50 ...", so it is a plural."""
        self.counted[oddity] += 1

    def ask(
        self,
        gpus: int,
        nodes: int = 0,
        *,
        gpu_milli: int = 0,
        types: tuple[str, ...] = (),
        cpu_milli: int = 0,
        memory: int = 0,
    ) -> Shape:
        """The Shape of an ask, one object for equal asks.

        Args:
            gpus: whole GPUs in total.
            nodes: over how many nodes; 0 = not known.
            gpu_milli: thousandths of one shared GPU; then gpus is 0.
            types: GPU types that will do.
            cpu_milli: thousandths of a CPU in total; heeded with `--resources all` alone, as memory is.
            memory: bytes in total.
        """
        if nodes > 1 and gpus % nodes and self._by_nodes:
            self.counted["jobs whose GPUs do not divide by their nodes left to the placer to split"] += 1
        key = (gpus, nodes, gpu_milli, types, cpu_milli, memory)
        shape = self._asks.get(key)
        if shape is None:
            shape = self._asks[key] = self._shape(*key)
        return shape

    def _shape(self, *ask: *_Ask) -> Shape:
        gpus, nodes, gpu_milli, types, cpu_milli, memory = ask
        everything = self.options.resources == "all"
        if gpu_milli or gpus == 0:
            pieces = 1 if gpu_milli else max(nodes, 1)
        elif self._by_nodes:
            pieces = nodes if nodes and gpus % nodes == 0 else 0
        else:
            pieces = 0
        if not everything or pieces == 0:  # CPUs and memory are per piece; a total is split by the placer
            cpu_milli = memory = 0
        split = pieces or 1
        return Shape(
            num_nodes=pieces,
            gpus=gpus // split,
            gpu_milli=gpu_milli,
            gpu_types=types,
            cpu_milli=cpu_milli // split,
            memory=memory // split,
        )

    def keeps(self, gpus: int) -> bool:
        """Whether a row with so many GPUs is wanted; counts it as skipped if it is CPU-only and GPUs are asked for."""
        if gpus or self.options.resources == "all":
            return True
        self.skipped[CPU_ONLY] += 1
        return False

    def add(
        self,
        row: int,
        name: str,
        submitted: float,
        duration: float,
        shape: Shape,
        *,
        user: str = "",
        queue: str = "",
        priority: int = DEFAULT_PRIORITY,
        estimate: float | None = None,
        state: str = "",
        limit: float | None = None,
        attempts: int = 1,
        model: str = "",
    ) -> None:
        """Take a job, or count it as skipped when it never ran (a duration of 0).

        `row` is its line in the file, for messages; `submitted` counts from any fixed zero; the rest is as in TraceJob
        and Trace.
        """
        if duration == 0:
            self.skipped[NO_RUN] += 1
            return
        jobs = self._jobs
        if jobs:
            if submitted < self._last:
                self._unsorted += 1
                self._first_unsorted = self._first_unsorted or row
        else:
            self._first = submitted
        self._last = submitted
        self._rows.append(row)
        if model:
            self._models[name] = intern(model)
        jobs.append(
            _new(
                TraceJob,
                (
                    len(jobs),
                    name,
                    submitted - self._first,
                    duration,
                    shape,
                    intern(user),
                    intern(queue) if queue else DEFAULT_QUEUE,
                    priority,
                    estimate,
                    intern(state),
                    limit,
                    attempts,
                ),
            )
        )

    def finish(self, format_name: str, *, names: Names = "ids", epoch: float | None = None) -> Trace:
        """The trace.

        Args:
            format_name: the reader's name.
            names: what the jobs' names are, hence how they are checked.
            epoch: Unix time of the zero that `add` counted from; None = not known.

        Raises:
            TraceError: no job is left, or two different rows share an id.
        """
        if not self._jobs:
            why = ", ".join(counted(count, reason) for reason, count in self.skipped.items())
            raise TraceError(
                f"{self.file}: holds no job that can be replayed" + (f" (skipped {why})" if why else ""),
                hint="CPU-only jobs are kept with --resources all" if CPU_ONLY in self.skipped else "check the file",
            )
        if names in ("ids", "unique ids"):
            self._check_ids(unique=names == "unique ids")
        if self._unsorted:
            self._sort()
        if names != "labels":
            self._count_twins(2 if names == "row numbers" else 1)
        self.notes[:0] = [counted(count, oddity) for oddity, count in self.counted.items()]
        return Trace(
            jobs=self._jobs,
            name=self.file,
            format=format_name,
            notes=self.notes,
            skipped=dict(self.skipped),
            epoch=None if epoch is None else epoch + self._first,
            models=self._models,
        )

    def _sort(self) -> None:
        jobs = sorted(self._jobs, key=itemgetter(2))  # stable: equal times keep the order of the file
        shift = jobs[0].submitted
        self._first += shift
        self._jobs = [_new(TraceJob, (i, job[1], job[2] - shift, *job[3:])) for i, job in enumerate(jobs)]
        self.notes.append("sorted by submission: " + counted(self._unsorted, "rows came before the row above"))
        self.notes[-1] += f", first row {self._first_unsorted}"

    def _check_ids(self, *, unique: bool) -> None:
        jobs = self._jobs
        if len({job.name for job in jobs}) == len(jobs):
            return
        seen: dict[str, int] = {}
        for index, job in enumerate(jobs):
            before = seen.setdefault(job.name, index)
            if before == index or jobs[before][2:] == job[2:]:
                continue  # equal rows are counted below
            if unique:
                raise TraceError(
                    f"{self.file}, row {self._rows[index]}: the id {job.name!r} is that of row {self._rows[before]} "
                    "too, and the rows differ",
                    hint="give each job an id of its own, or leave the id column out",
                )
            self.counted["rows with the id of a different row kept as jobs of their own"] += 1

    def _count_twins(self, start: int) -> None:
        """Count jobs that are equal from field `start` on: they are kept, as bursts of equal jobs are real."""
        twins = 0
        for _, group in groupby(self._jobs, key=itemgetter(2)):
            same = list(group)
            if len(same) > 1:
                twins += len(same) - len({job[start:] for job in same})
        if twins:
            self.counted["exact duplicate rows kept"] += twins
