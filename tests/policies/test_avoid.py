"""Nodes that a shape avoids: kept by every placer and policy, and given up only where the others could not hold it."""

from dataclasses import replace

import pytest

from builders import World, cluster, job
from gpusched.cluster.pool import Pool
from gpusched.jobs.job import Shape, TopologyWish
from gpusched.policies.catalog import CATALOG
from gpusched.policies.place import PLACERS
from gpusched.policies.plan import Token
from gpusched.policies.reasons import never, not_now

SHAPES = [
    Shape(1, 1),
    Shape(1, 4),
    Shape(0, 4),
    Shape(0, 12),
    Shape(2, 2),
    Shape(2, 4, distinct=True),
    Shape(1, 0, 300),
    Shape(1, 1, cpu_milli=1000, memory=1 << 30),
    Shape(2, 2, topology=TopologyWish("required", "rack")),
    Shape(2, 2, topology=TopologyWish("preferred", "rack")),
    Shape(1, 2, gpu_types=("H100", "A100")),
]


def avoiding(shape: Shape, *names: str) -> Shape:
    return replace(shape, avoid=names)


def pool() -> Pool:
    return Pool(cluster("2x8:H100@rack=a+64cpu+64gb 2x8:H100@rack=b+64cpu+64gb 1x8:A100@rack=b+64cpu+64gb"))


@pytest.mark.parametrize("name", PLACERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_placer_keeps_off_the_nodes_that_a_shape_avoids(name, shape):
    one = pool()
    shape = avoiding(shape, "n0", "n2")
    for nodes in one.allowed(shape):
        placement = PLACERS[name](shape, one, nodes)
        if placement is not None:
            assert not {one.nodes[piece.node].name for piece in placement} & {"n0", "n2"}
            break
    else:
        raise AssertionError("it would fit elsewhere")


def test_shapes_that_avoid_different_nodes_are_different_shapes():
    assert Shape(1, 1, avoid=("a",)) != Shape(1, 1, avoid=("b",)) != Shape(1, 1)
    assert len({Shape(1, 1), Shape(1, 1, avoid=("a",)), Shape(1, 1, avoid=("b",))}) == 3


@pytest.mark.parametrize(
    ("words", "shape", "avoid", "given_up"),
    [
        ("2x8", Shape(1, 8), ("n0",), False),
        ("2x8", Shape(1, 8), ("n0", "n1"), True),
        ("2x8", Shape(2, 8), ("n0",), True),
        ("2x8", Shape(2, 4), ("n0",), False),
        ("2x8", Shape(2, 4, distinct=True), ("n0",), True),
        ("3x8", Shape(0, 16), ("n0",), False),
        ("2x8", Shape(0, 16), ("n0",), True),
        ("2x8", Shape(0, 12), ("n0",), True),
        ("1x8:H100 1x8:A100", Shape(1, 1, gpu_types=("H100", "A100")), ("n0",), False),
        ("1x8:H100 1x8:A100", Shape(1, 1, gpu_types=("H100",)), ("n0",), True),
        ("2x8", Shape(1, 0, 500), ("n0",), False),
        ("2x8", Shape(1, 1), ("gone-long-ago",), False),
    ],
)
def test_it_is_given_up_where_the_others_could_never_hold_the_shape(words, shape, avoid, given_up):
    one = Pool(cluster(words))
    shape = avoiding(shape, *avoid)
    assert bool(one.reach(shape) & one.avoided(shape)) is given_up
    assert never(shape, one, PLACERS["best_fit"]) is None


def test_a_busy_cluster_is_no_reason_to_give_it_up():
    one = Pool(cluster("2x8"))
    taken = Shape(1, 8)
    one.take(taken, PLACERS["best_fit"](taken, one, 0b10))
    shape = Shape(1, 8, avoid=("n0",))
    assert [PLACERS["best_fit"](shape, one, nodes) for nodes in one.allowed(shape)] == [None]
    assert never(shape, one, PLACERS["best_fit"]) is None
    assert not_now(shape, 8, one, 0) is Token.INSUFFICIENT_GPUS


def test_what_is_given_up_follows_the_cluster():
    one = Pool(cluster("2x8"))
    shape = Shape(1, 8, avoid=("n0",))
    assert one.reach(shape) == 0b10
    one.drop("n1")
    assert one.reach(shape) == 0b01
    one.put(one.nodes[1])
    assert one.reach(shape) == 0b10


@pytest.mark.parametrize("policy", CATALOG)
def test_every_policy_starts_it_elsewhere(policy):
    world = World(cluster("2x8"), policy)
    world.submit(job("3 GPUs for 5 s"))
    first = world.jobs[1]
    node = world.engine.pool.nodes[first.placement[0].node].name
    world.finished(1)
    world.submit(replace(job("3 GPUs for 5 s"), shape=Shape(1, 3, avoid=(node,))))
    assert world.states()[2] == "STARTING"
    assert world.engine.pool.nodes[world.jobs[2].placement[0].node].name != node


@pytest.mark.parametrize("policy", ["binpack", "easy", "gang"])
def test_one_that_finds_no_room_for_what_it_avoids_says_nothing_of_larger_ones(policy):
    """The smaller does not fit where it may go; the larger may go elsewhere."""
    world = World(cluster("2x8"), policy)
    world.submit(job("8 GPUs for 90 s"), job("8 GPUs for 5 s"))
    small = replace(job("1 GPU for 5 s"), shape=Shape(1, 1, avoid=("n1",)))
    world.submit(small, job("2 GPUs for 5 s"))
    world.finished(2)
    assert world.states() == {1: "STARTING", 2: "SUCCEEDED", 3: "QUEUED", 4: "STARTING"}
