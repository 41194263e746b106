"""Jobs are moved to make room for a gang: who, when, where to, and that none of them loses its place."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from builders import World, after, cluster, job, trace
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import HOLDING, Job, Shape, State
from gpusched.policies.catalog import load
from gpusched.policies.plan import Token
from gpusched.policies.testing import check_policy
from gpusched.policies.tree import GPUS, QueueNode, Quota, Tree
from gpusched.scheduler.simulate import trial

MOVING = "arrival+spread+skip+consolidate"
"""Spread makes fragments, so that there is something to move."""


def at(world: World, number: int) -> list[str]:
    """Names of the nodes where a job is."""
    return [world.engine.pool.nodes[piece.node].name for piece in world.jobs[number].placement]


def told(world: World) -> list[int]:
    return [one.id for one in world.jobs.values() if one.state is State.PREEMPTING]


def two_halves(policy: str = MOVING, words: str = "4 GPUs, stoppable", nodes: str = "2x8") -> World:
    """A job on half of each of two nodes, the second a minute after the first."""
    world = World(cluster(nodes), policy)
    world.submit(job(words))
    world.tick(at=60.0)
    world.submit(job(words))
    world.started(1)
    world.started(2)
    world.tick(at=120.0)
    assert at(world, 1) == ["n0"]
    assert at(world, 2) == ["n1"]
    return world


def test_the_job_that_loses_least_moves_and_the_gang_gets_the_node():
    world = two_halves()
    world.submit(job("8 GPUs"))
    assert told(world) == [2]
    assert world.engine.queue.group_of(world.jobs[3]).why.token is Token.WAITING_FOR_VICTIMS
    world.finished(2, 143)
    assert at(world, 2) == ["n0"]
    assert at(world, 3) == ["n1"]
    assert {number: one.attempt for number, one in world.jobs.items()} == {1: 1, 2: 2, 3: 1}
    assert not world.engine.queue.kept
    world.check()


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        ("4 GPUs", "2x8"),  # nobody may be stopped
        ("5 GPUs, stoppable", "2x8"),  # six are free, and eight are asked for
        ("4 GPUs, stoppable, 40 CPUs", "2x8+64cpu"),  # what leaves finds no CPUs elsewhere
    ],
)
def test_nobody_moves_where_that_does_not_help(words, nodes):
    world = two_halves(words=words, nodes=nodes)
    world.submit(job("8 GPUs"))
    assert told(world) == []
    assert world.jobs[3].state is State.QUEUED
    assert not world.engine.queue.kept
    world.check()


def test_nobody_moves_before_its_minimum_run_time_and_the_wait_ends_with_it():
    world = two_halves(words="4 GPUs, stoppable, at least 600 s")
    world.submit(job("8 GPUs"))
    assert told(world) == []
    assert world.engine.next_time() == 600.0, "when the first of them may move; nothing polls"
    world.tick(at=600.0)
    assert told(world) == [1]
    world.finished(1, 143)
    assert (at(world, 1), at(world, 3)) == (["n1"], ["n0"])


def test_no_more_jobs_move_than_the_rule_allows():
    for moves, moved in ((3, []), (4, [5, 6, 7, 8])):
        world = World(cluster("2x8"), f"{MOVING}?moves={moves}")
        for number in range(1, 9):
            world.submit(job("1 GPU, stoppable"))
            world.started(number)
        placed = {number: at(world, number)[0] for number in range(1, 9)}
        assert sorted(placed.values()) == ["n0"] * 4 + ["n1"] * 4
        world.tick(at=10.0)
        world.submit(job("8 GPUs"))
        assert len(told(world)) == len(moved)
        assert len({placed[number] for number in told(world)}) <= 1, "one node is cleared"


def test_while_the_moved_jobs_leave_nobody_takes_what_is_kept_for_them():
    """Two jobs move, one leaves sooner; others come meanwhile and find no room before the gang has its own."""
    world = World(cluster("4x8"), MOVING)
    world.submit(*[job("2 GPUs, stoppable") for _ in range(6)])
    for number in range(1, 7):
        world.started(number)
    world.tick(at=10.0)
    world.submit(job("2x8 GPUs"))
    moved = told(world)
    assert len(moved) == 2
    kept = {number: start.placement for number, start in world.engine.queue.kept.items()}
    world.submit(job("5 GPUs"), job("2x8 GPUs"))
    assert told(world) == moved, "nobody else is told to go for a gang that has its claim already"
    world.finished(moved[0], 143)
    assert world.jobs[moved[0]].placement == kept[moved[0]], "its new place is free, so it need not wait for the other"
    assert world.jobs[7].state is State.QUEUED
    assert world.jobs[8].state is State.QUEUED
    world.check()
    world.finished(moved[1], 143)
    assert [world.jobs[number].placement for number in (*moved, 7)] == [kept[number] for number in (*moved, 7)]
    assert world.jobs[8].state is State.QUEUED, "four GPUs are left, two on each of two nodes"
    assert not world.engine.queue.kept
    world.check()


def test_a_moved_job_that_ended_by_itself_leaves_its_place_to_others():
    world = two_halves()
    world.submit(job("8 GPUs"), job("4 GPUs"))
    assert told(world) == [2]
    world.finished(2, 0)
    assert world.jobs[2].state is State.SUCCEEDED
    assert at(world, 3) == ["n1"]
    assert at(world, 4) == ["n0"]
    assert not world.engine.queue.kept


def test_a_kept_place_on_a_node_that_went_is_given_up():
    world = two_halves(nodes="3x8")
    world.submit(job("4 GPUs, stoppable"))
    world.started(3)
    world.tick(at=180.0)
    world.submit(job("8 GPUs"))
    assert told(world) == [3]
    assert world.engine.queue.kept[3].placement[0].node == 0
    world.change("n0", schedulable=False, why="cordoned")
    world.finished(3, 143)
    assert (at(world, 3), at(world, 4)) == (["n1"], ["n2"])
    world.check()


def test_jobs_move_within_the_quotas_of_their_queues():
    tree = Tree((QueueNode("a", quotas={GPUS: Quota(8)}), QueueNode("b", quotas={GPUS: Quota(8)})))
    world = World(cluster("2x8"), MOVING)
    world.engine.use_tree(tree)
    world.submit(job("4 GPUs, stoppable, queue a"))
    world.tick(at=60.0)
    world.submit(job("4 GPUs, stoppable, queue a"))
    world.started(1)
    world.started(2)
    world.tick(at=120.0)
    world.submit(job("8 GPUs, queue b"))
    assert told(world) == [2]
    world.finished(2, 143)
    assert all(one.state in HOLDING for one in world.jobs.values())
    world.submit(job("1 GPU, queue b"))
    assert world.jobs[4].state is State.QUEUED
    world.check()


def moved_and_started(policy: str, seed: int) -> int:
    """Replay a drawn trace: how many moves there were, each checked."""
    draw = Random(seed)  # noqa: S311 - a trace, no secret
    asks = []
    for number in range(60):
        shape = draw.choice([Shape(1, 1), Shape(1, 2), Shape(1, 3), Shape(1, 4), Shape(1, 8), Shape(2, 8), Shape(4, 2)])
        asks += after(number * 40.0, replace(job("1 GPU"), shape=shape, lasts=float(draw.randint(10, 1500))))
    done = trial(trace(*asks), cluster("4x8@rack=a 2x8@rack=b"), load(policy))
    events = [entry for entry in done.store.journal if isinstance(entry, Event)]
    placed = {(event.time, event.job) for event in events if event.kind is Kind.PLACED}
    told = [event for event in events if event.kind is Kind.PREEMPTED]
    for event in told:
        assert (event.time, event.job) in placed, f"job {event.job} was moved at {event.time} and did not go on then"
        assert (event.time, event.data["claimant"]) in placed, "the gang starts at that instant"
    ended: list[Job] = list(done.store.jobs.values())
    assert all(one.state is State.SUCCEEDED for one in ended)
    return len(told)


def test_at_no_cost_every_moved_job_runs_again_at_the_instant_of_its_move_and_the_gang_starts():
    moves = {policy: sum(moved_and_started(policy, seed) for seed in range(6)) for policy in (MOVING, "consolidating")}
    assert moves[MOVING] > 20
    assert moves["consolidating"] > 0


@pytest.mark.parametrize(
    "name", [MOVING, "priority+best_fit+strict+consolidate", "aged_priority+ladder+skip+consolidate"]
)
def test_moves_keep_the_laws_of_every_policy(name):
    check_policy(name, examples=40)
