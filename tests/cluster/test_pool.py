"""The ledger of what is free where."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import GB, cluster, job
from gpusched.cluster.backend import Node
from gpusched.cluster.pool import Pool, bits
from gpusched.jobs.errors import PlanError
from gpusched.jobs.job import Piece, Shape
from gpusched.policies.testing.world import picture


def shape(words: str) -> Shape:
    return job(words).shape


def names(pool: Pool, nodes: int) -> list[str]:
    return [pool.nodes[number].name for number in bits(nodes)]


def test_what_is_taken_is_given_back_whole():
    pool = Pool(cluster("2x8+16cpu+64gb"))
    before = picture(pool)[:4]
    gang = shape("2x4 GPUs, 4 CPUs, 16 GB")
    placement = (Piece(0, 4), Piece(1, 4))
    pool.take(gang, placement)
    assert (pool.free, pool.cpu, pool.memory) == ([4, 4], [12_000, 12_000], [48 * GB, 48 * GB])
    assert pool.free_gpus == 8
    pool.give(gang, placement)
    assert picture(pool)[:4] == before


@pytest.mark.parametrize(
    ("words", "placement"),
    [
        ("5 GPUs", (Piece(0, 5),)),
        ("2x3 GPUs", (Piece(0, 3), Piece(0, 3))),
        ("1 GPU, 9 CPUs", (Piece(0, 1),)),
        ("1 GPU, 65 GB", (Piece(0, 1),)),
        ("0.5 GPU, 9 CPUs", (Piece(0, 0, 500, 0),)),
    ],
)
def test_what_a_node_lacks_is_refused_and_nothing_is_taken(words, placement):
    pool = Pool(cluster("1x4+8cpu+64gb"))
    before = picture(pool)
    with pytest.raises(PlanError, match="does not fit node n0"):
        pool.take(shape(words), placement)
    assert picture(pool) == before


def test_a_gang_that_fits_only_in_part_leaves_nothing_behind():
    pool = Pool(cluster("2x4"))
    pool.take(shape("1 GPU"), (Piece(1, 1),))
    before = picture(pool)
    with pytest.raises(PlanError, match="n1"):
        pool.take(shape("2x4 GPUs"), (Piece(0, 4), Piece(1, 4)))
    assert picture(pool) == before


def test_parts_of_a_gpu_share_it_until_it_is_full():
    pool = Pool(cluster("1x2"))
    part = shape("0.5 GPU")
    pool.take(part, (Piece(0, 0, 500, 0),))
    assert (pool.free, pool.open) == ([1], [{0: 500}])
    pool.take(part, (Piece(0, 0, 500, 0),))
    assert (pool.free, pool.open) == ([1], [{0: 0}])
    with pytest.raises(PlanError):
        pool.take(shape("0.3 GPU"), (Piece(0, 0, 300, 0),))
    with pytest.raises(PlanError):
        pool.take(shape("2 GPUs"), (Piece(0, 2),))
    pool.give(part, (Piece(0, 0, 500, 0),))
    pool.give(part, (Piece(0, 0, 500, 0),))
    assert (pool.free, pool.open, pool.sharing) == ([2], [{}], 0)


def test_a_gpu_is_opened_only_where_one_is_free():
    pool = Pool(cluster("1x1"))
    pool.take(shape("1 GPU"), (Piece(0, 1),))
    with pytest.raises(PlanError):
        pool.take(shape("0.5 GPU"), (Piece(0, 0, 500, 0),))


def test_trials_nest_and_leave_nothing():
    pool = Pool(cluster("2x8"))
    before = picture(pool)
    with pool.trial():
        pool.take(shape("8 GPUs"), (Piece(0, 8),))
        with pool.trial():
            pool.take(shape("8 GPUs"), (Piece(1, 8),))
            assert pool.free_gpus == 0
        assert pool.free_gpus == 8
    assert picture(pool) == before


def test_a_trial_is_undone_when_it_raises():
    pool = Pool(cluster("1x8"))
    before = picture(pool)
    with pytest.raises(PlanError), pool.trial():  # noqa: PT012 - what raises is the second
        pool.take(shape("0.5 GPU"), (Piece(0, 0, 500, 0),))
        pool.take(shape("9 GPUs"), (Piece(0, 9),))
    assert picture(pool) == before


def test_a_trial_keeps_exactly_the_plan_or_nothing():
    pool = Pool(cluster("1x8"))
    placement = (Piece(0, 8),)
    outer = pool.begin()
    pool.take(shape("8 GPUs"), placement)
    assert not pool.keep(outer, [])
    assert pool.free == [8]
    outer = pool.begin()
    pool.take(shape("8 GPUs"), placement)
    assert pool.keep(outer, [(None, placement)])
    assert pool.free == [0]


def test_a_cordoned_node_takes_no_work_and_keeps_what_it_has():
    pool = Pool(cluster("2x8"))
    pool.take(shape("4 GPUs"), (Piece(0, 4),))
    pool.put(replace(pool.nodes[0], schedulable=False))
    assert (names(pool, pool.up), names(pool, pool.present), pool.free_gpus) == (["n1"], ["n0", "n1"], 8)
    pool.give(shape("4 GPUs"), (Piece(0, 4),))
    pool.put(replace(pool.nodes[0], schedulable=True))
    assert (pool.free, pool.free_gpus) == ([8, 8], 16)


def test_a_node_that_left_keeps_its_number_and_comes_back_under_it():
    pool = Pool(cluster("3x8"))
    pool.take(shape("4 GPUs"), (Piece(1, 4),))
    assert pool.drop("n1") == 1
    assert names(pool, pool.present) == ["n0", "n2"]
    pool.give(shape("4 GPUs"), (Piece(1, 4),))
    assert pool.put(pool.nodes[1]) == 1
    assert pool.free == [8, 8, 8]


def test_nothing_new_goes_to_a_node_that_left():
    pool = Pool(cluster("2x8"))
    pool.drop("n1")
    with pytest.raises(PlanError):
        pool.take(shape("1 GPU"), (Piece(1, 1),))


def test_a_node_that_shrank_under_its_jobs_takes_work_again_when_the_rest_fits():
    pool = Pool(cluster("1x8"))
    pool.take(shape("8 GPUs"), (Piece(0, 8),))
    pool.take(Shape(1, 0), (Piece(0, 0),))
    pool.put(Node("n0", 4))
    assert (pool.free, pool.up) == ([-4], 0)
    pool.give(shape("8 GPUs"), (Piece(0, 8),))
    assert (pool.free, names(pool, pool.up), pool.free_gpus, pool.node_size(pool.up)) == ([4], ["n0"], 4, 4)


def test_types_and_labels_say_where_a_job_may_go_the_preferred_type_first():
    pool = Pool(cluster("1x8:H100@rack=a 1x8:A100@rack=a 1x8:A100@rack=b 1x8"))

    def allowed(words: str) -> list[list[str]]:
        return [names(pool, nodes) for nodes in pool.allowed(shape(words))]

    assert allowed("1 GPU") == [["n0", "n1", "n2", "n3"]]
    assert allowed("1 A100|H100 GPU") == [["n1", "n2"], ["n0"]]
    assert allowed("1 a100 GPU, rack=b") == [["n2"]]
    assert allowed("1 GPU, rack=c") == [[]]
    assert allowed("1 V100 GPU") == [[]]
    pool.drop("n1")
    assert allowed("1 A100|H100 GPU") == [["n2"], ["n0"]]


def test_the_idle_pool_is_the_cluster_with_nothing_on_it_and_no_cordon():
    pool = Pool(cluster("3x8"))
    pool.take(shape("8 GPUs"), (Piece(0, 8),))
    pool.put(replace(pool.nodes[1], schedulable=False))
    pool.drop("n2")
    idle = pool.idle()
    assert (idle.free, names(idle, idle.up), idle.free_gpus) == ([8, 8, 8], ["n0", "n1"], 16)
    assert pool.free == [0, 8, 8]


def test_the_idle_pool_follows_the_nodes():
    pool = Pool(cluster("2x8"))
    pool.take(shape("8 GPUs"), (Piece(0, 8),))
    assert (pool.idle().free_gpus, pool.idle(closed=False).free_gpus) == (16, 16)
    pool.put(replace(pool.nodes[0], schedulable=False))
    assert (pool.idle().free_gpus, pool.idle(closed=False).free_gpus) == (16, 8)
    pool.put(replace(pool.nodes[0], name="n2", schedulable=True))
    pool.drop("n1")
    assert (pool.idle().free_gpus, pool.idle(closed=False).free_gpus) == (16, 8)
    assert pool.idle() is pool.idle()


def test_growth_rises_when_capacity_may_have_grown_and_only_then():
    pool = Pool(cluster("2x8"))
    growth = pool.growth
    pool.take(shape("4 GPUs"), (Piece(0, 4),))
    pool.drop("n1")
    assert pool.growth == growth
    pool.give(shape("4 GPUs"), (Piece(0, 4),))
    assert pool.growth > growth
    growth = pool.growth
    pool.put(pool.nodes[1])
    assert pool.growth > growth


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["take", "give", "cordon", "drop", "put"]), st.integers(0, 50)), max_size=40))
def test_figures_are_those_of_a_pool_made_anew(happenings):  # noqa: C901 - one branch a happening
    """Whatever happened, each figure is the one that a pool shows which never saw the past."""
    pool = Pool(cluster("3x4 2x2 1x0"))
    held: list[tuple[Shape, tuple[Piece, ...]]] = []
    for what, pick in happenings:
        number = pick % 6
        if what == "take":
            wanted = Shape(1, pick % 4) if pick % 3 else Shape(1, 0, 300)
            piece = Piece(number, wanted.gpus, wanted.gpu_milli, 0 if wanted.gpu_milli else -1)
            try:
                pool.take(wanted, (piece,))
            except PlanError:
                continue
            held.append((wanted, (piece,)))
        elif what == "give" and held:
            pool.give(*held.pop(pick % len(held)))
        elif what == "cordon":
            pool.put(replace(pool.nodes[number], schedulable=not pool.nodes[number].schedulable))
        elif what == "drop":
            pool.drop(pool.nodes[number].name)
        elif what == "put":
            pool.put(pool.nodes[number])
    anew = Pool(replace(node, schedulable=True) for node in pool.nodes)
    for gang in held:
        anew.take(*gang)
    for number, node in enumerate(pool.nodes):
        anew.put(node)
        if not pool.present >> number & 1:
            anew.drop(node.name)
    assert picture(pool)[:-2] == picture(anew)[:-2]
    assert all(
        pool.free_on(nodes) == anew.free_on(nodes)
        and pool.largest_on(nodes) == anew.largest_on(nodes)
        and pool.node_size(nodes) == anew.node_size(nodes)
        for nodes in range(64)
    )


def test_what_happens_to_a_copy_does_not_reach_the_pool():
    pool = Pool(cluster("1x8 1x4"))
    pool.take(Shape(gpus=4), (Piece(0, 4),))
    twin = pool.copy()
    twin.take(Shape(gpus=2), (Piece(1, 2),))
    twin.take(Shape(gpu_milli=500), (Piece(1, 0, 500, 0),))
    twin.give(Shape(gpus=4), (Piece(0, 4),))
    assert pool.free == [4, 4]
    assert [sum(held) for held in pool.sizes_held] == [1, 0]
    assert not any(pool.open)
    assert pool.free_gpus == 8
