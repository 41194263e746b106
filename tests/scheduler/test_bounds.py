"""Lower bounds of small cases that were worked out by hand, and of real traces."""

from __future__ import annotations

import os
import time
from fractions import Fraction
from pathlib import Path

import pytest

from builders import cluster, job, trace
from gpusched.cluster.inventory import read_cluster
from gpusched.jobs.errors import TraceError
from gpusched.jobs.traces.catalog import read_trace
from gpusched.policies.catalog import load
from gpusched.policies.place import count
from gpusched.scheduler.bounds import lower_bounds, verify
from gpusched.scheduler.bounds.instance import SECOND, WHOLE, Group, Item, instance
from gpusched.scheduler.bounds.squashed import height, mean_busy_times, squashed_srpt
from gpusched.scheduler.bounds.verify import exact_bound
from gpusched.scheduler.bounds.weights import dual_feasible, knapsack
from gpusched.scheduler.report import summarize
from gpusched.scheduler.simulate import simulate

TRACES = Path(os.environ.get("GPUSCHED_TRACES", ""))
real = pytest.mark.skipif("GPUSCHED_TRACES" not in os.environ, reason="GPUSCHED_TRACES names no folder of traces")


def items(*asks):
    """The items of jobs in words, on a cluster that is large enough for each."""
    return instance(trace(*asks).jobs, cluster("64x8")).items


def bounds(words, *asks, **options):
    return lower_bounds(trace(*asks), cluster(words), **options)


# Mean JCT ---------------------------------------------------------------------------------------------------------


def test_two_jobs_that_fill_the_cluster_end_one_after_the_other():
    """3 + 6 for SRPT and for mean busy times (1.5 + 4.5 + two halves of 3); each alone would take 3."""
    both = items(job("1 GPUs for 3 s"), job("1 GPUs for 3 s"))
    assert squashed_srpt(both, WHOLE) == 9 * SECOND
    assert mean_busy_times(both, WHOLE) == 9 * SECOND
    assert height(both) == 6 * SECOND


def test_srpt_preempts_for_a_shorter_job_that_arrives():
    """The long one works in [0, 2) and [3, 11), the short one in [2, 3)."""
    both = items(job("1 GPUs for 10 s"), job("1 GPUs for 1 s", at=2))
    assert squashed_srpt(both, WHOLE) == (11 + 3) * SECOND


def test_srpt_does_not_preempt_for_a_job_that_is_longer_than_what_is_left():
    both = items(job("1 GPUs for 10 s"), job("1 GPUs for 5 s", at=6))
    assert squashed_srpt(both, WHOLE) == (10 + 15) * SECOND


def test_mean_busy_times_preempt_by_the_whole_area_not_by_what_is_left():
    """The job of 5 runs [6, 11), the one of 10 runs [0, 6) and [11, 15): (18 + 52)/10 + 5 and 8.5 + 2.5."""
    both = items(job("1 GPUs for 10 s"), job("1 GPUs for 5 s", at=6))
    assert mean_busy_times(both, WHOLE) == (7 + 5 + 11) * SECOND


def test_without_release_times_mean_busy_times_are_squashed_area_plus_half_of_height_less_half_of_work():
    """Turek, Schwiegelshohn and others: A + H/2 - W/2, here on 8 GPUs with areas 8, 24 and 64 one after the other."""
    three = items(job("2 GPUs for 4 s"), job("8 GPUs for 3 s"), job("4 GPUs for 16 s"))
    squashed = 1 + 4 + 12
    assert mean_busy_times(three, 8 * WHOLE) == Fraction(2 * squashed + (4 + 3 + 16) - (1 + 3 + 8), 2) * SECOND


def test_a_narrow_job_is_bounded_by_its_height_and_not_by_its_area():
    found = bounds("1x8", job("1 GPUs for 80 s"))
    assert found.jct_by_name["L1"] == 10
    assert found.jct_by_name["L2"] == 80
    assert found.jct_by_name["L3"] == 45
    assert found.jct == found.jct_by_name["L2"]


