"""No schedule beats a lower bound: not the best one by brute force, not any that a policy makes."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from builders import Ask, cluster, job, trace
from gpusched.jobs.job import Shape
from gpusched.policies.catalog import CATALOG, load
from gpusched.scheduler.bounds import lower_bounds, verify
from gpusched.scheduler.bounds.instance import SECOND, WHOLE, instance
from gpusched.scheduler.bounds.prices import Market, answer
from gpusched.scheduler.bounds.squashed import mean_busy_times, squashed_srpt
from gpusched.scheduler.bounds.verify import PRICE, exact_bound
from gpusched.scheduler.report import summarize
from gpusched.scheduler.simulate import simulate

EVEN = 1 + 1e-9
"""What floating point may add to a bound that a schedule meets exactly."""

# Brute force --------------------------------------------------------------------------------------------------------


def best_schedules(asks, fits):
    """(least sum of JCT, least last end) over all schedules that start and preempt at whole seconds.

    `fits(running)` says which jobs (indices, ascending) may run at the same time. Running more never hurts.
    """
    release = [ask.at for ask in asks]

    @cache
    def best(now, left):
        if not any(left):
            return 0, now
        live = [number for number in range(len(asks)) if left[number] and release[number] <= now]
        if not live:
            return best(min(release[number] for number in range(len(asks)) if left[number]), left)
        sets = [some for size in range(len(live), 0, -1) for some in combinations(live, size) if fits(some)]
        found = [
            best(now + 1, tuple(rest - (number in some) for number, rest in enumerate(left)))
            for some in sets
            if not any(set(some) < set(other) for other in sets)
        ]
        return len(live) + min(jct for jct, _ in found), min(end for _, end in found)

    return best(0, tuple(ask.lasts for ask in asks))


def small_jobs(most_gpus, *, most=5):
    one = st.builds(
        lambda gpus, lasts, at: job(f"{gpus} GPUs for {lasts} s", at=at),
        st.integers(1, most_gpus),
        st.integers(1, 4),
        st.integers(0, 5),
    )
    return st.lists(one, min_size=1, max_size=most).map(lambda asks: sorted(asks, key=lambda ask: ask.at))


def check_against_optimum(asks, nodes, fits):
    found = lower_bounds(trace(*asks), cluster(nodes))
    assert found.jobs == len(asks)
    jct, end = best_schedules(asks, fits)
    for name, bound in found.jct_by_name.items():
        assert bound * len(asks) <= jct * EVEN, name
    for form, bound in found.makespan_by_name.items():
        assert bound <= (end - asks[0].at) * EVEN, form
    return found, jct


@given(small_jobs(4))
@settings(max_examples=120, deadline=None)
def test_no_preemptive_schedule_in_whole_seconds_beats_a_bound(asks):
    sizes = [ask.shape.gpus for ask in asks]
    check_against_optimum(asks, "1x4", lambda some: sum(sizes[number] for number in some) <= 4)


@given(small_jobs(4))
@settings(max_examples=80, deadline=None)
def test_jobs_that_fill_the_cluster_meet_the_first_bound_exactly(asks):
    """On one machine SRPT is the best schedule, and with whole times it needs no parts of a second."""
    wide = [Ask(Shape(1, 4), ask.lasts, ask.at) for ask in asks]
    found, jct = check_against_optimum(wide, "1x4", lambda some: len(some) <= 1)
    assert found.jct_by_name["L1"] * len(wide) == pytest.approx(jct)


@given(small_jobs(4))
@settings(max_examples=80, deadline=None)
def test_no_schedule_of_gangs_that_fit_their_nodes_beats_a_bound(asks):
    """Two nodes of 4 and 3 GPUs; each gang on one node, which it may change every second for nothing."""
    sizes = [ask.shape.gpus for ask in asks]

    def fits(some):
        return any(
            sum(sizes[one] for one, there in zip(some, where, strict=True) if there) <= 3
            and sum(sizes[one] for one, there in zip(some, where, strict=True) if not there) <= 4
            for where in product((False, True), repeat=len(some))
        )

    check_against_optimum(asks, "1x4 1x3", fits)


@given(small_jobs(2), st.lists(st.sampled_from(["", "A", "B"]), min_size=5, max_size=5))
@settings(max_examples=80, deadline=None)
def test_no_schedule_of_jobs_bound_to_types_beats_a_bound(asks, kinds):
    """Two GPUs of one type and three of another: what runs must be spread over the types that it may use."""
    asks = [
        Ask(Shape(1, ask.shape.gpus, gpu_types=(kind,) if kind else ()), ask.lasts, ask.at)
        for ask, kind in zip(asks, kinds, strict=False)
    ]

    def fits(some):
        return any(
            all(asks[one].shape.gpu_types in ((), (kind,)) for one, kind in zip(some, where, strict=True))
            and all(
                sum(asks[one].shape.gpus for one, kind in zip(some, where, strict=True) if kind == each) <= there
                for each, there in (("A", 2), ("B", 3))
            )
            for where in product("AB", repeat=len(some))
        )

    check_against_optimum(asks, "1x2:A 1x3:B", fits)


# The relaxation and its dual ----------------------------------------------------------------------------------------


def relaxation(asks, gpus, *, at):
    """L4 on slots of a second: the least sum of completion times when jobs may run at any rate up to 1.

    `at` = 0 counts a slot's work at its begin, a bound; 0.5 in its middle, what can be done if all is spread evenly.
    """
    last = max(ask.at for ask in asks) + sum(ask.lasts for ask in asks)
    jobs, slots = len(asks), last
    cost = np.array([[(slot + at) / ask.lasts for slot in range(slots)] for ask in asks]).ravel()
    upper = [(0, float(slot >= ask.at)) for ask in asks for slot in range(slots)]
    work = np.kron(np.eye(jobs), np.ones(slots))
    load = np.hstack([ask.shape.gpus * np.eye(slots) for ask in asks])
    done = linprog(
        cost, A_eq=work, b_eq=[ask.lasts for ask in asks], A_ub=load, b_ub=[gpus] * slots, bounds=upper, method="highs"
    )
    assert done.success
    return done.fun + sum(ask.lasts for ask in asks) / 2


prices = st.lists(st.integers(0, 3 * PRICE), min_size=1, max_size=12)


@given(small_jobs(4), prices, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_no_prices_prove_more_than_the_relaxation_allows(asks, price, width):
    whole = instance(trace(*asks).jobs, cluster("1x4"))
    edges = tuple(SECOND * width * slot for slot in range(len(price) + 1))
    proven = exact_bound(whole, edges, (((0,), tuple(price)),))
    released = sum(ask.at for ask in asks)
    assert float(proven) * len(asks) + released <= relaxation(asks, 4, at=0.5) * EVEN


@given(small_jobs(4))
@settings(max_examples=60, deadline=None)
def test_the_relaxation_is_a_bound_and_above_height_and_mean_busy_times(asks):
    sizes = [ask.shape.gpus for ask in asks]
    jct, _ = best_schedules(asks, lambda some: sum(sizes[number] for number in some) <= 4)
    released = sum(ask.at for ask in asks)
    assert relaxation(asks, 4, at=0) <= (jct + released) * EVEN
    found = lower_bounds(trace(*asks), cluster("1x4"))
    for name in ("L2", "L3"):
        assert found.jct_by_name[name] * len(asks) + released <= relaxation(asks, 4, at=0.5) * EVEN


@pytest.mark.parametrize("seed", range(4))
def test_good_prices_come_near_the_relaxation(seed):
    random = np.random.default_rng(seed)
    asks = [
        job(f"{random.integers(1, 5)} GPUs for {random.integers(5, 60)} s", at=int(at))
        for at in np.sort(random.integers(0, 80, size=12))
    ]
    released = sum(ask.at for ask in asks)
    allowed = (relaxation(asks, 4, at=0) - released) / len(asks)
    found = lower_bounds(trace(*asks), cluster("1x4"))
    assert 0.98 * allowed < found.jct_by_name["L5"] <= allowed + 0.5


@given(small_jobs(4), prices, st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_the_search_and_the_proof_agree_on_what_any_prices_are_worth(asks, price, width, begin):
    """Two programs that share no formula: numpy with Newton's method, and whole numbers with a sweep."""
    asks = [Ask(ask.shape, ask.lasts + 0.25, ask.at + begin) for ask in asks]
    whole = instance(trace(*asks).jobs, cluster("1x4"))
    edges = np.arange(len(price) + 1) * float(width)
    found = answer(Market(whole, ((0,),)), edges, np.array([price]) / PRICE).value + sum(ask.lasts for ask in asks)
    first = round(asks[0].at * SECOND)
    proven = exact_bound(whole, [first + round(edge * SECOND) for edge in edges], (((0,), tuple(price)),))
    assert max(found, 0.0) / len(asks) == pytest.approx(float(proven), rel=1e-7, abs=1e-7)


