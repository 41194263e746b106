"""Who goes first."""

from __future__ import annotations

import pytest

from builders import after, job, waiting
from gpusched.cluster.backend import Node
from gpusched.jobs.job import Shape
from gpusched.jobs.traces.trace import Trace, TraceJob
from gpusched.policies.catalog import load
from gpusched.policies.order import ORDERS
from gpusched.policies.queue import Queue
from gpusched.scheduler.simulate import simulate


def in_order(order: str, *asks) -> list[int]:
    queue = Queue(ORDERS[order])
    for one in waiting(*asks):
        queue.add(one)
    return [one.id for one in queue.in_order()]


def test_arrival_is_by_submission_then_by_id():
    assert in_order("arrival", *after(5, job("1 GPU")), job("2 GPUs"), job("1 GPU")) == [2, 3, 1]


def test_priority_is_higher_first_then_by_arrival():
    assert in_order(
        "priority", job("1 GPU, priority 10"), *after(9, job("1 GPU, priority 90")), job("2 GPUs, priority 90")
    ) == [3, 2, 1]


def test_a_point_of_aged_priority_is_worth_an_hour_of_waiting():
    assert in_order("aged_priority", job("1 GPU, priority 50", at=0), job("2 GPUs, priority 51", at=3599)) == [2, 1]
    assert in_order("aged_priority", job("1 GPU, priority 50", at=0), job("2 GPUs, priority 51", at=3601)) == [1, 2]


def test_an_endless_stream_of_urgent_jobs_starves_nobody_under_the_policy_priority():
    hour, shape = 3600, Shape(1, 1)
    urgent = [TraceJob(0, f"urgent-{n}", n * hour, hour, shape, priority=100) for n in range(400)]
    patient = TraceJob(0, "patient", 1, hour, shape, priority=0)
    jobs = [one._replace(id=number) for number, one in enumerate([urgent[0], patient, *urgent[1:]])]
    run = simulate(Trace(jobs, "stream", "csv"), [Node("n", 1)], load("priority"))
    waited = {one.name: one.first_start - one.submitted for one in run.jobs}
    assert 100 * hour < waited["patient"] <= 101 * hour


def test_shortest_is_by_estimate_and_unknown_ones_last_by_arrival():
    jobs = waiting(job("1 GPU for 50 s", at=1), job("2 GPUs for 10 s"), job("1 GPU for 20 s"), job("4 GPUs", at=0))
    jobs[0].estimate = jobs[3].estimate = None
    queue = Queue(ORDERS["shortest"])
    for one in jobs:
        queue.add(one)
    assert [one.id for one in queue.in_order()] == [2, 3, 4, 1]


@pytest.mark.parametrize("leaves", [0, 1, 2])
def test_a_job_that_comes_back_takes_its_old_place_once(leaves):
    jobs = waiting(*[job("1 GPU")] * 3)
    queue = Queue(ORDERS["arrival"])
    for one in jobs:
        queue.add(one)
    queue.remove(jobs[leaves])
    assert len(queue) == 2
    queue.add(jobs[leaves])
    assert [one.id for one in queue.in_order()] == [1, 2, 3]


def test_a_key_that_changed_while_the_job_waited_does_not_lose_it():
    """Against the rule, and a site's own order may do it all the same."""
    jobs = waiting(*[job("1 GPU")] * 5)
    queue = Queue(ORDERS["priority"])
    for one in jobs:
        queue.add(one)
    jobs[3].priority = 99
    queue.remove(jobs[3])
    assert [one.id for one in queue.in_order()] == [1, 2, 3, 5]


def test_a_long_queue_lets_go_of_its_past():
    jobs = waiting(*[job("1 GPU")] * 500)
    queue = Queue(ORDERS["arrival"])
    for one in jobs:
        queue.add(one)
    for one in jobs[:400]:
        queue.left(one)
    assert [one.id for one in queue.in_order()] == [one.id for one in jobs[400:]]
    (group,) = queue.all_groups()
    assert len(group._jobs) < 250
