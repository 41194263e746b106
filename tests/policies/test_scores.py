"""Placements by score: scores by hand, hand-made pictures, and what their memory of a pool must not change."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import GB, cluster, job, trace
from gpusched.cluster.backend import Node
from gpusched.cluster.pool import Pool
from gpusched.jobs.errors import NotFoundError
from gpusched.jobs.job import Piece, Placement, Shape
from gpusched.policies.catalog import load
from gpusched.policies.fragmentation import PUBLISHED, TaskClass, classes_of
from gpusched.policies.greedy import Greedy
from gpusched.policies.place import PLACERS
from gpusched.policies.placers import SCORED, Chance, Fgd, Scored, scores
from gpusched.policies.placers.rooms import Largest, Room
from gpusched.policies.testing import check_policy
from gpusched.policies.testing.world import picture
from gpusched.scheduler.simulate import simulate

BIG = Node("big", 8, "G2", 96_000, 384 * GB)
SMALL = Node("small", 2, "T4", 64_000, 256 * GB)
LARGEST = Largest(128_000, 8_000, 512 * GB)


def put(pool: Pool, number: int, gpus: int = 0, *, milli: int = 0, slot: int = 0, cpus: int = 0) -> None:
    """Something runs on a node."""
    shape = Shape(1, gpus, milli, (), 1000 * cpus)
    pool.take(shape, (Piece(number, gpus, milli, slot if milli else -1),))


def node_of(name: str, words: str, pool: Pool) -> str:
    """The one node that a job goes to."""
    shape = job(words).shape
    before = picture(pool)
    placement = PLACERS[name](shape, pool, pool.allowed(shape)[0])
    assert picture(pool) == before, "a placer leaves the pool as it found it"
    assert placement is not None
    return pool.nodes[placement[0].node].name


# Scores, computed by hand -------------------------------------------------------------------------------------------


def room(node: Node, gpus: int = 0, cpus: int = 0, parts: tuple[int, ...] = ()) -> Room:
    """A node on which one piece holds so many GPUs and CPUs, and GPUs are shared with so much taken of each."""
    pool = Pool([node])
    put(pool, 0, gpus, cpus=cpus)
    for slot, part in enumerate(parts):
        put(pool, 0, milli=part, slot=slot)
    return Room(pool, 0)


@pytest.mark.parametrize(
    ("score", "on", "asks", "is_"),
    [
        # CPUs left (96 - 40 - 8) / 128 = 0.375, GPUs left (8 - 3 - 1) / 8 = 0.5: 1 - 0.1875 - 0.25 = 0.5625
        (scores.best_fit, room(BIG, 3, 40), Shape(1, 1, cpu_milli=8_000), 56),
        (scores.worst_fit, room(BIG, 3, 40), Shape(1, 1, cpu_milli=8_000), 43),
        # a half GPU: GPUs left (8 - 0.5 - 0.5) / 8
        (scores.best_fit, room(BIG, parts=(500,)), Shape(1, 0, 500), 18),
        # 56/128 x 8/128 + 5/8 x 1/8 = 0.02734 + 0.07813; half of it is 0.05273
        (scores.dot_product, room(BIG, 3, 40), Shape(1, 1, cpu_milli=8_000), 94),
        # memory counts: (8/128 x 56/128 + 1/8 x 5/8 + 64/512 x 384/512) / 3 = 0.0664
        (scores.tetris, room(BIG, 3, 40), Shape(1, 1, cpu_milli=8_000, memory=64 * GB), 6),
        # used after: CPUs 48/96, GPUs 4/8, memory 96/384: mean 0.41667, deviation 0.11785
        (scores.most_allocated, room(BIG, 3, 40), Shape(1, 1, cpu_milli=8_000, memory=96 * GB), 41),
        (scores.balanced, room(BIG, 3, 40), Shape(1, 1, cpu_milli=8_000, memory=96 * GB), 88),
        # packing: a GPU with 45 % free is shared: 100 - 4; two free GPUs of a used node: 50 - 2; an idle node: 33 - 8
        (scores.gpu_packing, room(BIG, parts=(550,)), Shape(1, 0, 300), 96),
        (scores.gpu_packing, room(BIG, parts=(550,)), Shape(1, 0, 500), 49),
        (scores.gpu_packing, room(BIG, 1), Shape(1, 2), 48),
        (scores.gpu_packing, room(BIG), Shape(1, 0, 300), 25),
        (scores.gpu_packing, room(BIG, cpus=50), Shape(1, 1), 25),
        (scores.gpu_packing, room(BIG), Shape(1, cpu_milli=1_000), 0),
        # clustering: 25 x GPUs in use / 8, on top of 75 the same alone, 50 among others, 25 none there, 0 others alone
        (scores.gpu_clustering, room(BIG, 2), Shape(1, 2), 81),
        (scores.gpu_clustering, room(BIG, 2, parts=(500,)), Shape(1, 2), 57),
        (scores.gpu_clustering, room(BIG, 2, parts=(500,)), Shape(1, 0, 250), 57),
        (scores.gpu_clustering, room(BIG), Shape(1, 2), 25),
        (scores.gpu_clustering, room(SMALL), Shape(1, 2), 43),
        (scores.gpu_clustering, room(BIG, 4), Shape(1, 2), 12),
        (scores.gpu_clustering, room(BIG, 4), Shape(1, cpu_milli=1_000), 0),
    ],
)
def test_a_score_is_what_it_is_by_hand(score, on, asks, is_):
    assert score(on, asks, LARGEST) == is_


def test_a_dimension_that_no_node_has_does_not_count():
    bare = Room(Pool([Node("n", 4)]), 0)
    for score in (scores.best_fit, scores.worst_fit, scores.dot_product, scores.tetris, scores.balanced):
        assert 0 <= score(bare, Shape(1, 1), Largest(0, 4_000, 0)) <= 100
    assert scores.most_allocated(bare, Shape(1, 1), Largest(0, 4_000, 0)) == 25


# Nodes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("placer", "goes"),
    [
        ("vector_best_fit", "n1"),  # fewest CPUs and GPUs left over
        ("vector_worst_fit", "n0"),
        ("most_allocated", "n1"),
        ("dot_product", "n1"),
        ("tetris", "n0"),
        ("gpu_packing", "n1"),  # n0 is idle
        ("gpu_clustering", "n2"),  # a 1-GPU job runs there
    ],
)
def test_where_one_gpu_goes(placer, goes):
    """n0 idle; n1 has a 4-GPU job with 32 CPUs; n2 a 1-GPU job."""
    pool = Pool(cluster("3x8+64cpu"))
    put(pool, 1, 4, cpus=32)
    put(pool, 2, 1, cpus=4)
    assert node_of(placer, "1 GPU, 4 CPUs", pool) == goes


def test_balanced_fills_what_is_least_in_use():
    """n0 has CPUs in use, n1 GPUs: a job of many CPUs balances n1."""
    pool = Pool(cluster("2x8+64cpu"))
    put(pool, 0, 0, cpus=32)
    put(pool, 1, 4, cpus=0)
    assert node_of("balanced", "1 GPU, 32 CPUs", pool) == "n1"


def test_equal_nodes_go_to_the_smallest_name_not_the_lowest_number():
    pool = Pool([Node("b", 8), Node("c", 8), Node("a", 8)])
    assert node_of("vector_best_fit", "1 GPU", pool) == "a"
    assert node_of("fgd", "1 GPU", pool) == "a"


@pytest.mark.parametrize("placer", ["vector_best_fit", "gpu_packing", "tetris", "dot_product"])
def test_a_part_of_a_gpu_goes_to_the_gpu_with_the_least_sufficient_part(placer):
    pool = Pool(cluster("1x4"))
    put(pool, 0, milli=300, slot=0)
    put(pool, 0, milli=600, slot=1)
    assert PLACERS[placer](Shape(1, 0, 400), pool, 1) == (Piece(0, 0, 400, 1),)
    assert PLACERS[placer](Shape(1, 0, 500), pool, 1) == (Piece(0, 0, 500, 0),)
    assert PLACERS[placer](Shape(1, 0, 800), pool, 1) == (Piece(0, 0, 800, 2),)


@pytest.mark.parametrize("placer", SCORED)
def test_a_gang_goes_whole_or_not_at_all_and_apart_when_it_asks(placer):
    pool = Pool(cluster("2x4"))
    put(pool, 0, 1)
    place = PLACERS[placer]
    assert Counter(piece.node for piece in placed(place, Shape(3, 2), pool)) == {0: 1, 1: 2}
    assert {piece.node for piece in placed(place, Shape(2, 1, distinct=True), pool)} == {0, 1}
    assert place(Shape(4, 2), pool, pool.up) is None
    assert place(Shape(3, 1, distinct=True), pool, pool.up) is None


@pytest.mark.parametrize("placer", SCORED)
def test_a_total_takes_whole_nodes_and_puts_the_rest_on_one_further_node(placer):
    pool = Pool(cluster("3x4 1x8"))
    place = PLACERS[placer]
    assert len(placed(place, Shape(0, 8), pool)) == 1  # one node holds it
    put(pool, 3, 1)
    assert place(Shape(0, 8), pool, pool.up) is None  # it stays whole
    assert [piece.gpus for piece in placed(place, Shape(0, 10), Pool(cluster("1x4 2x8")))] == [8, 2]


def placed(place, shape: Shape, pool: Pool) -> Placement:
    found = place(shape, pool, pool.up)
    assert found is not None
    pool.take(shape, found)  # it can be done
    pool.give(shape, found)
    return found


# Chance --------------------------------------------------------------------------------------------------------------


def test_chance_reaches_every_node_and_every_gpu_about_as_often():
    pool = Pool(cluster("4x2"))
    put(pool, 2, milli=500, slot=0)
    seen = Counter(Chance(seed)(Shape(1, 0, 100), pool, pool.up)[0] for seed in range(4000))
    nodes = Counter(piece.node for piece in seen.elements())
    assert all(abs(count - 1000) < 100 for count in nodes.values())
    on_shared = {piece.slot: count for piece, count in seen.items() if piece.node == 2}
    assert on_shared.keys() == {0, 1}
    assert all(abs(count - 500) < 80 for count in on_shared.values())


def test_the_same_question_has_the_same_answer_and_a_changed_cluster_another_draw():
    def walk(seed: int) -> list[int]:
        pool = Pool(cluster("8x8"))
        place = Chance(seed)
        went = []
        for _ in range(20):
            found = place(Shape(1, 1), pool, pool.up)
            assert place(Shape(1, 1), pool, pool.up) == found
            pool.take(Shape(1, 1), found)
            went.append(found[0].node)
        return went

    assert walk(1) == walk(1) != walk(2)
    assert len(set(walk(1))) > 4


def test_random_ties_choose_among_the_best_only():
    pool = Pool(cluster("4x8"))
    put(pool, 1, 4)
    put(pool, 3, 4)
    goes = {Scored(scores.best_fit, ties="random", seed=seed)(Shape(1, 1), pool, pool.up)[0].node for seed in range(50)}
    assert goes == {1, 3}


# FGD -----------------------------------------------------------------------------------------------------------------


def test_fgd_keeps_whole_gpus_for_those_that_need_them():
    """All tasks ask for whole nodes of 2 GPUs: a job of 1 GPU goes where one is in use, which is lost already."""
    pool = Pool(cluster("3x2"))
    put(pool, 1, 1)
    fgd = Fgd((TaskClass(1, 0, 2, 1000),))
    assert fgd(Shape(1, 1), pool, pool.up) == (Piece(1, 1),)


def test_fgd_tries_every_gpu_for_a_part():
    """Tasks of 0.6 GPU: 0.4 of the GPU with 0.4 free makes no new fragment, of one with 0.9 free it does."""
    pool = Pool(cluster("1x4"))
    put(pool, 0, milli=100, slot=0)
    put(pool, 0, milli=600, slot=1)
    fgd = Fgd((TaskClass(1, 0, 1, 600),))
    assert fgd(Shape(1, 0, 400), pool, 1) == (Piece(0, 0, 400, 1),)


def test_fgds_score_is_the_authors_by_hand():
    """A node of 2 GPUs, tasks of 2 GPUs: with 1 GPU gone the other is a fragment. sigmoid(0 - 1) = 0.2689."""
    fgd = Fgd((TaskClass(1, 0, 2, 1000),))
    idle = Room(Pool([Node("n", 2)]), 0)
    assert fgd.score(idle, Shape(1, 1), Largest(0, 2000, 0)) == 26
    assert fgd.score(idle, Shape(1, 2), Largest(0, 2000, 0)) == 50  # nothing changes
    taken = Pool([Node("n", 2)])
    put(taken, 0, 1)
    assert fgd.score(Room(taken, 0), Shape(1, 1), Largest(0, 2000, 0)) == 73  # a fragment is put to use


def test_fgd_expects_what_it_is_told_unless_it_was_made_with_classes():
    told = Greedy("mine", place=Fgd())
    told.expect([Shape(1, 2), Shape(1, 2), Shape(0, 10)], 8)
    assert told._place.metric.classes == (TaskClass(3, 0, 2, 1000), TaskClass(1, 0, 8, 1000))
    told.expect([Shape(1, 4)], 8)  # another trace
    assert told._place.metric.classes == (TaskClass(1, 0, 4, 1000),)
    own = (TaskClass(1, 0, 1, 1000),)
    kept = Greedy("mine", place=Fgd(own))
    kept.expect([Shape(1, 2)], 8)
    assert kept._place.metric.classes == own
    assert PLACERS["fgd"].metric.classes == PUBLISHED  # the menu's is nobody's


def test_a_simulation_tells_fgd_what_its_trace_asks_for():
    policy = load("arrival+fgd+skip")
    simulate(trace(job("2 GPUs for 10 s"), job("4 GPUs for 10 s"), job("2 GPUs for 10 s")), cluster("2x4"), policy)
    assert policy._place.metric.classes == (TaskClass(2, 0, 2, 1000), TaskClass(1, 0, 4, 1000))


# Memory --------------------------------------------------------------------------------------------------------------

SHAPES = [
    Shape(1, 1, cpu_milli=4_000),
    Shape(1, 2),
    Shape(1, 0, 300, cpu_milli=2_000, memory=8 * GB),
    Shape(1, 0, 700),
    Shape(2, 1),
    Shape(0, 10),
    Shape(1, cpu_milli=16_000),
]
_MINE = {
    **SCORED,
    "fgd of the shapes": Fgd(classes_of(SHAPES, 1.0)),
    "worst, random ties": Scored(scores.worst_fit, ties="random"),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(_MINE)),
    st.lists(st.tuples(st.sampled_from(SHAPES), st.integers(0, 3), st.booleans()), min_size=1, max_size=30),
)
def test_what_is_remembered_answers_as_one_that_starts_anew(name, steps):
    """Jobs come and go, a node is laid out anew: who saw it all agrees with who sees only the outcome."""
    nodes = cluster("2x8:A+64cpu+256gb 2x4:B+32cpu+128gb")
    place, pool, running = _MINE[name], Pool(nodes), []
    for shape, odd, leave in steps:
        if leave and running:
            pool.give(*running.pop(odd % len(running)))
        if odd == 3:
            pool.put(nodes[1])
        found = place(shape, pool, pool.up)
        anew = Pool(nodes)
        for held in running:
            anew.take(*held)
        # Slots are numbers of GPUs, so the new pool is the same down to them.
        assert picture(anew)[:4] == picture(pool)[:4]
        assert place(shape, anew, anew.up) == found
        if found is not None:
            pool.take(shape, found)
            running.append((shape, found))


def test_a_pool_that_nobody_asks_about_any_more_keeps_no_endless_trail():
    pool = Pool(cluster("2x4"))
    place = PLACERS["vector_best_fit"]
    assert place(Shape(1, 1), pool, pool.up) == (Piece(0, 1),)
    for _ in range(10_001):
        pool.take(Shape(1, 1), (Piece(0, 1),))
        pool.give(Shape(1, 1), (Piece(0, 1),))
    put(pool, 1, 3)
    assert pool.trail is None
    assert place(Shape(1, 1), pool, pool.up) == (Piece(1, 1),)
    assert pool.trail == []


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("blocking", ["skip", "strict"])
def test_a_placement_by_score_keeps_the_laws(name, blocking):
    check_policy(f"arrival+{name}+{blocking}", examples=25)


def test_ties_and_seed_are_options_in_a_policys_name():
    policy = load("arrival+fgd?ties=random&seed=4+skip")
    assert (policy._place.ties, policy._place.seed) == ("random", 4)
    assert load("arrival+random?seed=3+skip")._place.seed == 3
    with pytest.raises(NotFoundError, match="no option 'x'"):
        load("arrival+first_fit?x=1+skip")
    with pytest.raises(NotFoundError, match="ties is 'x'"):
        load("arrival+fgd?ties=x+skip")
