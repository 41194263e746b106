"""What has ended leaves every structure of the live engine: memory depends on what is there, not on what was."""

from __future__ import annotations

import gc
import random

import pytest
from live_kit import NODES

from gpusched.cluster.clock import VirtualClock
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job, Shape
from gpusched.policies.catalog import load
from gpusched.scheduler.changes import AnnouncingStore
from gpusched.scheduler.engine import SLACK, Engine
from gpusched.scheduler.inbox import LiveInbox
from gpusched.scheduler.store.sql import SqlStore

MONTH = 30 * 86400.0


def load_up(engine: Engine, backend: SimulatedBackend, clock: VirtualClock, count: int) -> None:
    """So many jobs come, run, are held, released, preempted and cancelled, and all of them end."""
    inbox, draw = engine.inbox, random.Random(3)  # noqa: S311 - the same each time
    for _ in range(count // 20):
        batch = [Job(0, Shape(gpus=draw.choice((1, 2, 4))), 0.0, user=f"u{draw.randrange(5)}") for _ in range(20)]
        for job in batch:
            job.limit, job.estimate = draw.choice((MONTH, 50.0)), 100.0
        inbox.submit(batch)
        for job in batch:
            backend.expect(job.id, draw.choice((10.0, 100.0)))
        engine.tick(clock.now())
        for kind in (Kind.HELD, Kind.RELEASED, Kind.PREEMPTED, Kind.CANCELLED):
            inbox.ask(kind, draw.choice(batch).id)
        engine.tick(clock.now())
        clock.wait(clock.now() + 300.0)
        engine.tick(clock.now())
    for job in list(engine.jobs.values()):
        inbox.ask(Kind.CANCELLED, job.id)
    end = clock.now() + 3600.0
    while engine.jobs and clock.now() < end:
        clock.wait(clock.now() + 10.0)
        engine.tick(clock.now())


@pytest.mark.parametrize("policy", ["fifo", "easy", "fair"])
def test_no_job_that_has_ended_is_held_by_anything(policy, tmp_path):
    store = SqlStore(str(tmp_path / "jobs.db"))
    changes = AnnouncingStore(store)
    clock = VirtualClock()
    inbox, backend = LiveInbox(clock.now, lambda: None), SimulatedBackend(NODES)
    engine = Engine(store=changes, backend=backend, policy=load(policy), inbox=inbox)
    load_up(engine, backend, clock, 400)
    assert engine.jobs == {}
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, Job) and one.limit in {MONTH, 50.0}] == []
    assert changes.census.view()["waiting"] == 0
    assert not engine.queue.running.jobs
    assert inbox.backlog == 0
    store.close()


def test_time_limits_of_what_has_ended_are_cleared_away(tmp_path):
    store = SqlStore(str(tmp_path / "jobs.db"))
    clock = VirtualClock()
    inbox, backend = LiveInbox(clock.now, lambda: None), SimulatedBackend(NODES)
    engine = Engine(store=store, backend=backend, policy=load("fifo"), inbox=inbox)
    for _ in range(SLACK // 8 + 50):
        batch = [Job(0, Shape(gpus=1), 0.0) for _ in range(8)]
        for job in batch:
            job.limit = MONTH
        inbox.submit(batch)
        for job in batch:
            backend.expect(job.id, 5.0)
        for _ in range(3):
            clock.wait(clock.now() + 5.0)
            engine.tick(clock.now())
    assert engine.jobs == {}
    assert len(engine._timers) <= SLACK + 16
    store.close()
