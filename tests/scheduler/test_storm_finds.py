"""What storms (tests/storms) have found, each as short as it can be said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import World, cluster, job
from gpusched.cluster.backend import Node, NodeChange
from gpusched.cluster.pool import Pool
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State, TopologyWish
from gpusched.policies.catalog import load
from gpusched.scheduler.engine import Engine
from gpusched.scheduler.inbox import LiveInbox


def reborn(world: World) -> Engine:
    """The next control plane, as far as `recover`."""
    engine = Engine(store=world.store, backend=world.backend, policy=world.policy, inbox=world.inbox)
    engine.recover(world.store.unfinished(), world.store.known_nodes(), world.now)
    world.engine = engine
    world.backend.changes += [NodeChange(world.now, node) for node in world.nodes.values()]
    return engine


def test_an_attempt_that_ends_while_the_control_plane_is_away_does_not_have_its_successor_stopped():
    world = World(cluster("1x4"))
    world.submit(job("4 GPUs"))
    world.started(1)
    world.ask(Kind.PREEMPTED, 1)
    reborn(world)
    world.backend.stopped.clear()
    world.finished(1, 143)
    assert [start[:2] for start in world.backend.started] == [(1, 1), (1, 2)]
    assert world.backend.stopped == []


def test_an_attempt_that_is_still_being_stopped_is_told_so_again():
    world = World(cluster("1x4"))
    world.submit(job("4 GPUs"))
    world.started(1)
    world.cancel(1)
    reborn(world)
    world.backend.stopped.clear()
    world.tick()
    assert [stop[:2] for stop in world.backend.stopped] == [(1, 1)]


@pytest.mark.parametrize(
    ("asked", "state"), [(Kind.CANCELLED, State.CANCELLED), (Kind.PREEMPTED, State.QUEUED)], ids=str
)
def test_an_attempt_that_was_told_to_go_and_then_refused_is_over(asked, state):
    world = World(cluster("1x4"))
    world.submit(job("4 GPUs"))
    world.ask(asked, 1)
    world.change("n0", schedulable=False)
    world.refused(1)
    assert world.jobs[1].state is state
    world.check()


def test_a_clock_that_is_set_back_makes_no_negative_gpu_time():
    world = World(cluster("1x4"))
    world.tick(at=100)
    world.submit(job("4 GPUs"))
    world.backend.events.append(Event(50.0, Kind.FINISHED, 1, 1, {"exit_code": 0}))
    world.tick()
    assert world.jobs[1].state is State.SUCCEEDED
    assert world.jobs[1].gpu_seconds == 0


@pytest.mark.parametrize("policy", ["easy", "conservative", "multifactor", "qssf", "gittins", "fair"])
def test_a_policy_is_told_of_earlier_attempts_of_a_job_that_runs_now(policy):
    world = World(cluster("1x4"), policy)
    world.submit(job("4 GPUs", retry=["failure"]), job("2 GPUs"), job("1 GPU"))
    running = next(iter(world.engine.queue.running.jobs.values()))
    past = Job(running.id, running.shape, 0.0, estimate=7)
    past.placed, past.attempt, past.state = -60.0, 1, running.state
    world.engine.remember([(past, -50.0)])
    world.submit(job("3 GPUs"))
    for book in world.engine.queue.books.values():
        if hasattr(book, "order"):
            assert [end[2] for end in book.order] == list(world.engine.queue.running.jobs)
    world.engine.use(load(policy))
    world.check()


def test_jobs_that_come_in_before_the_store_was_read_do_not_get_the_numbers_of_others():
    inbox = LiveInbox(lambda: 5.0, lambda: None)
    futures = [inbox.submit([Job(0, Shape(gpus=1), 0.0), Job(0, Shape(gpus=2), 0.0)]) for _ in range(2)]
    inbox.ask(Kind.CANCELLED, 2)
    inbox.number_from(3)
    asked = inbox.poll(5.0)
    numbers = [event.job for event in asked]
    assert numbers[-1] == 2
    assert numbers[:-1] == sorted(set(numbers[:-1]))
    assert min(numbers[:-1]) > 3
    assert [event.data.id for event in asked[:-1]] == numbers[:-1]
    inbox.settle({})
    assert [one.id for future in futures for one in future.result()] == numbers[:-1]
    assert inbox.submit([Job(0, Shape(gpus=1), 0.0)]) is not None
    assert inbox.poll(5.0)[0].job > max(numbers[:-1])


@pytest.mark.parametrize("policy", ["gittins", "priority", "urgent", "srtf"])
@pytest.mark.parametrize("words", ["2x2 GPUs", "6 GPUs in total"])
def test_a_gang_whose_racks_are_all_closed_waits_while_others_run_on_them(policy, words):
    world = World(cluster("2x4@rack=a"), policy)
    world.submit(job("2 GPUs, priority 10, stoppable"), job("4 GPUs, priority 10, stoppable"))
    for name in ("n0", "n1"):
        world.change(name, schedulable=False, why="cordoned")
    ask = job(f"{words}, priority 90")
    world.submit(replace(ask, shape=replace(ask.shape, topology=TopologyWish("required", "rack"))))
    assert world.jobs[3].state is State.QUEUED
    world.check()


def test_a_job_that_is_back_in_a_look_ahead_on_a_node_that_shrank_under_it_leaves_no_trace():
    pool = Pool(cluster("1x4 1x4"))
    ones, twos = Shape(gpus=3), Shape(gpus=1)
    pool.take(ones, (Piece(0, 3),))
    pool.take(twos, (Piece(0, 1),))
    pool.put(Node("n0", 3, fenced=((3, "dirty"),)))
    assert pool.free == [-1, 4]
    ahead = pool.copy()
    ahead.give(ones, (Piece(0, 3),))
    before = list(ahead.buckets)
    outer = ahead.begin()
    ahead.stay(ones, (Piece(0, 3),))
    assert not any(bucket & 1 for bucket in ahead.buckets)
    ahead.rollback(outer)
    assert ahead.buckets == before
    assert ahead.free == [2, 4]


def test_a_node_that_shrank_under_its_jobs_before_a_window_gets_no_job_that_would_not_be_gone_in_time():
    world = World(cluster("1x4"))
    world.submit(job("4 GPUs for 10 s"))
    world.started(1)
    window = {"id": 1, "by": "", "reason": "", "start": 50.0, "end": 90.0, "on": False}
    fields = {"closes": 50.0, "lead": 20.0, "orders": {"maintenance": window}}
    world.change("n0", gpus=3, fenced=((3, "dirty"),), **fields)
    world.submit(job("1 GPU, limit 100 s"))
    world.finished(1)
    assert world.jobs[2].state is State.QUEUED
    world.check()


def test_a_total_that_may_go_nowhere_has_no_pieces():
    nowhere = Shape(0, 6, topology=TopologyWish("required", "rack"))
    pool = Pool(cluster("2x4"))
    assert pool.allowed(nowhere) == ()
    world = World([], "priority")
    world.submit(job("1 GPU"))
    group = world.engine.queue.group_of(world.jobs[1])
    group.shape = nowhere
    assert world.engine.queue.reach.pieces(group, pool) == (0, 0)
