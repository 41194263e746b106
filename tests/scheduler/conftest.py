"""Runs for the reports: a tiny FIFO loop, written apart from the engine, so that reports are tested on their own."""

from __future__ import annotations

import heapq
import random
import sys
from pathlib import Path

import pytest

from gpusched.cluster.backend import Node
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.scheduler.report import Run

# Test folders are no packages, so helpers are imported from their own folder.
sys.path.insert(0, str(Path(__file__).parent / "live"))

from live_kit import plane, plane_in  # noqa: F401 - fixtures, found by name


def fifo_run(count=300, *, seed=1, nodes=8, gpus=8, policy="fifo", skip=False, load=0.9, named=True) -> Run:  # noqa: C901 - one loop, read once
    """`count` jobs of 1 to 16 GPUs on `nodes` nodes of `gpus`, first fit; the head blocks unless `skip`."""
    draw = random.Random(seed)  # noqa: S311 - the same runs each time
    sizes = [1, 1, 1, 1, 2, 2, 4, 4, 8, 16]
    arrivals, now = [], 0.0
    pause = 2.0 * 3600 * (sum(sizes) / len(sizes)) / (nodes * gpus * load)
    for i in range(count):
        now += round(draw.expovariate(1 / pause))
        g = draw.choice(sizes)
        length = max(1, round(draw.lognormvariate(8, 1.3)))
        job = Job(i + 1, Shape(0, g), now, name=f"train-{i + 1}" if named else "", user=f"user{draw.randrange(12)}")
        arrivals.append((job, length))
    free = [gpus] * nodes
    waiting: list[tuple[Job, int]] = []
    running: list[tuple[float, int, Job, tuple[Piece, ...]]] = []
    journal: list[Event] = []

    def fits(g: int) -> tuple[Piece, ...]:
        if g <= gpus:
            return next(((Piece(i, g),) for i, left in enumerate(free) if left >= g), ())
        idle = [i for i, left in enumerate(free) if left == gpus][: g // gpus]
        return tuple(Piece(i, gpus) for i in idle) if len(idle) == g // gpus else ()

    following = 0
    while following < count or running:
        now = min(
            arrivals[following][0].submitted if following < count else float("inf"),
            running[0][0] if running else float("inf"),
        )
        while running and running[0][0] == now:
            _, _, job, pieces = heapq.heappop(running)
            for node, g, *_ in pieces:
                free[node] += g
            journal.append(Event(now, Kind.SUCCEEDED, job.id, 1))
            job.state, job.ended = State.SUCCEEDED, now
            job.gpu_seconds = job.shape.gpus * (now - job.placed)
        while following < count and arrivals[following][0].submitted == now:
            waiting.append(arrivals[following])
            journal.append(Event(now, Kind.SUBMITTED, arrivals[following][0].id))
            following += 1
        still = []
        for place, (job, length) in enumerate(waiting):
            pieces = fits(job.shape.gpus)
            if not pieces and not skip:
                still += waiting[place:]
                break
            if not pieces:
                still.append((job, length))
                continue
            for node, g, *_ in pieces:
                free[node] -= g
            job.placed = job.first_start = now
            job.attempt = 1
            journal.append(Event(now, Kind.PLACED, job.id, 1, {"pieces": [list(piece) for piece in pieces]}))
            heapq.heappush(running, (now + length, job.id, job, pieces))
        waiting = still
    cluster = [Node(f"node-{i:02d}", gpus, "H100") for i in range(nodes)]
    return Run(policy, "generated", cluster, [job for job, _ in arrivals], journal, seconds=0.5)


@pytest.fixture
def make_run():
    return fifo_run
