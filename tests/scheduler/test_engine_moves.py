"""The table of moves: every edge taken by the real engine, and late or repeated news that change nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builders import World, cluster, job
from gpusched.jobs.events import MOVES, Kind
from gpusched.jobs.job import FINAL, HOLDING, WAITING, State
from gpusched.policies.greedy import Greedy
from gpusched.policies.plan import Plan, Preemption

BACKEND_NEWS = (Kind.STARTED, Kind.REFUSED, Kind.FINISHED, Kind.VANISHED)
RETRIED = ("failure", "lost")


class Preempting(Greedy):
    """Takes a job's GPUs back when the test says so."""

    victim = 0

    def plan(self, now, queue, pool):
        if not self.victim:
            return super().plan(now, queue, pool)
        victims = [Preemption(one, 0) for one in self.world.jobs.values() if one.id == self.victim]
        self.victim = 0
        return Plan(preemptions=victims)


def world(words: str = "4 GPUs", *, retry: tuple[str, ...] = ()) -> World:
    policy = Preempting("preempting")
    made = World(cluster("1x4"), policy)
    policy.world = made
    made.submit(job(words, retry=retry))
    return made


def held() -> World:
    return world("4 GPUs, held")


def queued() -> World:
    """It waits behind another."""
    made = World(cluster("1x4"))
    made.submit(job("4 GPUs"), job("4 GPUs"))
    return made


def starting(*, retry: tuple[str, ...] = (), words: str = "4 GPUs") -> World:
    return world(words, retry=retry)


def running(*, retry: tuple[str, ...] = (), words: str = "4 GPUs") -> World:
    made = starting(retry=retry, words=words)
    made.started(1)
    return made


def preempt(made: World) -> None:
    made.policy.victim = 1
    made.submit(job("1 GPU"))  # the policy is asked when there is something to ask


def preempting() -> World:
    made = running()
    preempt(made)
    return made


def stopping() -> World:
    made = running()
    made.cancel(1)
    return made


def expired() -> World:
    made = running(words="4 GPUs, limit 30 s")
    made.tick(at=30)
    return made


Step = Callable[[World], object]

EDGES: dict[tuple[State, Kind], tuple[Callable[[], World], Step]] = {
    (State.HELD, Kind.RELEASED): (held, lambda w: w.release(1)),
    (State.HELD, Kind.CANCELLED): (held, lambda w: w.cancel(1)),
    (State.QUEUED, Kind.HELD): (queued, lambda w: w.hold(2)),
    (State.QUEUED, Kind.CANCELLED): (queued, lambda w: w.cancel(2)),
    (State.QUEUED, Kind.PLACED): (queued, lambda w: w.finished(1)),
    (State.STARTING, Kind.STARTED): (starting, lambda w: w.started(1)),
    (State.STARTING, Kind.REFUSED): (starting, lambda w: w.refused(1)),
    (State.STARTING, Kind.CANCELLED): (starting, lambda w: w.cancel(1)),
    (State.STARTING, Kind.PREEMPTED): (starting, preempt),
    (State.STARTING, Kind.SUCCEEDED): (starting, lambda w: w.finished(1)),
    (State.STARTING, Kind.FAILED): (starting, lambda w: w.finished(1, 1)),
    (State.STARTING, Kind.RETRIED): (lambda: starting(retry=RETRIED), lambda w: w.finished(1, 1)),
    (State.STARTING, Kind.REQUEUED): (starting, lambda w: w.finished(1, 75)),
    (State.STARTING, Kind.LOST): (starting, lambda w: w.vanished(1)),
    (State.RUNNING, Kind.CANCELLED): (running, lambda w: w.cancel(1)),
    (State.RUNNING, Kind.PREEMPTED): (running, preempt),
    (State.RUNNING, Kind.EXPIRED): (lambda: running(words="4 GPUs, limit 30 s"), lambda w: w.tick(at=30)),
    (State.RUNNING, Kind.SUCCEEDED): (running, lambda w: w.finished(1)),
    (State.RUNNING, Kind.FAILED): (running, lambda w: w.finished(1, 1)),
    (State.RUNNING, Kind.RETRIED): (lambda: running(retry=RETRIED), lambda w: w.vanished(1)),
    (State.RUNNING, Kind.REQUEUED): (running, lambda w: w.finished(1, 75)),
    (State.RUNNING, Kind.LOST): (running, lambda w: w.vanished(1)),
    (State.PREEMPTING, Kind.CANCELLED): (preempting, lambda w: w.cancel(1)),
    (State.PREEMPTING, Kind.SUCCEEDED): (preempting, lambda w: w.finished(1)),
    (State.PREEMPTING, Kind.REQUEUED): (preempting, lambda w: w.finished(1, 143)),
    (State.STOPPING, Kind.STOPPED): (stopping, lambda w: w.finished(1, 143)),
    (State.STOPPING, Kind.TIMED_OUT): (expired, lambda w: w.finished(1, 143)),
}


def test_every_edge_of_the_table_has_a_case_here():
    table = {(state, kind) for state, moves in MOVES.items() for kind in moves}
    assert EDGES.keys() == table


