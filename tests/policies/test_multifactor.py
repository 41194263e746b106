"""Slurm's multifactor priority: decayed use to the second, Fair Tree by hand, and what the sums decide."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import World, cluster, job, made
from gpusched.policies.greedy import Greedy
from gpusched.policies.multifactor import Multifactor, Weights, fair_tree
from gpusched.policies.tree import QueueNode, Tree
from gpusched.policies.usage import DecayedUsage

ANN, BOB = ("default", "ann"), ("default", "bob")

# Decayed use ------------------------------------------------------------------------------------------------------


def by_small_steps(spans: list[tuple[float, float, int]], now: float, half_life: float, step: float = 0.01) -> float:
    """GPU-seconds of (from, to, GPUs), each step of time faded by its own age."""
    total = 0.0
    for begin, end, gpus in spans:
        steps = max(int((min(end, now) - begin) / step), 0)
        total += sum(gpus * step * 2 ** (-(now - begin - (i + 0.5) * step) / half_life) for i in range(steps))
    return total


def test_an_hour_of_a_gpu_counts_half_a_half_life_later():
    book = DecayedUsage(half_life=1000.0)
    one = made(1, job("4 GPUs, user ann"))
    one.placed = 0.0
    book.started(one)
    book.ended(one, 1e-6)
    assert book.of(ANN, 1000.0) == pytest.approx(2e-6, rel=1e-6)


def test_without_a_half_life_nothing_is_forgotten():
    book = DecayedUsage(half_life=math.inf)
    one, two = made(1, job("4 GPUs, user ann")), made(2, job("2 GPUs, user ann"))
    one.placed, two.placed = 0.0, 50.0
    book.started(one)
    book.started(two)
    assert book.of(ANN, 100.0) == 500.0
    book.ended(one, 100.0)
    assert book.of(ANN, 200.0) == 700.0
    book.ended(two, 200.0)
    assert book.of(ANN, 10_000.0) == 700.0
    assert book.of(BOB, 10_000.0) == 0.0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40), st.sampled_from([1, 2, 8])), min_size=1, max_size=6),
    st.sampled_from([5.0, 30.0, 200.0]),
    st.integers(0, 100),
)
def test_use_is_the_faded_integral_of_what_was_held(runs, half_life, now):
    book = DecayedUsage(half_life=half_life)
    events = []
    for number, (begin, lasts, gpus) in enumerate(runs, 1):
        one = made(number, job(f"{gpus} GPUs, user ann"))
        one.placed = float(begin)
        events += [(begin, 0, number, one), (begin + lasts, 1, number, one)]
    for time, ends, _, one in sorted(events, key=lambda event: event[:3]):
        if time <= now:
            if ends:
                book.ended(one, float(time))
            else:
                book.started(one)
    expected = by_small_steps([(begin, begin + lasts, gpus) for begin, lasts, gpus in runs], now, half_life)
    assert book.of(ANN, float(now)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


# Fair Tree --------------------------------------------------------------------------------------------------------


def test_whoever_used_least_of_its_share_stands_first():
    used = {("a", "ann"): 100.0, ("a", "bob"): 50.0, ("b", "cid"): 500.0}
    assert fair_tree(used, None) == {("a", "bob"): 1.0, ("a", "ann"): 2 / 3, ("b", "cid"): 1 / 3}


def test_a_queue_goes_before_its_users():
    """Every user of the queue that used less goes before every user of the other, whatever they used themselves."""
    tree = Tree((QueueNode("a"), QueueNode("b", weight=10.0)))
    used = {("a", "ann"): 10.0, ("a", "bob"): 20.0, ("b", "cid"): 50.0, ("b", "dan"): 30.0}
    assert list(fair_tree(used, tree)) == [("b", "dan"), ("b", "cid"), ("a", "ann"), ("a", "bob")]


def test_equal_users_get_equal_factors():
    used = {("a", "ann"): 10.0, ("a", "bob"): 10.0, ("a", "cid"): 20.0}
    assert fair_tree(used, None) == {("a", "ann"): 1.0, ("a", "bob"): 1.0, ("a", "cid"): 1 / 3}


def test_users_of_equal_queues_are_sorted_together():
    used = {("a", "ann"): 10.0, ("a", "bob"): 30.0, ("b", "cid"): 20.0, ("b", "dan"): 20.0}
    factors = fair_tree(used, None)
    assert [factors[key] for key in used] == [1.0, 1 / 4, 3 / 4, 3 / 4]


def test_users_weights_count():
    tree = Tree((QueueNode("a", users={"ann": 4.0}),))
    used = {("a", "ann"): 30.0, ("a", "bob"): 10.0}
    assert list(fair_tree(used, tree)) == [("a", "ann"), ("a", "bob")]


@given(st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), st.integers(0, 5), min_size=1))
def test_factors_are_the_places_from_one_down(used):
    factors = fair_tree({key: float(value) for key, value in used.items()}, None)
    assert factors.keys() == used.keys()
    assert max(factors.values()) == 1.0
    assert min(factors.values()) >= 1 / len(used)


# The sum ----------------------------------------------------------------------------------------------------------


def lab_with(**weights: float) -> World:
    zero = {"age": 0.0, "fair_share": 0.0, "size": 0.0, "priority": 0.0}
    order = Multifactor(Weights(**{**zero, **weights}))
    return World(cluster("1x4"), Greedy("mine", order=order))


def order_of_starts(lab: World, count: int) -> list[int]:
    started: list[int] = []
    while len(started) < count:
        for one in lab.running():
            started.append(one.id)
            lab.finished(one.id)
    return started


def test_use_of_the_past_decides():
    lab = lab_with(fair_share=1.0)
    lab.submit(job("4 GPUs, user ann"))
    lab.clock.wait(100.0)
    lab.submit(job("4 GPUs, user ann"), job("4 GPUs, user bob"))
    assert order_of_starts(lab, 3) == [1, 3, 2]


def test_size_favours_the_large_or_the_small():
    for small, expected in ((False, [1, 3, 2]), (True, [2, 1, 3])):
        order = Multifactor(Weights(age=0.0, fair_share=0.0, size=1.0, priority=0.0, small_first=small))
        lab = World(cluster("1x4"), Greedy("mine", order=order))
        lab.submit(job("4 GPUs"), job("3 GPUs"), job("4 GPUs"))
        assert order_of_starts(lab, 3) == expected


def test_age_makes_up_for_priority_in_time():
    lab = lab_with(age=100.0, priority=100.0)
    lab.submit(job("4 GPUs"), job("4 GPUs, priority 0"))
    lab.clock.wait(0.5 * 7 * 86400)
    lab.submit(job("4 GPUs, priority 40"))
    assert order_of_starts(lab, 3) == [1, 2, 3]  # half of the age counts 50, the priority 40


def test_the_parts_are_told():
    lab = lab_with(age=10.0, fair_share=20.0, size=30.0, priority=40.0)
    (one,) = lab.submit(job("2 GPUs, priority 50, user ann"))
    lab.clock.wait(0.1 * 7 * 86400)
    order = lab.policy.ordering
    parts = order.parts(one, lab.now, lab.engine.queue, lab.engine.pool)
    assert parts == pytest.approx({"age": 1.0, "fair_share": 20.0, "size": 15.0, "priority": 20.0})
