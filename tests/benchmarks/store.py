"""What a durable commit costs: submissions one by one, as under load, and in batches; and what a start-up costs.

    python tests/benchmarks/store.py [--url sqlite:///FILE] [--history 100000]

Without a URL a file of SQLite in this folder is used. Budgets: 1,000 jobs accepted a second, 10,000 in batches of
1,000, each with its event and on disk when the commit returns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape, State
from gpusched.jobs.spec import JobSpec
from gpusched.scheduler.store import queries
from gpusched.scheduler.store.sql import SqlStore

DOCUMENT = {
    "name": "train",
    "run": "python train.py --epochs 10",
    "resources": {"accelerators": "H100:8"},
    "num_nodes": 2,
}
SHAPES = [Shape(gpus=gpus) for gpus in range(1, 9)]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def submit(store: SqlStore, first: int, count: int, spec: JobSpec | None, state: State = State.QUEUED) -> float:
    """Seconds that the commit of so many new jobs takes."""
    jobs = [
        Job(number, SHAPES[number % 8], 1.7e9 + number, name=f"job-{number}", user=f"user{number % 50}", spec=spec)
        for number in range(first, first + count)
    ]
    for job in jobs:
        job.state = state
    events = [Event(job.submitted, Kind.SUBMITTED, job.id, 0, job) for job in jobs]
    begin = time.perf_counter()
    store.commit(jobs=jobs, events=events)
    return time.perf_counter() - begin


def measure(url: str, history: int) -> None:
    spec = JobSpec.model_validate(DOCUMENT)
    begin = time.perf_counter()
    store = SqlStore(url)
    say(f"a new database is made in {1000 * (time.perf_counter() - begin):.0f} ms")
    number = store.last_job_id() + 1
    while number <= history:
        submit(store, number, 1000, None, State.SUCCEEDED)
        number += 1000
    say(f"with {history:,} jobs in it:")
    for what, with_spec in (("with a spec", spec), ("without", None)):
        for size, times in ((1, 200), (20, 50), (50, 40), (1000, 20)):
            taken = []
            for _ in range(times):
                taken.append(submit(store, number, size, with_spec))
                number += size
            middle, worst = statistics.median(taken), max(taken)
            say(
                f"  {size:5} jobs a commit {what:12} {1000 * middle:7.2f} ms (worst {1000 * worst:6.1f})"
                f" = {size / middle:8,.0f} jobs/s"
            )
    begin = time.perf_counter()
    waiting = len(store.unfinished())
    say(f"a restarted engine reads {waiting:,} waiting jobs in {time.perf_counter() - begin:.2f} s")
    with store.reader() as connection:
        begin = time.perf_counter()
        queries.list_jobs(connection, queries.JobFilter(user="user7", active=True, limit=50))
        say(f"a page of one user's jobs is listed in {1000 * (time.perf_counter() - begin):.1f} ms")
    store.close()
    begin = time.perf_counter()
    SqlStore(url).close()
    say(f"the database is opened again in {1000 * (time.perf_counter() - begin):.0f} ms")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--url")
    options.add_argument("--history", type=int, default=100_000)
    given = options.parse_args()
    if given.url:
        measure(given.url, given.history)
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        measure(str(Path(folder) / "store.db"), given.history)


if __name__ == "__main__":
    main()
