"""Attempts, derived from the events in the commit that brings them."""

from __future__ import annotations

import pytest

from gpusched.cluster.backend import Node, NodeChange
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape
from gpusched.scheduler.store import queries
from gpusched.scheduler.store.queries import PieceInfo

PLACE = (Piece(0, 8), Piece(1, 8))
RANKS = [
    {"rank": 0, "node": "a", "address": "10.0.0.1", "gpus": [0, 1, 2, 3, 4, 5, 6, 7], "pid": 71, "log": "0.log"},
    {"rank": 1, "node": "b", "address": "10.0.0.2", "gpus": [0, 1, 2, 3, 4, 5, 6, 7], "pid": 72, "log": "1.log"},
]


@pytest.fixture
def after(sql_store):
    """The attempts of job 1 after these events, committed one by one or all at once."""
    job = Job(1, Shape(num_nodes=2, gpus=8), 0.0)
    nodes = [(0, NodeChange(0.0, Node("a", 8, "H100"))), (1, NodeChange(0.0, Node("b", 8, "H100")))]
    sql_store.commit(jobs=[job], events=[Event(0.0, Kind.SUBMITTED, 1, 0, job)], nodes=nodes)

    def attempts(*events, at_once):
        if at_once:
            sql_store.commit(events=events)
        for event in () if at_once else events:
            sql_store.commit(events=[event])
        with sql_store.reader() as connection:
            return queries.job_attempts(connection, 1)

    return attempts


pytestmark = pytest.mark.parametrize("at_once", [False, True])


def test_a_placed_attempt_names_its_nodes(after, at_once):
    (attempt,) = after(Event(5.0, Kind.PLACED, 1, 1, PLACE), at_once=at_once)
    assert (attempt.job, attempt.attempt, attempt.placed, attempt.gpus, attempt.gpu_type) == (1, 1, 5.0, 16.0, "H100")
    assert attempt.pieces == (PieceInfo("a", PLACE[0]), PieceInfo("b", PLACE[1]))
    assert (attempt.started, attempt.ended, attempt.result, attempt.ranks) == (None, None, "", None)


def test_a_started_attempt_keeps_its_ranks_and_their_gpus(after, at_once):
    (attempt,) = after(
        Event(5.0, Kind.PLACED, 1, 1, PLACE), Event(6.5, Kind.STARTED, 1, 1, {"ranks": RANKS}), at_once=at_once
    )
    assert attempt.started == 6.5
    assert attempt.ranks == RANKS


@pytest.mark.parametrize("kind", [Kind.SUCCEEDED, Kind.FAILED, Kind.RETRIED, Kind.REQUEUED, Kind.LOST])
def test_an_attempt_ends_as_its_last_event_says(after, at_once, kind):
    data = {"exit_code": 3, "message": "rank 1 exited with 3", "checkpoint": "step-100", "lost_work": 12.5}
    (attempt,) = after(
        Event(5.0, Kind.PLACED, 1, 1, PLACE),
        Event(6.0, Kind.STARTED, 1, 1, {"ranks": RANKS}),
        Event(9.0, kind, 1, 1, data),
        at_once=at_once,
    )
    assert (attempt.ended, attempt.result, attempt.exit_code) == (9.0, kind.value, 3)
    assert (attempt.message, attempt.checkpoint, attempt.lost_work) == ("rank 1 exited with 3", "step-100", 12.5)


@pytest.mark.parametrize(
    ("told", "end", "result"),
    [
        (Kind.PREEMPTED, Kind.REQUEUED, "preempted"),
        (Kind.PREEMPTED, Kind.SUCCEEDED, "succeeded"),
        (Kind.CANCELLED, Kind.STOPPED, "stopped"),
        (Kind.EXPIRED, Kind.TIMED_OUT, "timed_out"),
    ],
)
def test_an_attempt_that_was_told_to_end_says_by_what(after, at_once, told, end, result):
    (attempt,) = after(
        Event(5.0, Kind.PLACED, 1, 1, PLACE),
        Event(6.0, Kind.STARTED, 1, 1, None),
        Event(7.0, told, 1, 1),
        Event(9.0, end, 1, 1, {"exit_code": 143}),
        at_once=at_once,
    )
    assert (attempt.stopping, attempt.stop_cause) == (7.0, told.value)
    assert (attempt.ended, attempt.result, attempt.exit_code) == (9.0, result, 143)


def test_every_attempt_has_a_line_of_its_own(after, at_once):
    attempts = after(
        Event(5.0, Kind.PLACED, 1, 1, PLACE),
        Event(6.0, Kind.REFUSED, 1, 1, {"message": "node a went away"}),
        Event(7.0, Kind.PLACED, 1, 2, PLACE[:1]),
        Event(8.0, Kind.FAILED, 1, 2, {"exit_code": 1}),
        Event(9.0, Kind.PLACED, 1, 3, PLACE[1:]),
        Event(9.5, Kind.CANCELLED, 1, 3),
        at_once=at_once,
    )
    assert [(one.attempt, one.result, one.stop_cause, one.gpus) for one in attempts] == [
        (1, "refused", "", 16.0),
        (2, "failed", "", 8.0),
        (3, "", "cancelled", 8.0),
    ]
    assert attempts[0].message == "node a went away"


def test_cancelling_a_job_that_waits_does_not_touch_the_attempt_that_ended(after, at_once):
    (attempt,) = after(
        Event(5.0, Kind.PLACED, 1, 1, PLACE),
        Event(6.0, Kind.REQUEUED, 1, 1, {"exit_code": 75}),
        Event(9.0, Kind.CANCELLED, 1, 1),
        at_once=at_once,
    )
    assert (attempt.stopping, attempt.stop_cause, attempt.ended, attempt.result) == (None, "", 6.0, "requeued")


def test_an_attempt_that_was_refused_may_be_placed_again_under_its_number(after, at_once):
    (attempt,) = after(
        Event(5.0, Kind.PLACED, 1, 1, PLACE),
        Event(6.0, Kind.REFUSED, 1, 1, {"message": "node a went away"}),
        Event(7.0, Kind.PLACED, 1, 1, PLACE[1:]),
        at_once=at_once,
    )
    assert (attempt.placed, attempt.ended, attempt.result, attempt.message) == (7.0, None, "", "")
    assert [piece.node for piece in attempt.pieces] == ["b"]
