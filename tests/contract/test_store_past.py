"""What ran before, as policies that weigh the past are told of it after a restart."""

from __future__ import annotations

from gpusched.cluster.backend import Node, NodeChange
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.policies.plan import Decision
from gpusched.policies.usage import DecayedUsage
from gpusched.scheduler.store.past import choose_policy, chosen_policy, last_policy, past_attempts

HERE = (Piece(0, 4),)


def ran(store, number, user, *spans):
    """A job of 4 GPUs with an attempt for each (placed, ended)."""
    job = Job(number, Shape(1, 4), 0.0, name=f"job-{number}", queue="lab", user=user, estimate=60.0)
    store.commit(jobs=[job], events=[Event(0.0, Kind.SUBMITTED, number, 0, job)])
    for attempt, (placed, ended) in enumerate(spans, 1):
        last = attempt == len(spans)
        job.state = State.SUCCEEDED if last else State.QUEUED
        job.first_start, job.ended = job.first_start or placed, ended if last else None
        store.commit(
            jobs=[job],
            events=[
                Event(placed, Kind.PLACED, number, attempt, HERE),
                Event(ended, Kind.SUCCEEDED if last else Kind.REQUEUED, number, attempt, {"exit_code": 0}),
            ],
        )


def test_attempts_that_ended_come_back_oldest_first_each_with_its_own_times(sql_store):
    sql_store.commit(nodes=[(0, NodeChange(0.0, Node("a", 8)))])
    ran(sql_store, 1, "ann", (10.0, 20.0), (50.0, 90.0))
    ran(sql_store, 2, "bob", (20.0, 40.0))
    with sql_store.reader() as connection:
        found = past_attempts(connection, 0.0, 100)
        assert [(job.id, job.attempt, job.placed, ended) for job, ended in found] == [
            (1, 1, 10.0, 20.0),
            (2, 1, 20.0, 40.0),
            (1, 2, 50.0, 90.0),
        ]
        assert {(job.user, job.queue, job.name, job.shape, job.estimate) for job, _ in found} == {
            ("ann", "lab", "job-1", Shape(1, 4), 60.0),
            ("bob", "lab", "job-2", Shape(1, 4), 60.0),
        }
        assert [job.id for job, _ in past_attempts(connection, 30.0, 100)] == [2, 1]
        assert [ended for _, ended in past_attempts(connection, 0.0, 2)] == [40.0, 90.0], "the latest ones"
    book = DecayedUsage(half_life=float("inf"))
    for job, ended in found:
        book.started(job)
        book.ended(job, ended)
    assert (book.of(("lab", "ann"), 1000.0), book.of(("lab", "bob"), 1000.0)) == (200.0, 80.0)


def test_the_policy_of_the_last_decision_and_the_chosen_one_are_remembered(sql_store):
    with sql_store.reader() as connection:
        assert (last_policy(connection), chosen_policy(connection)) == ("", "")
    sql_store.commit(
        decisions=[Decision(1.0, "fifo/1", 1, 8, (), (), ()), Decision(2.0, "file.py:A/B/2", 1, 8, (), (), ())]
    )
    choose_policy(sql_store, "fair")
    choose_policy(sql_store, "mine.py:Mine")
    with sql_store.reader() as connection:
        assert (last_policy(connection), chosen_policy(connection)) == ("file.py:A/B", "mine.py:Mine")
