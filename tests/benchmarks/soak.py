"""Memory and disk over 24 simulated hours of load: the real engine and the real database, in virtual time.

    python tests/benchmarks/soak.py [--hours 24] [--rate 600] [--archive-after 1h]

Jobs come all the time (`rate` an hour), run for up to 40 minutes on 1,024 GPUs and end, some by their time limit; some
are cancelled, preempted, held and released; every simulated half hour waiting ones are explained and old history is
archived. Printed each hour: memory of the process, jobs alive, size of the database and of the archive.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2] / ".src"))

from gpusched.cluster.backend import Node
from gpusched.cluster.clock import VirtualClock
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job, RetryRule, Shape, State
from gpusched.policies.catalog import load
from gpusched.scheduler.changes import AnnouncingStore
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.explain import explain
from gpusched.scheduler.inbox import LiveInbox
from gpusched.scheduler.settings import ArchivePolicy
from gpusched.scheduler.store.archive import Archive
from gpusched.scheduler.store.sql import SqlStore

MIB = 1 << 20


def size(folder: Path, pattern: str) -> float:
    """MiB of files."""
    return sum(path.stat().st_size for path in folder.glob(pattern)) / MIB


def soak(folder: Path, hours: int, rate: int, after: float) -> list[float]:  # noqa: C901 - one loop, read once
    """Run; the memory of each hour in MiB."""
    draw = random.Random(1)  # noqa: S311 - the same load each time
    begin = 0.0
    clock = VirtualClock()
    store = SqlStore(str(folder / "soak.db"))
    changes = AnnouncingStore(store)
    inbox = LiveInbox(clock.now, lambda: None)
    nodes = [Node(f"n{number}", 8, "H100") for number in range(128)]
    backend = SimulatedBackend(nodes)
    engine = Engine(store=changes, backend=backend, policy=load("easy"), inbox=inbox)
    archive = Archive(store, folder / "archive")
    process, memory = psutil.Process(), []
    next_job, next_look = begin, begin
    print(f"{'hour':>4} {'RSS MiB':>8} {'alive':>6} {'jobs':>8} {'database MiB':>12} {'archive MiB':>11} {'real s':>7}")
    started = time.perf_counter()
    hour = 0
    while hour < hours:
        due = min(next_job, next_look, engine.next_time() or next_job)
        clock.wait(due)
        now = clock.now()
        if now >= next_job:
            batch = []
            for _ in range(max(1, rate // 120)):
                job = Job(0, Shape(gpus=draw.choice((1, 1, 2, 4, 8))), now, name="soak", user=f"u{draw.randrange(40)}")
                job.estimate, job.retry = 1500.0, RetryRule(1, ("failure", "lost"))
                job.limit = 86400.0 if draw.random() < 0.5 else 1800.0
                batch.append(job)
            inbox.submit(batch)
            for job in batch:
                backend.expect(job.id, 60.0 + draw.random() * 2400)
            alive = list(engine.jobs)
            if alive and draw.random() < 0.3:
                one = draw.choice(alive)
                inbox.ask(draw.choice((Kind.CANCELLED, Kind.HELD, Kind.PREEMPTED)), one)
            for number in [job.id for job in engine.jobs.values() if job.state is State.HELD]:
                inbox.ask(Kind.RELEASED, number)
            next_job += 30.0
        engine.tick(now)
        inbox.answer(engine)
        if now >= next_look:
            for job in list(engine.jobs.values())[:50]:
                if job.state is State.QUEUED:
                    explain(engine, job, now)
            archive.compact(ArchivePolicy(after=after), now)
            next_look += 1800.0
            if int((now - begin) // 3600) > hour:
                hour += 1
                gc.collect()
                memory.append(process.memory_info().rss / MIB)
                print(
                    f"{hour:>4} {memory[-1]:>8.1f} {len(engine.jobs):>6} {engine.finished:>8,}"
                    f" {size(folder, 'soak.db*'):>12.1f} {size(folder, 'archive/*'):>11.1f}"
                    f" {time.perf_counter() - started:>7.0f}",
                    flush=True,
                )
    store.close()
    return memory


def main() -> None:
    """Soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--rate", type=int, default=600)
    parser.add_argument("--archive-after", type=float, default=3600.0, help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        memory = soak(Path(folder), options.hours, options.rate, options.archive_after)
    half = memory[len(memory) // 2 :]
    print(f"second half: {min(half):.1f} to {max(half):.1f} MiB, first to last hour {half[-1] - half[0]:+.1f}")


if __name__ == "__main__":
    main()
