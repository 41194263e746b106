"""The topology that node labels tell: which nodes lie together, and where a shape may go because of it."""

from __future__ import annotations

from dataclasses import replace

from builders import cluster
from gpusched.cluster.pool import Pool, bits
from gpusched.jobs.job import Shape, TopologyWish

TWO_PODS = "2x8@pod=a,rack=r1 2x8@pod=a,rack=r2 2x8@pod=b,rack=r1 1x8"


def named(pool: Pool, level: str) -> dict[str, list[int]]:
    """Nodes by domain."""
    return {domain.name: list(bits(domain.nodes)) for domain in pool.topology().domains(level)}


def test_domains_are_named_by_their_path():
    """Rack r1 of pod a is not rack r1 of pod b, and a node without the label lies in neither."""
    pool = Pool(cluster(TWO_PODS))
    assert pool.topology().levels == ("pod", "rack")
    assert named(pool, "rack") == {"a/r1": [0, 1], "a/r2": [2, 3], "b/r1": [4, 5]}
    assert named(pool, "pod") == {"a": [0, 1, 2, 3], "b": [4, 5]}
    assert pool.topology().of("rack") == [0, 0, 1, 1, 2, 2, -1]
    assert named(pool, "node")["n6"] == [6]


def test_a_site_says_which_labels_are_levels():
    pool = Pool(cluster("1x8@hall=x,row=1 1x8@hall=y,row=1"), levels=("hall", "row"))
    assert pool.topology().levels == ("hall", "row")
    assert named(pool, "row") == {"x/1": [0], "y/1": [1]}
    assert named(Pool(cluster("1x8@hall=x,row=1 1x8@hall=y,row=1")), "row") == {"1": [0, 1]}, "no level: by its value"


def test_the_tree_follows_the_nodes():
    pool = Pool(cluster("2x8@rack=a 1x8@rack=b"))
    assert named(pool, "rack") == {"a": [0, 1], "b": [2]}
    before = pool.topology()
    assert pool.topology() is before, "it is made once a layout"
    pool.put(replace(pool.nodes[1], labels={"rack": "b"}))
    assert named(pool, "rack") == {"a": [0], "b": [1, 2]}
    pool.drop("n0")
    assert named(pool, "rack") == {"b": [1, 2]}


def test_a_gang_that_requires_a_level_has_one_node_set_a_domain():
    pool = Pool(cluster("2x8:H100@rack=a 2x8:A100@rack=a 1x8:H100@rack=b 1x8:H100"))
    wish = TopologyWish("required", "rack")
    assert pool.allowed(Shape(2, 8, topology=wish)) == (0b1111, 0b10000)
    assert pool.allowed(Shape(2, 8, gpu_types=("A100", "H100"), topology=wish)) == (0b1100, 0b11, 0b10000)
    assert pool.reach(Shape(2, 8, topology=wish)) == 0b11111
    assert pool.allowed(Shape(2, 8, topology=TopologyWish("required", "zone"))) == ()
    assert pool.allowed(Shape(2, 8, topology=TopologyWish("preferred", "rack"))) == (0b111111,)