@given(small_jobs(8, most=12))
@settings(max_examples=60, deadline=None)
def test_without_releases_the_third_bound_is_the_textbooks(asks):
    """A + H/2 - W/2: squashed areas by size, and half of what jobs are longer than the fast machine needs for them."""
    whole = instance(trace(*[Ask(ask.shape, ask.lasts) for ask in asks]).jobs, cluster("1x8"))
    areas = sorted(Fraction(item.area, 8 * WHOLE) for item in whole.items)
    squashed = sum(sum(areas[: place + 1]) for place in range(len(areas)))
    expected = squashed + (sum(item.length for item in whole.items) - sum(areas)) / 2
    assert expected - len(asks) <= mean_busy_times(whole.items, 8 * WHOLE) <= expected
    assert squashed_srpt(whole.items, 8 * WHOLE) == squashed // 1


# Simulated schedules ------------------------------------------------------------------------------------------------

traces = st.lists(
    st.builds(
        lambda words, lasts, at: job(f"{words} for {lasts} s", at=at),
        st.sampled_from(
            [
                *("1 GPUs", "2 GPUs", "5 GPUs", "8 GPUs", "2x4 GPUs", "2x8 GPUs", "9 GPUs", "0.5 GPU", "0.3 GPU"),
                *("6 GPUs in total", "12 GPUs in total", "4 A GPUs", "1 B GPUs", "3 A|B GPUs"),
            ]
        ),
        st.integers(1, 60),
        st.integers(0, 100),
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.parametrize("policy", [*CATALOG, "shortest+first_fit+skip", "shortest+spread+skip", "arrival+count+skip"])
@given(asks=traces, words=st.sampled_from(["2x8:A", "1x8:A 2x4:B", "3x8:B 1x2:A"]))
@settings(max_examples=15, deadline=None)
def test_no_simulated_schedule_beats_a_bound(policy, asks, words):
    replayed, nodes, decides = trace(*asks), cluster(words), load(policy)
    run = simulate(replayed, nodes, decides)
    summary = summarize(run)
    found = lower_bounds(replayed, nodes, place=decides.place)
    assert found.jobs == len(run.jobs)
    if not found.jobs:
        return
    assert summary.jct.mean * EVEN >= found.jct
    assert summary.makespan * EVEN >= found.makespan
    assert summary.jct.p50 >= found.jct_quantiles["p50"]
    assert summary.jct.p90 >= found.jct_quantiles["p90"]
    assert summary.jct.p99 >= found.jct_quantiles["p99"]
    assert verify(found.certificate, replayed.jobs) >= found.certificate.jct_mean