def test_the_price_bound_sees_what_neither_area_nor_height_sees():
    """For narrow jobs that come one by one height is right, for a burst of wide ones area: each is right for a part.

    A hundred narrow jobs take 1000 s each, five wide ones end after 1000, 2000, ... 5000 s.
    """
    narrow = [job("1 GPUs for 1000 s", at=10_000 * number) for number in range(100)]
    found = bounds("1x8", *narrow, *[job("8 GPUs for 1000 s", at=1_500_000)] * 5)
    best = (100 * 1000 + 15_000) / 105
    assert 0.99 * best < found.jct_by_name["L5"] <= best
    assert max(found.jct_by_name[name] for name in ("L1", "L2", "L3")) < 0.95 * best
    assert found.jct == found.jct_by_name["L5"]


def test_prices_of_two_slots_prove_what_they_prove_on_paper():
    """Two jobs of 3 s on one GPU, price 1 in the first 3 s: each pays 3.75, the GPU costs 3, and half of 6 s is added.

    A job takes half of its time in each slot: twice the integral of 1 + t/3 over [0, 1.5), 2 x 1.875.
    """
    whole = instance(trace(*[job("1 GPUs for 3 s")] * 2).jobs, cluster("1x1"))
    price = 1_000_000_000
    assert exact_bound(whole, (0, 3 * SECOND), (((0,), (price,)),)) == Fraction(2 * 3750 - 3000 + 3000, 2000)
    assert exact_bound(whole, (0, 3 * SECOND), (((0,), (0,)),)) == 3  # no price proves the height
    assert exact_bound(whole, (0, 3 * SECOND), ()) == 3


def test_the_price_bound_comes_near_the_optimum_of_its_relaxation():
    """Two jobs of 3000 s on one GPU: 4500 s is what the relaxation allows, and what a schedule reaches."""
    found = bounds("1x1", *[job("1 GPUs for 3000 s")] * 2)
    assert 4450 < found.jct_by_name["L5"] <= 4500
    assert found.jct == found.jct_by_name["L1"] == 4500


def test_jobs_without_gpus_count_with_their_run_time():
    found = bounds("1x1", job("no GPU for 7 s"), job("1 GPUs for 5 s"), job("no GPU for 9 s"))
    assert found.jct == 7
    assert bounds("1x1", job("no GPU for 7 s")).jct_by_name["L5"] == pytest.approx(7)


def test_a_share_of_a_gpu_is_a_share_of_its_time():
    found = bounds("1x1", *[job("0.5 GPU for 10 s")] * 4)
    assert found.jct_by_name["L1"] == (5 + 10 + 15 + 20) / 4
    assert found.makespan == 20


def test_a_limit_ends_a_job():
    assert bounds("1x1", job("1 GPUs for 100 s, limit 10 s")).jct == 10


def test_the_bounds_of_quantiles_are_those_of_run_times():
    found = bounds("8x8", *[job(f"1 GPUs for {seconds} s") for seconds in range(1, 101)])
    assert found.jct_quantiles == {"p50": 51, "p90": 90, "p99": 99}


def test_parts_of_a_second_are_kept_to_the_microsecond_and_never_rounded_up():
    (item,) = items(job("1 GPUs for 0.1234567 s"))
    assert item.length == 123_456


# Which jobs, which part of the cluster ------------------------------------------------------------------------------


def test_what_no_node_could_hold_is_left_out_and_named():
    found = bounds("2x8", job("2 GPUs for 4 s"), job("9 GPUs for 1000 s"), job("4 H100 GPUs for 1000 s"))
    assert (found.jobs, found.left_out, found.jct) == (1, (1, 2), 4)


def test_the_placer_says_what_the_cluster_could_hold():
    asks = [job("5 GPUs in total for 4 s")]
    assert bounds("2x2 1x1", *asks).left_out == bounds("2x2 1x1", *asks, place=count).left_out == ()
    assert bounds("1x4 3x1", *asks, place=count).jobs == 1
    assert bounds("1x4 3x2", job("7 GPUs in total for 4 s"), place=count).jobs == 1