@pytest.mark.parametrize(("state", "kind"), EDGES, ids=str)
def test_an_edge_is_taken(state, kind):
    build, step = EDGES[state, kind]
    made = build()
    number = 2 if build is queued else 1
    assert made.jobs[number].state is state
    step(made)
    taken = [event.kind for _, event in made.store.events(number)]
    assert kind in taken
    told = MOVES[state][kind]
    assert told.why
    if kind is not Kind.RELEASED:  # a released job is placed in the same turn
        assert made.jobs[number].state in {told.to, State.STARTING}
    made.check()


def test_every_state_can_be_entered_and_every_state_but_the_final_ones_left():
    entered = {move.to for moves in MOVES.values() for move in moves.values()} | {State.QUEUED, State.HELD}
    assert entered == set(State)
    assert {state for state, moves in MOVES.items() if not moves} == FINAL
    assert MOVES.keys() == set(State)


def test_states_are_waiting_holding_or_final_and_nothing_twice():
    assert set(State) == WAITING | HOLDING | FINAL
    assert len(State) == len(WAITING) + len(HOLDING) + len(FINAL)


def test_every_edge_has_a_reason_of_its_own_words():
    for moves in MOVES.values():
        for move in moves.values():
            assert len(move.why.split()) > 3, move


FINALS: dict[State, Callable[[], World]] = {
    State.SUCCEEDED: running,
    State.FAILED: running,
    State.CANCELLED: stopping,
    State.TIMEOUT: expired,
    State.LOST: running,
}


@pytest.mark.parametrize("state", FINALS)
def test_nothing_moves_a_job_that_has_ended(state):
    made = FINALS[state]()
    if state is State.LOST:
        made.vanished(1)
    else:
        made.finished(1, 0 if state is State.SUCCEEDED else 1)
    ended = made.jobs[1]
    assert ended.state is state
    before = (made.events(1), ended.ended, ended.exit_code, ended.gpu_seconds)
    for kind in BACKEND_NEWS:
        made.report(kind, 1, data={"exit_code": 9})
    for kind in (Kind.CANCELLED, Kind.HELD, Kind.RELEASED):
        refusal = made.ask(kind, 1)
        assert refusal is not None
        assert "finished already" in str(refusal)
    assert (made.events(1), ended.ended, ended.exit_code, ended.gpu_seconds) == before
    made.check()


def test_news_of_an_old_attempt_change_nothing():
    made = running(retry=RETRIED)
    made.vanished(1)
    assert made.jobs[1].attempt == 2
    before = made.events(1)
    for kind in BACKEND_NEWS:
        made.report(kind, 1, attempt=1, data={"exit_code": 0})
    assert made.events(1) == before
    assert made.jobs[1].state is State.STARTING


def test_a_start_that_is_reported_after_the_cancel_changes_nothing():
    made = starting()
    made.cancel(1)
    made.started(1)
    assert made.jobs[1].state is State.STOPPING
    assert made.events(1) == ["submitted", "placed", "cancelled"]
    made.finished(1, 143)
    assert made.jobs[1].state is State.CANCELLED


def test_a_start_that_is_reported_twice_counts_its_limit_once():
    made = running(words="4 GPUs, limit 30 s")
    made.tick(at=10)
    made.started(1)
    assert made.jobs[1].started == 0
    made.tick(at=30)
    assert made.jobs[1].state is State.STOPPING
    assert len(made.backend.stopped) == 1


def test_a_refusal_after_the_start_changes_nothing():
    made = running()
    made.refused(1)
    assert made.jobs[1].state is State.RUNNING


def test_an_end_that_comes_without_its_start_counts():
    made = starting()
    made.finished(1)
    assert made.jobs[1].state is State.SUCCEEDED
    assert made.jobs[1].started is None


def test_news_of_a_job_that_nobody_knows_change_nothing():
    made = running()
    made.backend.events = [event._replace(job=99) for _, event in made.store.events(1)]
    made.tick()
    made.check()


def test_a_limit_that_runs_out_when_the_job_has_ended_or_runs_anew_stops_nothing():
    made = running(words="4 GPUs, limit 30 s", retry=RETRIED)
    made.tick(at=20)
    made.vanished(1)
    made.started(1)
    made.tick(at=30)
    assert made.jobs[1].state is State.RUNNING, "the limit is an attempt's, not the job's"
    made.tick(at=50)
    assert made.jobs[1].state is State.STOPPING


def test_a_job_that_succeeds_while_it_is_stopped_counts_as_stopped():
    made = stopping()
    made.finished(1, 0)
    assert made.jobs[1].state is State.CANCELLED


def test_a_cancel_after_the_time_limit_makes_no_second_stop():
    made = expired()
    refusal = made.cancel(1)
    assert refusal is not None
    assert "is STOPPING" in str(refusal)
    made.vanished(1)
    assert made.jobs[1].state is State.TIMEOUT


def test_a_stop_gives_the_jobs_own_grace():
    made = running(retry=RETRIED)
    made.cancel(1)
    assert made.backend.stopped == [(1, 1, 30.0)]
    other = running()
    other.cancel(1)
    assert other.backend.stopped == [(1, 1, 60.0)]
