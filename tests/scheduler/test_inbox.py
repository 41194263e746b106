"""Requests are answered once they are written, all or none, in whatever thread they come."""

import threading

import pytest

from gpusched.jobs.errors import ConflictError, StoreError, UnreachableError
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job, Shape
from gpusched.scheduler.inbox import MOST, LiveInbox


def make():
    woken = []
    return LiveInbox(lambda: 100.0, lambda: woken.append(1)), woken


def jobs(count):
    return [Job(0, Shape(1, 1), 0.0) for _ in range(count)]


def test_a_submission_is_numbered_at_once_and_answered_when_it_is_settled():
    inbox, woken = make()
    inbox.number_from(41)
    future = inbox.submit(jobs(2))
    assert woken
    events = inbox.poll(100.0)
    assert [(event.kind, event.job) for event in events] == [(Kind.SUBMITTED, 42), (Kind.SUBMITTED, 43)]
    assert not future.done()
    inbox.settle({})
    assert [job.id for job in future.result(0)] == [42, 43]
    assert [job.submitted for job in future.result(0)] == [100.0, 100.0]


def test_ids_only_rise_even_when_a_commit_fails():
    inbox, _ = make()
    lost = inbox.submit(jobs(3))
    inbox.poll(0.0)
    inbox.fail(StoreError("disk full"))
    with pytest.raises(StoreError):
        lost.result(0)
    inbox.number_from(0)
    inbox.submit(jobs(1))
    assert [event.job for event in inbox.poll(0.0)] == [4]


def test_each_call_gets_its_own_refusal():
    inbox, _ = make()
    first, second, third = inbox.ask(Kind.CANCELLED, 1), inbox.ask(Kind.CANCELLED, 2), inbox.ask(Kind.HELD, 3)
    inbox.poll(0.0)
    inbox.settle({1: ConflictError("job 2 is over")})
    assert first.result(0) is None
    assert third.result(0) is None
    with pytest.raises(ConflictError, match="job 2 is over"):
        second.result(0)


def test_a_flood_is_taken_in_parts_and_no_call_is_split():
    inbox, _ = make()
    sizes = [MOST // 2 + 1, MOST // 2 + 1, MOST + 5]
    for size in sizes:
        inbox.submit(jobs(size))
    polled = []
    while events := inbox.poll(0.0):
        polled.append(len(events))
        inbox.settle({})
    assert polled == sizes
    assert inbox.next_time() is None


def test_requests_that_came_after_the_poll_wait_for_the_next_one():
    inbox, _ = make()
    inbox.submit(jobs(1))
    inbox.poll(0.0)
    late = inbox.submit(jobs(1))
    inbox.settle({})
    assert not late.done()
    assert inbox.next_time() == 100.0


def test_a_request_that_was_withdrawn_in_time_is_not_done():
    inbox, _ = make()
    future = inbox.submit(jobs(1))
    assert future.cancel()
    assert list(inbox.poll(0.0)) == []


def test_a_question_is_answered_with_its_own_result_or_error():
    inbox, _ = make()
    good, bad = inbox.question(lambda engine: engine), inbox.question(lambda _engine: 1 / 0)
    inbox.answer("the engine")
    assert good.result(0) == "the engine"
    with pytest.raises(ZeroDivisionError):
        bad.result(0)


def test_a_question_asked_while_others_are_answered_sees_the_next_turn():
    inbox, _ = make()
    asked = []
    first = inbox.question(lambda _engine: asked.append(inbox.question(lambda _later: "later")))
    inbox.answer(None)
    assert first.done()
    assert not asked[0].done()
    inbox.answer(None)
    assert asked[0].result(0) == "later"


def test_after_the_end_everybody_is_turned_away():
    inbox, _ = make()
    waiting = [inbox.submit(jobs(1)), inbox.ask(Kind.HELD, 1), inbox.question(lambda engine: engine)]
    inbox.close()
    for future in [*waiting, inbox.submit(jobs(1)), inbox.question(lambda engine: engine)]:
        with pytest.raises(UnreachableError):
            future.result(0)


def test_many_threads_get_distinct_rising_ids():
    inbox, _ = make()
    futures = []

    def submit():
        futures.extend([inbox.submit(jobs(3)) for _ in range(200)])

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    seen = []
    while any(thread.is_alive() for thread in threads) or inbox.next_time() is not None:
        seen += [event.job for event in inbox.poll(0.0)]
        inbox.settle({})
    assert seen == list(range(1, 2401))
    for future in futures:
        first, *rest = [job.id for job in future.result(0)]
        assert rest == [first + 1, first + 2]
