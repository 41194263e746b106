"""Where a gang goes, by hand-made pictures: a cluster in use, a job, and the nodes it gets."""

from __future__ import annotations

import pytest

from builders import cluster, job
from gpusched.cluster.pool import Pool
from gpusched.jobs.job import Piece, Shape
from gpusched.policies.place import PLACERS
from gpusched.policies.testing.world import picture


def pool(words: str, used: tuple[int, ...] = ()) -> Pool:
    """A pool in which so many GPUs of each node are in use."""
    made = Pool(cluster(words))
    for number, gpus in enumerate(used):
        made.take(Shape(1, gpus), (Piece(number, gpus),))
    return made


def where(placer: str, words: str, on: Pool) -> dict[str, float] | None:
    """GPUs by node, in rank order; None when it does not fit."""
    shape = job(words).shape
    before = picture(on)
    for nodes in on.allowed(shape):
        placement = PLACERS[placer](shape, on, nodes)
        if placement is not None:
            given: dict[str, float] = {}
            for piece in placement:
                name = on.nodes[piece.node].name
                given[name] = given.get(name, 0) + piece.gpus + piece.gpu_milli / 1000
            assert picture(on) == before, "a placer leaves the pool as it found it"
            return given
    return None


@pytest.mark.parametrize(
    ("placer", "goes"),
    [("first_fit", {"n0": 2}), ("best_fit", {"n2": 2}), ("spread", {"n1": 2}), ("count", {"n0": 2})],
)
def test_one_piece(placer, goes):
    """Free: 4, 6, 2. First fit the lowest number, best fit the least room, spread the most room."""
    assert where(placer, "2 GPUs", pool("3x8", (4, 2, 6))) == goes


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_equal_room_goes_to_the_lowest_number(placer):
    assert where(placer, "2 GPUs", pool("3x8", (4, 4, 4))) == {"n0": 2}


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_what_does_not_fit_one_node_waits_although_enough_is_free(placer):
    assert where(placer, "6 GPUs", pool("3x8", (4, 4, 4))) is None
    assert where(placer, "6 GPUs in total", pool("3x8", (4, 4, 4))) is None


@pytest.mark.parametrize(
    ("placer", "goes"),
    [
        ("first_fit", {"n1": 8, "n0": 4}),  # the lowest-numbered other node with room
        ("best_fit", {"n1": 8, "n3": 4}),  # the other node with most GPUs free
        ("spread", {"n1": 8, "n3": 4}),
    ],
)
def test_a_total_over_one_node_takes_whole_idle_nodes_and_one_remainder(placer, goes):
    """Free: 4, 8, 5, 8."""
    assert where(placer, "12 GPUs in total", pool("4x8", (4, 0, 3, 0))) == goes


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_whole_nodes_must_be_idle(placer):
    assert where(placer, "16 GPUs in total", pool("3x8", (1, 0, 0))) == {"n1": 8, "n2": 8}
    assert where(placer, "16 GPUs in total", pool("3x8", (1, 1, 0))) is None


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_eight_gpus_span_two_nodes_of_four(placer):
    assert where(placer, "8 GPUs in total", pool("3x4", (1, 0, 0))) == {"n1": 4, "n2": 4}
    assert where(placer, "8 GPUs in total", pool("3x4", (1, 0, 1))) is None


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_the_remainder_never_shares_a_node_with_the_whole_part(placer):
    assert where(placer, "12 GPUs in total", pool("1x8 1x4", (0, 1))) is None
    assert where(placer, "11 GPUs in total", pool("1x8 1x4", (0, 1))) == {"n0": 8, "n1": 3}


def test_count_cuts_a_total_wherever_gpus_are_free_and_nothing_else():
    assert where("count", "12 GPUs in total", pool("3x8", (4, 4, 4))) == {"n0": 4, "n1": 4, "n2": 4}
    assert where("count", "13 GPUs in total", pool("3x8", (4, 4, 4))) is None
    assert where("count", "6 GPUs", pool("3x8", (4, 4, 4))) is None
    assert where("count", "3x4 GPUs", pool("3x8", (4, 4, 4))) == {"n0": 4, "n1": 4, "n2": 4}


@pytest.mark.parametrize(
    ("placer", "goes"),
    [
        ("first_fit", {"n0": 2, "n1": 4}),
        ("best_fit", {"n2": 6}),
        ("spread", {"n2": 2, "n1": 2, "n0": 2}),
    ],
)
def test_a_gang_of_three_pieces(placer, goes):
    """Free: 3, 5, 7. Best fit keeps it on one node; spread gives each piece a node of its own."""
    assert where(placer, "3x2 GPUs", pool("3x8", (5, 3, 1))) == goes


