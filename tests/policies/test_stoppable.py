"""Running jobs that may be stopped: kept by priority, so that a look for victims costs victims."""

from __future__ import annotations

from random import Random

import pytest

from builders import World, cluster, job, made
from gpusched.policies.stoppable import Stoppable


@pytest.mark.parametrize("seed", range(20))
def test_those_below_a_priority_come_lowest_first_as_a_sort_of_all_has_them(seed):
    draw = Random(f"stoppable {seed}")  # noqa: S311 - a test's world, no secret
    kept, there = Stoppable(), {}
    for number in range(60):
        if there and draw.random() < 0.4:
            gone = there.pop(draw.choice(sorted(there)))
            kept.discard(gone)
            kept.discard(gone)  # once told to go, once gone
            continue
        stoppable = ", stoppable" * (draw.random() < 0.8)
        one = made(number, job(f"1 GPU, priority {draw.choice([0, 10, 50, 90])}{stoppable}"))
        kept.add(one)
        if one.preemptible:
            there[number] = one
        for bar in (0, 10, 60, 100):
            cost = lambda one: (one.priority, 0.0, 0.0, -one.id)  # noqa: E731 - short
            below = sorted((one for one in there.values() if one.priority < bar), key=cost)
            assert list(kept.below(bar, cost)) == below
            assert kept.any_below(bar) == bool(below)
        assert {one.id for one in kept.all()} == set(there)
        assert bool(kept) == bool(there)


def test_an_urgent_pass_in_which_nobody_may_be_displaced_tries_nobody():
    lab = World(cluster("4x8"), "urgent")
    lab.submit(*[job("1 GPUs, stoppable, priority 50")] * 32)
    lab.clock.wait(10)
    tried = []
    reclaim = lab.policy.reclaim
    candidates = reclaim.candidates
    reclaim.candidates = lambda *asked: tried.append(asked) or candidates(*asked)
    lab.submit(*[job(f"{gpus} GPUs, stoppable, priority 50") for gpus in (1, 2, 4, 8)])
    assert tried == [], "all have the same priority"
    lab.submit(job("8 GPUs, stoppable, priority 51"))
    assert len(lab.store.choices[-1].preemptions) == 8
