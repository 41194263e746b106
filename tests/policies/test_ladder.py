"""The consolidation ladder: one node first, then one rack, then anywhere, and nothing polls in between."""

from __future__ import annotations

import pytest

from builders import World, cluster, job, trace
from gpusched.jobs.errors import NotFoundError, PolicyError
from gpusched.jobs.job import State
from gpusched.policies.catalog import load
from gpusched.policies.plan import Token
from gpusched.scheduler.explain import explain
from gpusched.scheduler.simulate import simulate

RACKS = "2x8@rack=a 2x8@rack=b"
LADDER = "ladder?node=60s&rack=300s"


def fragmented(words: str, *taken: int, policy: str = LADDER, nodes: str = RACKS) -> World:
    """A cluster of which so many GPUs of each node are in use, and a job that was just submitted."""
    world = World(cluster(nodes), policy)
    for number, gpus in enumerate(taken):
        if gpus:
            world.change(f"n{number}", gpus=gpus)  # for a moment nothing else fits it
        else:
            world.change(f"n{number}", schedulable=False)
    world.submit(*[job(f"{gpus} GPUs") for gpus in sorted(filter(None, taken))])
    assert all(one.state is State.STARTING for one in world.jobs.values())
    for number in range(len(taken)):
        world.change(f"n{number}", gpus=8, schedulable=True)
    world.submit(job(words))
    return world


def where(world: World) -> list[str]:
    last = world.jobs[max(world.jobs)]
    return [world.engine.pool.nodes[piece.node].name for piece in last.placement]


def test_first_one_node_then_one_rack_then_anywhere():
    """Free: 2 and 2 in rack a, 3 and 1 in rack b; the gang needs two pieces of two."""
    world = fragmented("2x2 GPUs", 6, 6, 5, 7)
    assert where(world) == [], "no node has four"
    assert world.engine.next_time() == 60.0
    world.tick(at=59.0)
    assert where(world) == []
    world.tick(at=60.0)
    assert where(world) == ["n0", "n1"]


def test_the_last_rung_comes_when_both_patiences_are_over():
    world = fragmented("2x2 GPUs", 6, 7, 6, 7)
    for time, due in ((0.0, 60.0), (60.0, 360.0)):
        world.tick(at=time)
        assert where(world) == []
        assert world.engine.next_time() == due
    world.tick(at=360.0)
    assert where(world) == ["n0", "n2"]
    assert world.engine.next_time() is None


def test_room_on_a_node_is_taken_whenever_it_comes():
    world = fragmented("2x2 GPUs", 6, 7, 6, 7)
    world.tick(at=100.0)
    world.started(1)
    world.finished(1)
    assert len(set(where(world))) == 1


def test_rungs_that_the_cluster_can_never_give_are_skipped():
    assert where(fragmented("2x8 GPUs", 0, 0)) != [], "no node holds it: one rack at once"
    world = fragmented("3x8 GPUs", 0, 0)
    assert sorted(where(world)) == ["n0", "n1", "n2"], "no rack holds it either"
    split = fragmented("2x8 GPUs", 8, 0, 8, 0)
    assert where(split) == []
    assert split.engine.next_time() == 60.0


def test_patience_goes_by_size():
    policy = "ladder?node=10s,100s&rack=20s,200s&sizes=4"
    small = fragmented("2x2 GPUs", 6, 7, 6, 7, policy=policy)
    small.tick(at=30.0)
    assert where(small) == ["n0", "n2"]
    large = fragmented("3x2 GPUs", 6, 6, 6, 7, policy=policy)
    for time in (30.0, 100.0):
        large.tick(at=time)
        assert where(large) == []
    large.tick(at=300.0)
    assert sorted(where(large)) == ["n0", "n1", "n2"]


def test_who_waits_for_its_rung_is_told_so():
    world = fragmented("2x2 GPUs", 6, 6, 5, 7)
    waits = world.jobs[max(world.jobs)]
    assert world.engine.queue.group_of(waits).why.token is Token.TOPOLOGY_UNSATISFIED
    reasons = explain(world.engine, waits, world.now).reasons
    assert [reason.token for reason in reasons] == [Token.TOPOLOGY_UNSATISFIED]
    assert "close" in reasons[0].message


def test_it_stands_in_compositions_and_a_level_may_be_another():
    policy = load("priority+ladder?node=5m+skip")
    assert policy.finding is not None
    run = simulate(
        trace(job("6 GPUs for 1000 s"), job("6 GPUs for 1000 s"), job("2x2 GPUs for 10 s")),
        cluster("2x8@rack=a"),
        load("priority+ladder?node=5m&rack=1h+skip"),
    )
    assert [one.placed for one in run.jobs] == [0, 0, 300]


@pytest.mark.parametrize("name", ["ladder?sizes=8,4", "ladder?node=1m,2m,3m", "arrival+ladder+easy"])
def test_what_does_not_go_together_is_refused(name):
    with pytest.raises(PolicyError, match=r"sizes|promises"):
        load(name)


def test_an_unknown_option_is_refused():
    with pytest.raises(NotFoundError, match="no option 'level'"):
        load("ladder?level=rack")
