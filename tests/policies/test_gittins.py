"""The Gittins index against its definition, and what it does to the order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import cluster, job, trace
from gpusched.jobs.errors import PolicyError
from gpusched.jobs.job import Job, Shape, State
from gpusched.policies.attained import LeastAttained
from gpusched.policies.blocking import Skip
from gpusched.policies.gittins import FEWEST, Distribution, Gittins, Served
from gpusched.policies.greedy import Greedy
from gpusched.policies.place import best_fit
from gpusched.policies.reclaim import ByOrder
from gpusched.scheduler.simulate import simulate

samples = st.lists(st.integers(1, 40), min_size=1, max_size=25)


def by_definition(sample: list[int], attained: float, allowance: float) -> float:
    """P(S - W <= D | S > W) / E[min(S - W, D) | S > W], counted."""
    longer = [one for one in sample if one > attained]
    if not longer:
        return 0.0
    ending = sum(one - attained <= allowance for one in longer) / len(longer)
    return ending / (sum(min(one - attained, allowance) for one in longer) / len(longer))


@given(samples, st.integers(0, 45), st.integers(1, 50))
def test_a_rank_is_the_one_of_the_definition(sample, attained, allowance):
    found = Distribution(sample).rank(attained, allowance)
    assert found == pytest.approx(by_definition(sample, attained, allowance))


@given(samples, st.one_of(st.integers(0, 45), st.floats(0, 45)))
def test_the_index_is_the_supremum_over_all_allowances(sample, attained):
    best = max((by_definition(sample, attained, one - attained) for one in sample if one > attained), default=0.0)
    assert Distribution(sample).index(attained) == pytest.approx(best)


def test_the_index_of_a_memoryless_sample_does_not_change_and_that_of_a_fixed_length_rises():
    geometric = Distribution([length for length in range(1, 12) for _ in range(2 ** (11 - length))])
    assert geometric.index(0) == pytest.approx(geometric.index(5), rel=0.05)
    fixed = Distribution([100] * 50)
    assert [fixed.index(attained) for attained in (0, 50, 90, 100)] == [1 / 100, 1 / 50, 1 / 10, 0]


def test_the_index_is_found_on_a_large_sample_without_looking_at_all_of_it():
    size = 100_000
    large = Distribution((number * 7919) % size + 1 for number in range(size))
    assert large.index(0) == pytest.approx(
        max(large.rank(0, allowance) for allowance in range(1000, size + 1, 1000)), rel=0.01
    )


def ended(number: int, gpu_seconds: float, state: State = State.SUCCEEDED) -> Job:
    one = Job(number, Shape(1, 2), 0.0, state=state)
    one.gpu_seconds = gpu_seconds
    return one


def test_nothing_is_ranked_until_enough_jobs_have_ended():
    book = Served(Gittins(100.0, step=1.0))
    for number in range(FEWEST - 1):
        book.ended(ended(number, 50.0), 0.0)
    assert book.rank(ended(101, 0.0), 0.0) == 0.0
    book.ended(ended(FEWEST, 50.0, State.FAILED), 0.0)
    assert book.rank(ended(102, 0.0), 0.0) == 1 / 50
    book.ended(ended(99, 1.0, State.QUEUED), 0.0)  # it goes on
    assert book.rank(ended(103, 0.0), 0.0) == 1 / 50


def test_a_job_keeps_its_rank_until_it_passes_a_step_whatever_is_learnt_meanwhile():
    book = Served(Gittins(100.0, step=10.0))
    for number in range(FEWEST):
        book.ended(ended(number, 50.0), 0.0)
    one = ended(101, 0.0)
    assert book.rank(one, 0.0) == book.rank(one, 9.0) == 1 / 50
    for number in range(20):
        book.ended(ended(number, 20.0), 0.0)
    assert book.rank(one, 9.0) == 1 / 50
    assert book.rank(ended(102, 0.0), 0.0) > 1 / 50
    assert book.rank(one, 10.0) == pytest.approx(30 / (10 * 40 + 20 * 10))
    assert book.rank(ended(101, 0.0), 0.0) > 1 / 50  # another job of that id, as in a what-if


@pytest.mark.parametrize(("allowance", "step"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 5.0)])
def test_an_allowance_or_a_step_of_nothing_is_refused(allowance, step):
    with pytest.raises(PolicyError, match="above 0"):
        Gittins(allowance, step=step)


def test_a_job_that_is_likely_to_end_soon_goes_on_and_one_that_is_not_gives_way():
    """Most jobs end within 10 s, the others take 1000: once past 10 s a job is behind all new ones."""
    sample = [10.0] * 90 + [1000.0] * 10
    order = LeastAttained(limits=(1e6,), gittins=Gittins(math.inf, step=5.0, sample=sample))
    policy = Greedy("known", order=order, place=best_fit, blocking=Skip(), reclaim=ByOrder())
    run = simulate(
        trace(job("1 GPU for 100 s"), job("1 GPU for 10 s", at=2), job("1 GPU for 10 s", at=15)),
        cluster("1x1"),
        policy,
        estimates="none",
    )
    # At 2 the first is likely to end within 10 s and goes on; from 10 on it is not.
    assert [(one.first_start, one.ended) for one in run.jobs] == [(0, 120), (10, 20), (20, 30)]
