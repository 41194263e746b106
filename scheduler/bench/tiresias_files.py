"""The inputs of Tiresias's simulator: its job file, its cluster file, and its sample of GPU times."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...cluster.backend import Node
from ...jobs.errors import TraceError
from ...jobs.job import Shape
from ...jobs.traces.source import Source
from ...jobs.traces.table import Table
from ...jobs.traces.trace import Trace, TraceJob
from ...jobs.traces.values import MAX_GPUS, MAX_SECONDS, CellError, seconds, whole

MOST_NODES = 100_000
CPUS_A_GPU = 6
"""What the simulator has a GPU of a job take: two for its worker, four for its parameter server."""
SERVER_MEMORY, WORKER_MEMORY, MEMORY_A_GPU = 6.0, 5.0, 0.1
"""GB that it has a GPU of a job on several nodes take: 6 + 5 + 0.1 for each GPU of the job."""
_WORDS = re.compile(r"(\d{1,6})x(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Machines:
    """The cluster.

    Attributes:
        name: as the user gave it.
        switches, nodes, gpus: switches, nodes a switch, GPUs a node.
        cpus, memory: of a node; memory in GB. None = the file does not say.
    """

    name: str
    switches: int
    nodes: int
    gpus: int
    cpus: int | None = None
    memory: int | None = None

    def inventory(self) -> list[Node]:
        """The nodes, those of the first switch first."""
        return [
            Node(f"s{switch}n{node}", self.gpus, labels={"switch": f"s{switch}"})
            for switch in range(self.switches)
            for node in range(self.nodes)
        ]

    def remarks(self, trace: Trace) -> Iterator[str]:
        """Where the simulator would count CPUs or memory and find too little, which is not played here."""
        widest = max(job.shape.gpus for job in trace.jobs)
        if self.cpus is not None and self.cpus < CPUS_A_GPU * self.gpus:
            yield (
                f"{self.name}: nodes have fewer than {CPUS_A_GPU} CPUs a GPU; where CPUs run out first, the published "
                "simulator (yarn, random, crandom) starts less than this does"
            )
        most = (SERVER_MEMORY + WORKER_MEMORY + MEMORY_A_GPU * widest) * self.gpus
        if self.memory is not None and self.memory < most:
            yield (
                f"{self.name}: memory could run out before the GPUs do ({self.memory} GB a node, up to {most:g} GB "
                "asked for); the published simulator (yarn) starts less then than this does"
            )


def read_machines(given: str) -> Machines:
    """A cluster file (num_switch, num_node_p_switch, num_gpu_p_node, and num_cpu_p_node, mem_p_node), or NxG in words.

    Raises:
        TraceError: it cannot be read, or says something impossible.
    """
    if words := _WORDS.fullmatch(given):
        return _checked(Machines(given, 1, int(words[1]), int(words[2])), given)
    with Source(given) as source:
        table = _table(source)
        needed = [table.need(name) for name in ("num_switch", "num_node_p_switch", "num_gpu_p_node")]
        cpus, memory = table.find("num_cpu_p_node"), table.find("mem_p_node")
        rows = list(table.rows())
        if len(rows) != 1:
            raise TraceError(
                f"{given}: has {len(rows)} rows below its header, and a cluster is one",
                hint="write num_switch,num_node_p_switch,num_gpu_p_node and one line of numbers below it",
            )
        row = rows[0]
        try:
            numbers = [whole(row[at], table.names[at]) for at in needed]
            rest = [whole(row[at], table.names[at]) if at >= 0 else None for at in (cpus, memory)]
        except CellError as error:
            raise table.fault(error) from error
    return _checked(Machines(given, *numbers, *rest), given)


def _checked(machines: Machines, given: str) -> Machines:
    if not machines.switches * machines.nodes * machines.gpus:
        raise TraceError(f"{given}: a cluster without GPUs", hint="every number of the cluster is 1 or more")
    if machines.switches * machines.nodes > MOST_NODES:
        raise TraceError(f"{given}: more than {MOST_NODES:,} nodes", hint="give numbers of nodes, not of GPUs")
    return machines


def read_jobs(file: str) -> Trace:
    """A job file: job_id, num_gpu, submit_time and duration count, in any order; other columns do not matter here.

    As in the simulator, run times are cut to whole seconds, and jobs are in order of submission, equals in order of
    the file. Times stay as the file has them. `TraceJob.name` is the job_id.

    Raises:
        TraceError: it cannot be read; the message names file, row and column.
    """
    jobs: list[tuple[int, str, int, int]] = []
    with Source(file) as source:
        table = _table(source)
        name, gpus, submitted, duration = (
            table.need(column) for column in ("job_id", "num_gpu", "submit_time", "duration")
        )
        for row in table.rows():
            try:
                runs = int(seconds(row[duration], "duration"))
                asked = whole(row[gpus], "num_gpu", MAX_GPUS)
                if not runs or not asked:
                    column = "num_gpu" if runs else "duration"
                    raise CellError(column, "is 0", "a job takes a GPU and a second at least")  # noqa: TRY301 - gets its row below
                jobs.append((whole(row[submitted], "submit_time", MAX_SECONDS), row[name].strip(), asked, runs))
            except CellError as error:
                raise table.fault(error) from error
    if not jobs:
        raise TraceError(f"{file}: has no job", hint="write one job a line below the header")
    jobs.sort(key=lambda job: job[0])
    shapes = {job[2]: Shape(0, job[2]) for job in jobs}
    return Trace(
        [TraceJob(number, name, at, runs, shapes[asked]) for number, (at, name, asked, runs) in enumerate(jobs)],
        file,
        "tiresias",
    )


def read_sample(file: str) -> list[int]:
    """The GPU-seconds that jobs needed: whole numbers in the column `duration`, as in yarn-gput1000.csv.

    Raises:
        TraceError: it cannot be read, or has fewer than two values.
    """
    with Source(file) as source:
        table = _table(source)
        column = table.need("duration")
        values: list[int] = []
        for row in table.rows():
            try:
                value = whole(row[column], "duration", MAX_SECONDS * MAX_GPUS)
                if not value:
                    raise CellError("duration", "is 0", "give GPU-seconds of jobs that ran")  # noqa: TRY301 - gets its row below
            except CellError as error:
                raise table.fault(error) from error
            values.append(value)
    if len(values) < 2:  # noqa: PLR2004 - the last value stands for all beyond it
        raise TraceError(f"{file}: has {len(values)} values", hint="an index needs two or more")
    return values


def _table(source: Source) -> Table:
    """A table by commas, or by blanks in a file that ends in .txt, as the simulator has it."""
    if source.name.endswith(".txt"):
        return Table(source, csv.reader(source.lines(), delimiter=" "))
    return Table(source)
