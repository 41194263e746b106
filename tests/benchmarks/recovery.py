"""How long a control plane takes from its start to its first decision, with many unfinished jobs in the database.

    python tests/benchmarks/recovery.py [--jobs 100000] [--url postgresql://...]

The jobs wait in 500 shapes; 2,000 of 10,000 GPUs are held. The steps are those of `Controller._build` and the first
turn; a cluster of 1,250 nodes answers at once. Memory is that of this process.
"""

# ruff: noqa: ARG002 - signatures are those of Backend

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / ".src"))

from gpusched.cluster.backend import News, Node, NodeChange
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.jobs.spec import JobSpec
from gpusched.policies.catalog import load
from gpusched.scheduler.controller import Controller
from gpusched.scheduler.store.sql import SqlStore

GPUS, NODES = 8, 1250
DOCUMENT = {"name": "train", "run": "python train.py --epochs 10", "resources": {"accelerators": 1}}


class Cluster:
    """Nodes that are there at once and run what they are told to, for ever."""

    def __init__(self) -> None:
        self.first_start = 0.0
        self._new = [NodeChange(time.time(), Node(f"n{number}", GPUS, "H100")) for number in range(NODES)]

    def poll(self, now: float) -> News:
        changes, self._new = self._new, []
        return News(tuple(changes), [])

    def next_time(self) -> None:
        return None

    def start(self, job: Job, nodes: tuple[str, ...], now: float) -> None:
        self.first_start = self.first_start or time.perf_counter()

    def stop(self, job: Job, grace: float, now: float) -> None:
        pass

    def adopt(self, jobs: list[Job], now: float) -> None:
        pass

    def close(self) -> None:
        pass


def fill(store: SqlStore, count: int) -> None:
    """So many unfinished jobs, 250 of them running on 8 GPUs each."""
    spec = JobSpec.model_validate(DOCUMENT)
    store.commit(nodes=[(n, NodeChange(0.0, Node(f"n{n}", GPUS, "H100"))) for n in range(NODES)])
    for first in range(1, count + 1, 1000):
        jobs, events = [], []
        for number in range(first, min(first + 1000, count + 1)):
            shape = Shape(gpus=1 + number % 8, cpu_milli=100 * (number % 63))
            job = Job(number, shape, 1.7e9 + number, name=f"job-{number}", user=f"user{number % 50}", spec=spec)
            events.append(Event(job.submitted, Kind.SUBMITTED, number, 0, job))
            if number <= 250:
                job.shape = Shape(gpus=GPUS)
                job.state, job.attempt, job.placed, job.started = State.RUNNING, 1, 1.7e9, 1.7e9
                job.placement = (Piece(number - 1, GPUS),)
                events.append(Event(1.7e9, Kind.PLACED, number, 1, job.placement))
            jobs.append(job)
        store.commit(jobs=jobs, events=events)


def measure(url: str, count: int) -> None:
    """Fill, then start once, in this process."""
    store = SqlStore(url)
    if not store.last_job_id():
        fill(store, count)
    store.close()
    process = psutil.Process()
    before = process.memory_info().rss
    begin = time.perf_counter()
    store = SqlStore(url)
    opened = time.perf_counter()
    jobs = store.unfinished()
    read = time.perf_counter()
    count = len(jobs)
    del jobs
    cluster = Cluster()
    controller = Controller(store, cluster, load("binpack"), owner="bench")
    begun = time.perf_counter()
    controller.start()
    while not cluster.first_start and time.perf_counter() < begun + 120:
        time.sleep(0.005)
    decided = cluster.first_start - begun
    memory = process.memory_info().rss - before
    controller.stop()
    store.close()
    print(f"{'SQLite' if '://' not in url or url.startswith('sqlite') else 'PostgreSQL'}, {count:,} unfinished jobs")
    print(f"  the database is opened         {1000 * (opened - begin):8.0f} ms")
    print(f"  the jobs are read (once more)  {1000 * (read - opened):8.0f} ms")
    print(f"  from start to first decision   {1000 * (decided + opened - begin):8.0f} ms, written and told the cluster")
    print(f"  the longest turn               {controller.figures.worst_ms:8.0f} ms")
    print(f"  memory taken                   {memory / 2**20:8.0f} MiB")


def main() -> None:
    """Measure one database."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    if options.url:
        measure(options.url, options.jobs)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(f"{folder}/store.db", options.jobs)


if __name__ == "__main__":
    main()