def test_nothing_to_bound_is_no_bound():
    found = bounds("1x1", job("2 GPUs"))
    assert (found.jobs, found.jct, found.makespan, found.certificate) == (0, None, None, None)
    assert lower_bounds([], cluster("1x1")).jct is None


def test_without_nodes_there_is_one_clear_message():
    with pytest.raises(TraceError, match="no nodes"):
        lower_bounds([], [])


def test_jobs_bound_to_a_type_wait_for_its_gpus_though_others_idle():
    """Four jobs for 4 H100s end after 400, 800, 1200 and 1600 s; the fifth needs 400 s elsewhere: 880 s on average."""
    found = bounds("1x4:H100 2x4:A100", *[job("4 H100 GPUs for 400 s")] * 4, job("4 GPUs for 400 s"))
    assert max(found.jct_by_name[name] for name in ("L1", "L2", "L3")) < 600
    assert 860 < found.jct <= 880
    assert found.makespan == 1600
    assert verify(found.certificate, trace(*[job("4 H100 GPUs for 400 s")] * 4, job("4 GPUs for 400 s")).jobs)


def test_labels_bind_as_types_do():
    found = bounds("1x4@rack=a 3x4@rack=b", *[job("4 GPUs for 100 s, rack=a")] * 3)
    assert found.makespan == 300


def test_types_are_told_apart_whatever_their_case():
    assert bounds("1x4:h100 3x4:A100", *[job("4 H100 GPUs for 100 s")] * 3).makespan == 300


def test_a_piece_fits_no_smaller_node():
    """Pieces of 8 GPUs go to the one node of 8, though 16 more GPUs are there."""
    assert bounds("1x8 4x4", *[job("8 GPUs for 100 s")] * 3).makespan == 300


def test_a_job_counts_at_the_best_rate_that_it_may_have():
    rates = {"H100": 2.0, "A100": 0.5}
    assert bounds("1x4:H100 1x4:A100", job("4 GPUs for 10 s"), rates=rates).jct == 5
    assert bounds("1x4:H100 1x4:A100", job("4 A100 GPUs for 10 s"), rates=rates).jct == 20
    assert bounds("1x4:A100", job("4 GPUs for 10 s"), rates=rates).jct == 20
    assert bounds("1x4:V100", job("4 GPUs for 10 s"), rates=rates).jct == 10


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(TraceError, match="'H100' is 0"):
        bounds("1x4:H100", job("4 GPUs"), rates={"H100": 0})


# Makespan -----------------------------------------------------------------------------------------------------------


def test_the_makespan_is_at_least_the_longest_job_and_at_least_the_work():
    assert bounds("1x4", job("1 GPUs for 30 s", at=5), *[job("4 GPUs for 10 s")] * 2).makespan == 35
    found = bounds("1x4", job("1 GPUs for 30 s", at=5), *[job("2 GPUs for 10 s")] * 8)
    assert found.makespan_by_name["longest"] == 35
    assert found.makespan_by_name["area"] == (30 + 160) / 4


def test_what_cannot_have_run_before_is_work_for_after():
    """At 8 s the first job has 2 s left at least, and 2 GPUs for 5 s arrive: 8 + (2 + 10) / 2."""
    found = bounds("1x2", job("1 GPUs for 10 s"), job("2 GPUs for 5 s", at=8))
    assert found.makespan_by_name == {"longest": 13, "area": 14, "wide": 14, "nodes": 14}


def test_the_makespan_counts_from_the_first_job_that_is_bounded():
    assert bounds("1x2", job("2 GPUs for 5 s", at=100), job("2 GPUs for 5 s", at=100)).makespan == 10


def test_gangs_wider_than_half_of_the_cluster_run_one_after_the_other():
    found = bounds("1x8", *[job("5 GPUs for 10 s")] * 3)
    assert found.makespan_by_name["area"] == 150 / 8
    assert found.makespan_by_name["wide"] == 30


