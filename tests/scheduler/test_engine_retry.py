"""What the end of an attempt means, by the retry rule of a real job file."""

from __future__ import annotations

import pytest

from builders import World, cluster, job
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job, Shape, State
from gpusched.jobs.outcome import BACK_OFF, REQUEUE_ME, back_off, outcome
from gpusched.jobs.spec import JobSpec
from gpusched.scheduler.engine import REFUSAL_PAUSE


def made(rule: dict | None, *, failures: int = 0, state: State = State.RUNNING, stop_cause: str = "") -> Job:
    spec = None if rule is None else JobSpec.model_validate({"run": "true", "retry": rule})
    one = Job(1, Shape(1, 1), 0.0, spec=spec, state=state)
    one.failures = failures
    one.stop_cause = stop_cause
    return one


BOTH = {"limit": 2, "on": ["failure", "lost"]}

TABLE = [
    # rule, failures so far, exit code (None = vanished), what it means
    (None, 0, 0, Kind.SUCCEEDED),
    (None, 0, 1, Kind.FAILED),
    (None, 0, None, Kind.LOST),
    (None, 0, 75, Kind.REQUEUED),
    (BOTH, 0, 0, Kind.SUCCEEDED),
    (BOTH, 0, 1, Kind.RETRIED),
    (BOTH, 1, 1, Kind.RETRIED),
    (BOTH, 2, 1, Kind.FAILED),
    (BOTH, 0, 137, Kind.RETRIED),
    (BOTH, 0, None, Kind.RETRIED),
    (BOTH, 2, None, Kind.LOST),
    (BOTH, 2, 75, Kind.REQUEUED),
    ({"limit": 0, "on": ["failure", "lost"]}, 0, 1, Kind.FAILED),
    ({"limit": 0, "on": ["failure", "lost"]}, 0, None, Kind.LOST),
    ({"limit": 3, "on": ["lost"]}, 0, 1, Kind.FAILED),
    ({"limit": 3, "on": ["lost"]}, 0, None, Kind.RETRIED),
    ({"limit": 3, "on": ["failure"]}, 0, None, Kind.LOST),
    ({"limit": 3, "on": ["exit:3"]}, 0, 3, Kind.RETRIED),
    ({"limit": 3, "on": ["exit:3"]}, 0, 4, Kind.FAILED),
    ({"limit": 3, "on": ["exit:3", "exit:137"]}, 0, 137, Kind.RETRIED),
    ({"limit": 3, "on": ["exit:3"]}, 0, None, Kind.LOST),
]


@pytest.mark.parametrize(("rule", "failures", "code", "means"), TABLE)
def test_the_retry_rule(rule, failures, code, means):
    kind = Kind.VANISHED if code is None else Kind.FINISHED
    data = {"message": "gone"} if code is None else {"exit_code": code}
    assert outcome(made(rule, failures=failures), kind, data) is means


@pytest.mark.parametrize(
    ("state", "cause", "kind", "code", "means"),
    [
        (State.STOPPING, Kind.CANCELLED, Kind.FINISHED, 0, Kind.STOPPED),
        (State.STOPPING, Kind.CANCELLED, Kind.VANISHED, None, Kind.STOPPED),
        (State.STOPPING, Kind.EXPIRED, Kind.FINISHED, 143, Kind.TIMED_OUT),
        (State.STOPPING, Kind.EXPIRED, Kind.VANISHED, None, Kind.TIMED_OUT),
        (State.PREEMPTING, Kind.PREEMPTED, Kind.FINISHED, 0, Kind.SUCCEEDED),
        (State.PREEMPTING, Kind.PREEMPTED, Kind.FINISHED, 143, Kind.REQUEUED),
        (State.PREEMPTING, Kind.PREEMPTED, Kind.VANISHED, None, Kind.REQUEUED),
    ],
)
def test_an_attempt_that_was_told_to_end_ends_as_it_was_told(state, cause, kind, code, means):
    data = None if code is None else {"exit_code": code}
    assert outcome(made(BOTH, state=state, stop_cause=cause), kind, data) is means


