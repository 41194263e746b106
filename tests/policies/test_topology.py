"""Where gangs go by topology: hand-made pictures of each mode, and the smallest subtree by brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import World, after, cluster, job, trace
from gpusched.cluster.backend import Node
from gpusched.cluster.pool import Pool, bits
from gpusched.cluster.topology import LEVELS
from gpusched.jobs.job import Piece, Placement, Shape, TopologyWish
from gpusched.policies.catalog import load
from gpusched.policies.place import PLACERS
from gpusched.policies.placers.gangs import pieces_now
from gpusched.policies.placers.levels import choices
from gpusched.policies.plan import Token
from gpusched.policies.reasons import never, not_now
from gpusched.policies.testing.world import picture
from gpusched.policies.tree import QueueNode, Tree
from gpusched.scheduler.explain import explain
from gpusched.scheduler.simulate import simulate

PODS = "2x8@pod=a,rack=r1 4x8@pod=a,rack=r2 2x8@pod=b,rack=r1 3x8@pod=b,rack=r2"
"""Nodes 0-1 and 2-5 in pod a, 6-7 and 8-10 in pod b."""


def used(words: str, *taken: int) -> Pool:
    """A pool in which so many GPUs of each node are in use."""
    pool = Pool(cluster(words))
    for number, gpus in enumerate(taken):
        if gpus:
            pool.take(Shape(1, gpus), (Piece(number, gpus),))
    return pool


def where(shape: Shape, pool: Pool, policy: str = "arrival+best_fit+skip") -> list[int] | None:
    """The node of each piece, in order of rank, as a policy would place it now."""
    made = load(policy)
    before = picture(pool)
    for nodes in choices(shape, pool):
        placement = made.place(shape, pool, nodes)
        assert picture(pool) == before, "a placer leaves the pool as it found it"
        if placement is not None:
            return [piece.node for piece in placement]
    return None


def required(level: str) -> TopologyWish:
    return TopologyWish("required", level)


# The placer ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "nodes"),
    [
        (Shape(2, 4), [0, 0]),  # one machine
        (Shape(2, 8), [0, 1]),  # the tightest rack: two nodes rather than three or four
        (Shape(3, 8), [8, 9, 10]),
        (Shape(4, 8), [2, 3, 4, 5]),
        (Shape(5, 8), [8, 9, 10, 6, 7]),  # no rack holds it: the tighter pod, in as few racks as can be
        (Shape(6, 8), [2, 3, 4, 5, 0, 1]),
        (Shape(7, 8), [0, 1, 2, 3, 4, 5, 6]),  # no pod holds it: most in one, the rest in one rack of the other
        (Shape(0, 20), [8, 9, 10]),  # a total by its whole nodes, and the remainder beside them
    ],
)
def test_a_gang_goes_into_the_smallest_subtree_that_holds_it(shape, nodes):
    assert sorted(where(shape, used(PODS), "arrival+topology+skip")) == sorted(nodes)


def test_what_is_in_use_does_not_count():
    """Rack r1 of pod a has one node free, rack r1 of pod b both: the tightest rack that still holds two nodes."""
    assert where(Shape(2, 8), used(PODS, 1), "arrival+topology+skip") == [6, 7]


def test_an_nvlink_domain_is_smaller_than_its_rack():
    words = "2x4@rack=a,nvlink=1 2x4@rack=a,nvlink=2 4x4@rack=b,nvlink=1"
    assert where(Shape(4, 4), used(words), "arrival+topology+skip") == [4, 5, 6, 7]
    assert where(Shape(2, 4), used(words, 1), "arrival+topology+skip") == [2, 3]


def test_rail_units_are_a_level():
    words = "2x8@rail=u1,rack=a 2x8@rail=u1,rack=b 4x8@rail=u2,rack=c"
    assert where(Shape(3, 8), used(words, 0, 0, 0, 0, 8, 8), "arrival+topology+skip") == [0, 1, 2]


# Wishes under any placer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placer", PLACERS)
def test_a_required_level_holds_under_every_placer(placer):
    pool = used(PODS, 1, 0, 1, 1)
    racks = pool.topology().of("rack")
    for shape in (Shape(2, 8, topology=required("rack")), Shape(3, 4, topology=required("rack"))):
        nodes = where(shape, pool, f"arrival+{placer}+skip")
        assert nodes is not None
        assert len({racks[node] for node in nodes}) == 1
    assert where(Shape(4, 8, topology=required("rack")), pool, f"arrival+{placer}+skip") is None


def test_of_the_domains_that_hold_it_the_tightest_is_taken():
    assert where(Shape(3, 8, topology=required("rack")), used(PODS)) == [8, 9, 10]
    assert where(Shape(2, 8, topology=required("pod")), used(PODS)) == [6, 7]
    assert where(Shape(2, 4, topology=required("node")), used(PODS, 4)) == [1, 1]
    assert where(Shape(3, 4, topology=required("node")), used(PODS)) is None


def test_the_preferred_gpu_type_goes_before_the_tightest_domain():
    words = "3x8:A100@rack=a 2x8:H100@rack=b"
    shape = Shape(2, 8, gpu_types=("A100", "H100"), topology=required("rack"))
    assert where(shape, used(words)) == [0, 1]


def test_a_preferred_level_is_kept_if_it_fits_now_and_else_the_next_wider_one():
    shape = Shape(3, 8, topology=TopologyWish("preferred", "rack"))
    assert where(shape, used(PODS)) == [8, 9, 10]
    assert where(shape, used(PODS, 0, 0, 8, 8, 0, 0, 0, 0, 8)) == [0, 1, 4], "one pod"
    assert where(shape, used(PODS, 8, 0, 8, 8, 8, 0, 8, 0, 8, 8, 8)) == [1, 5, 7], "anywhere"
    assert where(Shape(2, 4, topology=TopologyWish("preferred", "rack")), used(PODS)) == [0, 0], "one machine is best"
    assert where(shape, used("4x8")) == [0, 1, 2], "a level that no node has changes nothing"


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread", "topology"])
def test_balanced_spreads_the_pieces_evenly_over_the_domains(placer):
    words = "2x8@rack=a 2x8@rack=b 2x8@rack=c"
    pool = used(words)
    racks = pool.topology().of("rack")

    def by_rack(shape: Shape, on: Pool) -> list[int]:
        nodes = where(shape, on, f"arrival+{placer}+skip")
        return [sum(racks[node] == rack for node in nodes) for rack in range(3)]

    wish = TopologyWish("balanced", "rack")
    assert by_rack(Shape(3, 8, topology=wish), pool) == [1, 1, 1]
    assert by_rack(Shape(6, 2, topology=wish), pool) == [2, 2, 2]
    assert sorted(by_rack(Shape(4, 8, topology=wish), pool)) == [1, 1, 2]
    assert by_rack(Shape(6, 4, topology=wish), used(words, 8, 4)) == [1, 3, 2], "as even as the room allows"
    assert by_rack(Shape(0, 24, topology=wish), pool) == [1, 1, 1], "a total by its nodes"


def test_who_waits_for_one_domain_is_told_so_with_numbers():
    pool = used(PODS, 0, 0, 8, 0, 0, 0, 0, 0, 8)
    shape = Shape(4, 8, topology=required("rack"))
    assert where(shape, pool) is None
    assert not_now(shape, 32, pool, 0) is Token.TOPOLOGY_UNSATISFIED
    assert not_now(Shape(4, 8, topology=required("pod")), 32, used(PODS, 1, 1, 1, 1, 1, 1, 1, 1), 0) is Token.FRAGMENTED
    assert never(shape, pool, load("fifo").place) is None
    for impossible in (Shape(5, 8, topology=required("rack")), Shape(2, 8, topology=required("zone"))):
        assert never(impossible, pool, load("fifo").place) is Token.INFEASIBLE


# By brute force ------------------------------------------------------------------------------------------------------

trees = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 8)), min_size=1, max_size=7)


def span(placement: Placement, pool: Pool) -> int:
    """How wide a placement lies: 0 = one machine, 1 = one rack, 2 = one pod, 3 = more than that."""
    nodes = {piece.node for piece in placement}
    for width, level in enumerate(("node", "rack", "pod")):
        of = pool.topology().of(level)
        if len({of[node] for node in nodes}) == 1 and of[min(nodes)] >= 0:
            return width
    return 3


def smallest(shape: Shape, pool: Pool) -> int | None:
    """The least width at which it fits, by trying every set of nodes; None = it fits nowhere."""
    takes = [min(pieces_now(shape, pool, n, pool.free[n]), 1 if shape.distinct else 99) for n in range(len(pool.nodes))]
    for width, level in enumerate(("node", "rack", "pod")):
        if any(
            sum(takes[node] for node in bits(domain.nodes)) >= shape.num_nodes
            for domain in pool.topology().domains(level)
        ):
            return width
    return 3 if sum(takes) >= shape.num_nodes else None


@settings(max_examples=300, deadline=None)
@given(trees, st.integers(2, 5), st.sampled_from([1, 2, 3, 4, 8]), st.booleans(), st.sampled_from([0, 3000, 9000]))
def test_no_smaller_subtree_would_have_held_it(drawn, pieces, gpus, distinct, cpu):
    """Nodes with so many GPUs in use, in drawn racks and pods."""
    nodes = [
        Node(f"n{number}", 8, labels={"pod": pod, "rack": rack}, cpu_milli=12_000)
        for number, (pod, rack, _) in enumerate(drawn)
    ]
    pool = Pool(nodes)
    for number, (_, _, taken) in enumerate(drawn):
        if taken:
            pool.take(Shape(1, taken), (Piece(number, taken),))
    shape = Shape(pieces, gpus, cpu_milli=cpu, distinct=distinct)
    placement = PLACERS["topology"](shape, pool, pool.up)
    best = smallest(shape, pool)
    assert (placement is None) == (best is None)
    if placement is not None:
        assert span(placement, pool) == best
        with pool.trial():
            pool.take(shape, placement)
        racks = {pool.topology().of("rack")[piece.node] for piece in placement}
        if best < 3:
            assert len(racks) == fewest(shape, pool, best), "inside, the fewest domains"


def fewest(shape: Shape, pool: Pool, width: int) -> int:
    """The fewest racks that hold it within one domain of that width."""
    takes = [min(pieces_now(shape, pool, n, pool.free[n]), 1 if shape.distinct else 99) for n in range(len(pool.nodes))]
    pods = [domain.nodes for domain in pool.topology().domains("pod")] if width == 2 else [pool.up]
    rooms = [
        [sum(takes[node] for node in bits(rack.nodes & pod)) for rack in pool.topology().domains("rack")]
        for pod in pods
    ]
    return next(
        count
        for count in itertools.count(1)
        if any(sum(sorted(inside)[-count:]) >= shape.num_nodes for inside in rooms)
    )


# A site's own levels -------------------------------------------------------------------------------------------------


def test_the_levels_of_a_site_come_with_its_queues():
    """Halls and rows instead of pods and racks: the same row number in two halls is two rows."""
    nodes = cluster("1x8@hall=x,row=1 1x8@hall=y,row=1 2x8@hall=y,row=2")
    world = World(nodes, "topology")
    world.submit(job("2x8 GPUs"))
    assert [piece.node for piece in world.jobs[1].placement] == [0, 1], "none of the usual labels is there"
    world = World(nodes, "topology")
    world.engine.use_tree(Tree((QueueNode("default"),), "default", ("hall", "row")))
    world.submit(job("2x8 GPUs"))
    assert [piece.node for piece in world.jobs[1].placement] == [2, 3]
    world.engine.use_tree(None)
    assert world.engine.pool.levels == LEVELS
    world.check()


def test_a_simulation_takes_the_levels_from_its_queues():
    nodes = cluster("1x8@hall=x,row=1 1x8@hall=y,row=1 2x8@hall=y,row=2")
    wide = replace(job("2x8 GPUs for 10 s"), shape=Shape(2, 8, topology=required("row")))
    asked = trace(wide, after(1, replace(wide))[0])
    tree = Tree((QueueNode("default"),), "default", ("hall", "row"))
    assert [one.placed for one in simulate(asked, nodes, load("fifo"), tree=tree).jobs] == [0, 10]
    assert [one.placed for one in simulate(asked, nodes, load("fifo")).jobs] == [0, 1], "rows by their label alone"


def test_explain_tells_what_one_domain_lacks():
    waits = replace(job("2x8 GPUs"), shape=Shape(2, 8, topology=required("rack")))
    made = World(cluster("2x8@rack=a 2x8@rack=b"), "arrival+spread+skip")
    made.submit(job("8 GPUs"), job("8 GPUs, rack=b"), waits)
    said = explain(made.engine, made.jobs[3], 0.0)
    assert [reason.token for reason in said.reasons] == [Token.TOPOLOGY_UNSATISFIED]
    assert said.reasons[0].message == (
        "needs 2x8 GPUs within one rack; free 16, and the rack with most room, a, takes 1 of 2 pieces"
    )
    assert ("rack preferred, not required", "would start now") in said.suggestions
    never = replace(waits, shape=Shape(3, 8, topology=required("rack")))
    made.submit(never)
    said = explain(made.engine, made.jobs[4], 0.0)
    assert said.reasons[0].token is Token.INFEASIBLE
    assert said.reasons[0].message == ("needs 3x8 GPUs; it requires one rack, and the largest, a, has 16 GPUs")
