"""What is special to the simulated cluster: it knows when, and times are exact."""

from __future__ import annotations

import pytest

from builders import cluster
from gpusched.cluster.profile import Profile
from gpusched.cluster.simulated_backend import SimulatedBackend
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job, Shape


def ready(backend: SimulatedBackend, number: int, lasts: float, *, limit: float | None = None) -> Job:
    job = Job(number, Shape(1, 1), 0.0, limit=limit)
    job.attempt = 1
    backend.expect(number, lasts)
    return job


def test_it_knows_when_the_next_news_are_due():
    backend = SimulatedBackend(cluster("1x8"))
    assert backend.next_time() is None
    backend.start(ready(backend, 1, 30), ("n0",), 5)
    backend.start(ready(backend, 2, 10), ("n0",), 5)
    assert backend.next_time() == 15
    assert [event.job for event in backend.poll(15).events if event.kind is Kind.FINISHED] == [2]
    assert backend.next_time() == 35


def test_ends_come_in_order_of_time_then_of_job():
    backend = SimulatedBackend(cluster("1x8"))
    for number, lasts in ((3, 7), (1, 9), (2, 7)):
        backend.start(ready(backend, number, lasts), ("n0",), 0)
    ended = [(event.time, event.job) for event in backend.poll(20).events if event.kind is Kind.FINISHED]
    assert ended == [(7, 2), (7, 3), (9, 1)]


def test_whole_seconds_stay_whole():
    backend = SimulatedBackend(cluster("1x8"))
    backend.start(ready(backend, 1, 30), ("n0",), 5)
    (_, finished) = backend.poll(35).events
    assert (finished.time, type(finished.time)) == (35, int)


def test_start_up_time_is_before_the_first_second_of_work():
    backend = SimulatedBackend(cluster("1x8"), profile=Profile(start_up=3))
    backend.start(ready(backend, 1, 10), ("n0",), 0)
    assert [(event.kind, event.time) for event in backend.poll(2).events] == []
    assert backend.next_time() == 3
    assert [(event.kind, event.time) for event in backend.poll(4).events] == [(Kind.STARTED, 3)]
    assert [(event.kind, event.time) for event in backend.poll(20).events] == [(Kind.FINISHED, 13)]


def test_a_job_with_a_time_limit_is_news_when_it_starts():
    backend = SimulatedBackend(cluster("1x8"))
    backend.start(ready(backend, 1, 100, limit=10), ("n0",), 0)
    assert backend.next_time() == 0
    assert [event.kind for event in backend.poll(0).events] == [Kind.STARTED]


def test_a_job_whose_run_time_is_not_known_is_refused_loudly():
    backend = SimulatedBackend(cluster("1x8"))
    job = Job(1, Shape(1, 1), 0.0)
    with pytest.raises(KeyError):
        backend.start(job, ("n0",), 0)