def test_gangs_wider_than_half_of_a_node_take_a_node_each():
    found = bounds("2x8", *[job("5 GPUs for 10 s")] * 4)
    assert found.makespan_by_name["area"] == 12.5
    assert found.makespan_by_name["nodes"] == 20


def test_gangs_of_whole_nodes_count_beside_gangs_within_nodes():
    """Two nodes: a gang of two whole nodes for 10 s, and three of 5 GPUs that take 3 x 10 s of a node."""
    found = bounds("2x8", job("2x8 GPUs for 10 s"), *[job("5 GPUs for 10 s")] * 3)
    assert found.makespan_by_name["nodes"] == 10 + 15


def test_nodes_of_several_sizes_hold_what_they_hold():
    """A node of 4 holds one gang of 3 and a node of 8 two: 3 at a time, though 12 GPUs are four times 3."""
    found = bounds("1x8 1x4", *[job("3 GPUs for 10 s")] * 9)
    assert found.makespan_by_name["area"] == pytest.approx(22.5)
    assert found.makespan_by_name["nodes"] == 30


def test_totals_that_a_policy_may_cut_are_not_rounded_up_to_nodes():
    found = bounds("2x8", *[job("5 GPUs in total for 10 s")] * 4)
    assert found.makespan_by_name["area"] == 12.5
    assert found.makespan == pytest.approx(40 / 3)  # of 16 GPUs no more than three can have 5 at a time
    assert "nodes" not in found.makespan_by_name


@pytest.mark.parametrize("whole", [7, 8, 16])
def test_a_dual_feasible_function_never_finds_more_than_one_cluster_in_one_cluster(whole):
    """Over every way to fill the cluster."""
    for scale, weight in dual_feasible(set(range(1, whole + 1)), whole):
        best = [0] * (whole + 1)
        for used in range(1, whole + 1):
            best[used] = max(best[used - size] + weight(size) for size in range(1, used + 1))
        assert best[whole] <= scale * whole


def test_a_half_weighs_a_half_and_more_weighs_all():
    scale, weight = next(dual_feasible({3, 4, 5}, 8))
    assert [weight(size) / (scale * 8) for size in (3, 4, 5, 8)] == [0, 0.5, 1, 1]


def test_a_knapsack_fills_what_pieces_leave():
    assert knapsack({5: 8}, 8, 0) == 8
    assert knapsack({5: 8}, 8, 1) == 11
    assert knapsack({3: 4, 5: 8}, 8, 0) == 12


def test_a_total_weighs_its_gpus_and_a_share_its_thousandths():
    whole = instance(trace(job("12 GPUs in total"), job("3x0.25 GPU"), job("2x4 GPUs")).jobs, cluster("2x8:T4"))
    assert [item.gpus for item in whole.items] == [12_000, 750, 8_000]
    assert whole.groups == (Group(2, 8, "T4", ()),)
    assert isinstance(whole.items[0], Item)


# Real traces --------------------------------------------------------------------------------------------------------


@real
def test_on_the_venus_trace_the_price_bound_is_the_best_and_below_every_policy():
    read = read_trace(TRACES / "helios-venus-2020" / "venus_gpu_jobs_2020-03-18_2020-06-30.csv.gz")
    nodes = read_cluster("54x8")
    begun = time.process_time()
    found = lower_bounds(read.jobs, nodes)
    assert time.process_time() - begun < 60
    assert found.jobs == 54_803
    assert found.jct == found.jct_by_name["L5"] > 1.3 * found.jct_by_name["L3"]
    assert float(verify(found.certificate, read.jobs)) == pytest.approx(found.jct, rel=1e-8)
    for name in ("gang", "shortest+best_fit+skip"):
        summary = summarize(simulate(read, nodes, load(name)))
        assert summary.jct.mean >= found.jct
        assert summary.makespan >= found.makespan