def test_back_off_doubles_and_stops_growing():
    first, most = BACK_OFF
    assert [back_off(failures) for failures in range(1, 5)] == [first, 2 * first, 4 * first, 8 * first]
    assert back_off(7) == most
    assert back_off(1000) == most


def world(*, retries: int = 2, words: str = "8 GPUs") -> World:
    one = World(cluster("1x8"))
    one.submit(job(words, retry=("failure", "lost"), retries=retries))
    one.started(1)
    return one


def test_a_failed_attempt_waits_out_its_back_off_and_others_run_meanwhile():
    one = world()
    one.submit(job("8 GPUs for 1 s"))
    one.finished(1, 1)
    assert one.states() == {1: "QUEUED", 2: "STARTING"}
    assert (one.jobs[1].failures, one.jobs[1].not_before) == (1, back_off(1))
    one.finished(2)
    one.check()
    assert one.states()[1] == "QUEUED"
    assert one.engine.next_time() == back_off(1)
    one.tick(at=back_off(1))
    assert (one.states()[1], one.jobs[1].attempt) == ("STARTING", 2)
    one.check()


def test_a_lost_attempt_starts_again_at_once():
    one = world()
    one.vanished(1)
    assert (one.states()[1], one.jobs[1].attempt, one.jobs[1].failures) == ("STARTING", 2, 1)


def test_a_lost_attempt_after_a_failed_one_starts_at_once_too():
    one = world(retries=5)
    one.finished(1, 1)
    one.tick(at=back_off(1))
    one.report(Kind.VANISHED, 1)
    assert (one.states()[1], one.jobs[1].attempt) == ("STARTING", 3)


def test_retries_run_out_and_the_last_end_is_the_jobs():
    one = world(retries=2)
    for failures in (1, 2):
        one.finished(1, 9)
        one.tick(at=one.now + back_off(failures))
        one.started(1)
    one.finished(1, 9)
    assert one.jobs[1].state is State.FAILED
    assert (one.jobs[1].attempt, one.jobs[1].failures, one.jobs[1].exit_code) == (3, 2, 9)
    assert one.events(1).count("retried") == 2


def test_exit_75_requeues_for_ever_and_counts_nothing():
    one = world(retries=0)
    for attempt in range(1, 30):
        assert one.jobs[1].attempt == attempt
        one.finished(1, REQUEUE_ME)
        one.started(1)
    assert one.jobs[1].failures == 0


def test_a_requeued_job_keeps_its_place_and_its_submission_time():
    """JCT counts from the submission, whatever happened in between."""
    one = World(cluster("1x8"))
    one.submit(job("8 GPUs", retry=("lost",)))
    one.tick(at=10)
    one.submit(job("8 GPUs"))
    one.tick(at=20)
    one.vanished(1)
    assert one.states() == {1: "STARTING", 2: "QUEUED"}
    first = one.jobs[1]
    assert (first.submitted, first.first_start, first.queued, first.placed) == (0, 0, 20, 20)
    one.tick(at=30)
    one.finished(1)
    assert (first.ended, first.submitted) == (30, 0)
    assert first.gpu_seconds == 8 * 30


def test_a_refused_gang_waits_a_moment_counts_nothing_and_holds_nothing():
    one = World(cluster("1x8"))
    one.submit(job("8 GPUs"))
    one.refused(1)
    assert (one.states()[1], one.jobs[1].failures) == ("QUEUED", 0)
    assert one.engine.pool.free == [8]
    one.check()
    one.tick(at=REFUSAL_PAUSE)
    assert (one.states()[1], one.jobs[1].attempt) == ("STARTING", 2)


def test_held_in_its_back_off_it_stays_held_and_once_released_is_queued_once():
    one = world()
    one.finished(1, 1)
    one.hold(1)
    one.tick(at=1)
    one.release(1)
    one.hold(1)
    one.release(1)
    one.check()
    one.tick(at=back_off(1))
    one.check()
    assert (one.states()[1], one.jobs[1].attempt) == ("STARTING", 2)


def test_cancelled_in_its_back_off_it_is_gone():
    one = world()
    one.finished(1, 1)
    assert one.cancel(1) is None
    one.tick(at=100)
    assert one.states()[1] == "CANCELLED"
    one.check()
