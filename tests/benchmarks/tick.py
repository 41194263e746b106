"""One tick of the engine with 100,000 waiting jobs in 500 shapes on 10,000 nodes of 8 GPUs.

    python tests/benchmarks/tick.py [POLICY ...]

The cluster is full. Each measured tick believes the end of one running job, and every second time an arrival, asks the
policy, and writes to the memory store. Half of the jobs say truly how long they run, the others two or three times as
long; half may be preempted, one in ten is urgent. Printed are milliseconds of wall time: p50, p99 and the longest.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from itertools import count
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / ".src")]

from gpusched.cluster.backend import Node
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.errors import ConflictError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape
from gpusched.policies.catalog import CATALOG, load
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.store import MemoryStore

NODES, WAITING, SHAPES, TICKS = 10_000, 100_000, 500, 1_000
TYPES = ("A100", "H100", "L40S")


class Mail:
    """An inbox that is filled by hand."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def poll(self, now: float) -> list[Event]:  # noqa: ARG002 - the protocol's
        """All that was put in."""
        events, self.events = self.events, []
        return events

    def next_time(self) -> None:
        """Not known."""

    def settle(self, refused: dict[int, ConflictError]) -> None:
        """Nothing is refused."""
        assert not refused


def shapes(random: random.Random) -> list[Shape]:
    """Different asks: sizes, gangs, types, fractions, CPUs and memory."""
    found: dict[Shape, None] = {}
    while len(found) < SHAPES:
        share = random.random() < 0.1
        found[
            Shape(
                num_nodes=1 if share else random.choice((1, 1, 1, 2, 4, 8, 16)),
                gpus=0 if share else random.choice((1, 2, 4, 8)),
                gpu_milli=random.choice((250, 500)) if share else 0,
                gpu_types=random.choice(((), (random.choice(TYPES),))),
                cpu_milli=1000 * random.randint(1, 12),
                memory=random.choice((0, 8 << 30, 64 << 30)),
            )
        ] = None
    return list(found)


def main() -> None:
    """Measure the named policies, or each of the catalogue."""
    for name in sys.argv[1:] or CATALOG:
        measure(name)


def measure(name: str) -> None:
    """Fill the cluster and the queue, then time one tick after another."""
    draw = random.Random(1)  # noqa: S311 - a workload, not a secret
    kinds = shapes(draw)
    backend, mail = SimulatedBackend(nodes(draw)), Mail()
    engine = Engine(store=MemoryStore(), backend=backend, policy=load(name), inbox=mail)
    numbers = count(1)

    def submit(now: float) -> None:
        number = next(numbers)
        lasts = draw.uniform(100, 1000)
        backend.expect(number, lasts)
        job = Job(number, draw.choice(kinds), now, estimate=lasts * draw.choice((1, 1, 2, 3)))
        job.preemptible, job.priority = draw.random() < 0.5, 90 if draw.random() < 0.1 else 50
        job.user = f"user-{draw.randrange(50)}"
        mail.events.append(Event(now, Kind.SUBMITTED, number, 0, job))

    engine.tick(0.0)
    while len(engine.queue) < WAITING:
        for _ in range(10_000):
            submit(0.0)
        engine.tick(0.0)
    times = []
    gc.collect()
    gc.freeze()
    for _ in range(TICKS):
        now = backend.next_time() or 0.0
        if draw.random() < 0.5:
            submit(now)
        begun = time.perf_counter()
        engine.tick(now)
        times.append(1000 * (time.perf_counter() - begun))
    times.sort()
    print(
        f"{name:14} {len(engine.queue):,} waiting in {len(engine.queue.active)} shapes: "
        f"p50 {times[TICKS // 2]:.2f} ms, p99 {times[TICKS * 99 // 100]:.2f} ms, longest {times[-1]:.2f} ms",
        flush=True,
    )


def nodes(draw: random.Random) -> list[Node]:
    """Machines of three types."""
    return [
        Node(f"n{number}", 8, draw.choice(TYPES), cpu_milli=96_000, memory=1 << 40, labels={"rack": str(number // 32)})
        for number in range(NODES)
    ]


if __name__ == "__main__":
    main()
