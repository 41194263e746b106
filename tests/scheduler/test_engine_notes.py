"""What running jobs say of themselves: written, remembered, and counted when they are stopped."""

from __future__ import annotations

import pytest

from builders import World, cluster, job
from gpusched.jobs.events import Kind
from gpusched.jobs.outcome import REQUEUE_ME
from gpusched.policies.reclaim import lost_work
from gpusched.scheduler.report.ledger import accounts
from gpusched.scheduler.store.queries import job_attempts
from gpusched.scheduler.store.sql import SqlStore
from gpusched.scheduler.store.usage import usage


def running(**more) -> World:
    """Job 1 on 4 GPUs, placed at 0 and running since 10."""
    one = World(cluster("1x4"), **more)
    one.submit(job("4 GPUs", retry=("failure", "lost")))
    one.tick(at=10)
    one.started(1)
    return one


def saves(one: World, at: float, step: int = 1, **more) -> None:
    one.tick(at=at)
    one.report(Kind.CHECKPOINTED, 1, data={"step": step, "time": at}, **more)


def test_a_checkpoint_is_a_line_of_the_journal_and_moves_nothing():
    one = running()
    decisions = len(one.store.decisions())
    saves(one, 30, step=7)
    one.report(Kind.PROGRESSED, 1, data={"fraction": 0.5})
    assert one.events(1)[-2:] == ["checkpointed", "progressed"]
    assert one.states() == {1: "RUNNING"}
    assert (one.jobs[1].started, one.jobs[1].saved) == (10, 30)
    assert len(one.store.decisions()) == decisions, "no policy was asked for it"
    one.check()


def test_what_goes_with_a_job_now_is_the_work_since_its_last_checkpoint():
    one = running()
    assert lost_work(one.jobs[1], 50) == 4 * 50
    saves(one, 30)
    assert lost_work(one.jobs[1], 50) == 4 * 20
    assert lost_work(one.jobs[1], 29) == 0, "clocks of two machines are never quite the same"


def test_notes_of_an_older_attempt_or_of_a_job_that_waits_are_not_taken():
    one = running()
    one.tick(at=20)
    one.finished(1, REQUEUE_ME)
    before = one.events(1)
    saves(one, 30, attempt=1)
    assert one.events(1) == before
    assert one.jobs[1].saved == 0


@pytest.mark.parametrize(
    ("saved", "code", "kept", "lost"),
    [(None, 143, 0, 40), (30, 143, 20, 20), (None, REQUEUE_ME, 40, 0), (30, REQUEUE_ME, 40, 0)],
)
def test_a_preempted_attempt_keeps_what_it_had_saved(saved, code, kept, lost):
    one = running()
    if saved:
        saves(one, saved)
    one.tick(at=45)
    one.ask(Kind.PREEMPTED, 1)
    one.tick(at=50)
    one.finished(1, code)
    end = next(event.data for _, event in one.store.events(1) if event.kind is Kind.REQUEUED)
    assert (end["kept"], end["lost"]) == (kept, lost)
    assert one.jobs[1].executed == kept
    books = accounts([event for _, event in one.store.events()], one.jobs.values())[1]
    assert books.lost == lost


def test_the_last_checkpoint_of_all_may_come_with_the_end():
    one = running()
    one.tick(at=50)
    one.report(Kind.VANISHED, 1, data={"message": "gone", "checkpoint": {"step": 3, "time": 45}})
    end = next(event.data for _, event in one.store.events(1) if event.kind is Kind.RETRIED)
    assert (end["kept"], end["lost"]) == (35, 5)


def test_of_a_job_that_fails_and_never_said_anything_nothing_is_said():
    one = running()
    one.tick(at=50)
    one.finished(1, 1)
    end = next(event.data for _, event in one.store.events(1) if event.kind is Kind.RETRIED)
    assert end == {"exit_code": 1}


def test_a_second_attempt_adds_to_what_the_first_has_kept():
    one = running()
    for begin in (10, 60):
        one.tick(at=begin)
        one.started(1)
        saves(one, begin + 20)
        one.tick(at=begin + 30)
        one.ask(Kind.PREEMPTED, 1)
        one.finished(1, 143)
    assert one.jobs[1].executed == 20 + 20


def test_a_restarted_engine_knows_when_jobs_saved_last(tmp_path):
    url = f"sqlite:///{tmp_path}/gpusched.db"
    store = SqlStore(url)
    one = running(store=store)
    saves(one, 20, step=1)
    saves(one, 30, step=2)
    with store.reader() as connection:
        assert job_attempts(connection, 1)[0].checkpoint == "step 2"
    store.close()
    again = SqlStore(url)
    (found,) = again.unfinished()
    assert found.saved == 30
    again.close()


def test_lost_work_is_kept_with_the_attempt_and_summed_by_user(tmp_path):
    store = SqlStore(f"sqlite:///{tmp_path}/gpusched.db")
    one = running(store=store)
    saves(one, 30)
    one.ask(Kind.PREEMPTED, 1)
    one.tick(at=50)
    one.finished(1, 143)

    with store.reader() as connection:
        assert job_attempts(connection, 1)[0].lost_work == 4 * 20
        (row,) = usage(connection, "user", since=0, until=100)
        assert row.lost == 4 * 20
        assert usage(connection, "user", since=0, until=40)[0].lost == 0
    store.close()
