"""A policy that may be anybody's code does no harm, whatever it raises."""

from __future__ import annotations

import pytest

from gpusched.cluster.inventory import read_cluster
from gpusched.cluster.pool import Pool
from gpusched.policies.catalog import fifo
from gpusched.policies.queue import Queue
from gpusched.scheduler.guard import Guard


@pytest.mark.parametrize("fault", [ValueError("kaput"), SystemExit(3), AssertionError(), RecursionError("deep")])
def test_whatever_a_policy_raises_becomes_an_empty_plan_and_is_told(fault):
    policy = fifo()

    def plan(*_):
        raise fault

    policy.plan = plan
    guard = Guard(policy)
    answer = guard.plan(0.0, Queue(guard), Pool(read_cluster("2x8")))
    assert not answer.starts
    assert f"plan() raised {type(fault).__name__}" in guard.fault