def test_best_fit_takes_the_fewest_nodes_and_then_the_tightest():
    assert where("best_fit", "4x2 GPUs", pool("4x8", (4, 0, 2, 4))) == {"n1": 8}
    assert where("best_fit", "4x2 GPUs", pool("4x8", (4, 2, 2, 4))) == {"n1": 6, "n0": 2}
    assert where("best_fit", "2x4 GPUs", pool("3x8", (4, 3, 4))) == {"n0": 4, "n2": 4}


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_pieces_that_stay_apart(placer):
    assert where(placer, "2x2 GPUs, apart", pool("2x8", (0, 4))) in ({"n0": 2, "n1": 2}, {"n1": 2, "n0": 2})
    assert where(placer, "3x2 GPUs, apart", pool("2x8")) is None


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_cpus_and_memory_count_too(placer):
    small_first = pool("1x8+2cpu+64gb 1x8+64cpu+8gb 1x8+64cpu+64gb")
    assert where(placer, "1 GPU, 4 CPUs", small_first) in ({"n1": 1}, {"n2": 1})
    assert where(placer, "1 GPU, 4 CPUs, 16 GB", small_first) == {"n2": 1}
    assert where(placer, "2x1 GPU, 40 CPUs, 8 GB", small_first) in ({"n1": 1, "n2": 1}, {"n2": 1, "n1": 1})
    assert where(placer, "1 GPU, 65 CPUs", small_first) is None


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_a_job_without_gpus_goes_where_cpus_are(placer):
    assert where(placer, "no GPU, 8 CPUs", pool("1x8+4cpu 1x0+16cpu")) == {"n1": 0}


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_parts_of_a_gpu_fill_one_that_is_shared_already(placer):
    on = pool("2x2")
    on.take(Shape(1, 0, 600), (Piece(1, 0, 600, 0),))
    assert where(placer, "0.4 GPU", on) == {"n1": 0.4}
    shape = Shape(1, 0, 400)
    placement = PLACERS[placer](shape, on, on.up)
    assert placement == (Piece(1, 0, 400, 0),)
    on.take(shape, placement)
    assert on.free == [2, 1]
    assert PLACERS[placer](Shape(1, 0, 100), on, on.up)[0].gpu_milli == 100  # the next one opens another


def test_the_fullest_shared_gpu_that_has_room_is_filled_first():
    on = pool("1x3")
    for slot, milli in enumerate((500, 700, 200)):
        on.take(Shape(1, 0, milli), (Piece(0, 0, milli, slot),))
    assert PLACERS["best_fit"](Shape(1, 0, 300), on, on.up) == (Piece(0, 0, 300, 1),)
    assert PLACERS["best_fit"](Shape(1, 0, 400), on, on.up) == (Piece(0, 0, 400, 0),)


@pytest.mark.parametrize("placer", ["first_fit", "best_fit"])
def test_a_gang_of_parts_shares_gpus(placer):
    assert where(placer, "4x0.5 GPU", pool("2x2", (1, 0))) in ({"n1": 2.0}, {"n0": 1.0, "n1": 1.0})
    assert where("best_fit", "4x0.5 GPU", pool("2x2", (1, 0))) == {"n1": 2.0}
    assert where(placer, "4x0.6 GPU", pool("2x2", (1, 0))) is None


@pytest.mark.parametrize("placer", PLACERS)
def test_withheld_nodes_are_not_used_and_change_no_rule(placer):
    """A total that fits an 8-GPU node is not cut over the 4-GPU nodes because the large one is withheld."""
    on = pool("1x8 2x4")
    assert PLACERS[placer](Shape(1, 4), on, 0b110)[0].node in ({1, 2} if "random" in placer else {1})
    if placer != "count":
        assert PLACERS[placer](Shape(0, 8), on, 0b110) is None


@pytest.mark.parametrize("placer", ["first_fit", "best_fit", "spread"])
def test_withheld_nodes_change_no_rule_for_jobs_that_ask_for_a_type_either(placer):
    on = pool("1x8:H100 2x4:H100 1x8:A100")
    total = job("8 H100 GPUs in total").shape
    assert PLACERS[placer](total, on, 0b0110) is None
    assert PLACERS[placer](total, on, 0b0111) == (Piece(0, 8),)


def test_of_two_shared_gpus_alike_the_first_is_filled_whatever_their_past():
    on = pool("1x4")
    for slot in (2, 0, 1):
        on.take(Shape(1, 0, 500), (Piece(0, 0, 500, slot),))
    assert PLACERS["best_fit"](Shape(1, 0, 300), on, on.up) == (Piece(0, 0, 300, 0),)


@pytest.mark.parametrize("placer", PLACERS)
def test_the_preferred_type_goes_first_and_types_are_not_mixed(placer):
    on = pool("2x4:A100 2x4:H100", (4, 0, 0, 0))
    assert where(placer, "2 H100|A100 GPUs", on) == {"n2": 2}
    assert where(placer, "2x4 A100|H100 GPUs", on) == {"n2": 4, "n3": 4}
    assert where(placer, "3x4 A100|H100 GPUs", on) is None
