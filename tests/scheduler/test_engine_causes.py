"""Retries by cause in the engine: other nodes, pauses that cost no place in the line, and what is said of it."""

from __future__ import annotations

from contextlib import closing

import pytest

from builders import World, cluster, job
from gpusched.jobs.events import Kind
from gpusched.jobs.job import RetryRule, Rule
from gpusched.jobs.outcome import back_off
from gpusched.policies.catalog import load
from gpusched.policies.plan import Token
from gpusched.scheduler.engine import REFUSAL_PAUSE, Engine
from gpusched.scheduler.explain import explain
from gpusched.scheduler.store.queries import job_attempts
from gpusched.scheduler.store.sql import SqlStore

OOM = {"exit_code": 137, "signal": 9, "cause": "oom", "cause_detail": "out of memory: the kernel killed 1 process"}
ELSEWHERE = RetryRule(3, ("failure", "lost"), (Rule(("oom",), "retry_elsewhere"),))


def world(words: str, ask: str, rule: RetryRule = ELSEWHERE, policy: str = "binpack", **more) -> World:
    one = World(cluster(words), policy, **more)
    one.submit(job(ask))
    one.jobs[1].retry = rule
    one.started(1)
    return one


def on(one: World, job_id: int) -> list[str]:
    return [one.engine.pool.nodes[piece.node].name for piece in one.jobs[job_id].placement]


def fails(one: World, job_id: int, data: dict, *, wait: float = 0.0) -> None:
    one.report(Kind.FINISHED, job_id, data=data)
    one.tick(at=one.now + wait)


def test_a_retry_elsewhere_goes_to_another_node_though_the_first_is_the_tightest():
    one = world("2x8", "1 GPU")
    assert on(one, 1) == ["n0"]
    fails(one, 1, OOM, wait=back_off(1))
    assert (on(one, 1), one.jobs[1].shape.avoid, one.jobs[1].failures) == (["n1"], ("n0",), 1)
    one.check()


def test_of_a_gang_only_the_node_of_the_rank_that_failed_first_is_avoided():
    one = world("3x8", "2x8 GPUs")
    fails(one, 1, {**OOM, "failed_rank": 1}, wait=back_off(1))
    assert on(one, 1) == ["n0", "n2"]


def test_where_the_others_could_not_hold_it_it_may_go_back_and_that_is_said():
    one = world("2x8", "2x8 GPUs")
    fails(one, 1, {**OOM, "failed_rank": 0})
    reasons = explain(one.engine, one.jobs[1], one.now).reasons
    said = next(reason for reason in reasons if reason.token is Token.AVOIDS_NODES)
    assert said.message == "it failed on n0, and may go there again: the others that take work could not hold it"
    one.tick(at=back_off(1))
    assert sorted(on(one, 1)) == ["n0", "n1"]


def test_it_waits_for_another_node_that_is_busy_and_goes_back_when_that_one_leaves():
    one = world("2x8", "8 GPUs")
    one.submit(job("8 GPUs"))
    fails(one, 1, OOM, wait=back_off(1))
    assert one.states()[1] == "QUEUED"
    reasons = {reason.token: reason.message for reason in explain(one.engine, one.jobs[1], one.now).reasons}
    assert reasons[Token.AVOIDS_NODES] == "8 GPUs free on n0, which it avoids because it failed there"
    assert Token.INFEASIBLE not in reasons
    one.change("n1", gone=True)
    assert on(one, 1) == ["n0"]


def test_where_too_few_would_be_left_it_keeps_off_those_that_failed_last():
    one = world("3x8", "2x8 GPUs")
    fails(one, 1, {**OOM, "failed_rank": 0}, wait=back_off(1))
    assert on(one, 1) == ["n1", "n2"]
    one.started(1)
    fails(one, 1, {**OOM, "failed_rank": 1}, wait=back_off(2))
    assert (on(one, 1), one.jobs[1].shape.avoid) == (["n0", "n1"], ("n2",))


def test_what_is_avoided_and_used_up_survives_a_restart(tmp_path):
    with closing(SqlStore(f"sqlite:///{tmp_path}/gpusched.db")) as store:
        rule = RetryRule(3, (), (Rule(("oom",), "retry_elsewhere", 1), Rule(("exit:1",), "requeue")))
        one = world("3x8", "1 GPU", rule, store=store)
        fails(one, 1, {**OOM, "checkpoint": {"step": 7, "time": 0.0}}, wait=back_off(1))
        one.started(1)
        fails(one, 1, {"exit_code": 1, "cause": "exit"})
        before = one.jobs[1]
        (after,) = store.unfinished()
        assert (after.shape, after.tried, after.failures, after.cause) == (
            (before.shape, before.tried, before.failures, before.cause)
        )
        assert (after.shape.avoid, after.tried.step, after.tried.rules, after.tried.fruitless) == (("n0",), 7, (1,), 1)
        with store.reader() as connection:
            first, second = job_attempts(connection, 1)
        assert (first.cause, first.failed_node, first.result) == ("oom", "n0", "retried")
        assert (second.cause, second.result) == ("exit:1", "requeued")


def test_a_limit_of_a_rule_counts_that_rule_alone():
    rules = (Rule(("oom",), "retry", 1), Rule(("exit:1",), "retry"))
    one = world("1x8", "1 GPU", RetryRule(5, (), rules))
    for data in (OOM, {"exit_code": 1}, {"exit_code": 1}):
        fails(one, 1, data, wait=300)
        assert one.states()[1] == "STARTING"
        one.started(1)
    fails(one, 1, OOM)
    assert one.states()[1] == "FAILED"
    assert one.jobs[1].reason.endswith("not tried again: 1 of 1 retries are used up, by rule 1 of its `retry`")


POLICIES = ["fifo", "priority", "multifactor", "las", "las-2d", "srtf", "tiresias", "gittins", "sjf", "easy"]


@pytest.mark.parametrize("policy", [*POLICIES, "conservative"])
def test_in_its_back_off_a_job_loses_no_place_to_one_that_came_later(policy):
    """Two equal jobs, one of which failed at once: when its pause is over it goes first, as it would have without."""
    one = World(cluster("1x8"), policy)
    first, blocker, later = "8 GPUs for 100 s", "8 GPUs for 100 s", "8 GPUs for 100 s"
    one.submit(job(first, retry=("failure",)))
    one.tick(at=1)
    one.submit(job(blocker))
    one.report(Kind.FINISHED, 1, data={"exit_code": 1})  # at 1 s: it has run for no time that would be held against it
    assert one.states() == {1: "QUEUED", 2: "STARTING"}
    one.started(2)
    one.tick(at=2)
    one.submit(job(later))
    one.tick(at=1 + back_off(1))
    assert [waiting.id for waiting in one.engine.queue.in_order()] == [1, 3]
    one.tick(at=101)
    one.finished(2)
    assert one.states()[1] == "STARTING"


def test_a_refusal_costs_no_waiting_time():
    """The clock of a job that was refused goes on: what it waited before counts for its patience and its age."""
    one = World(cluster("1x8"))
    one.submit(job("8 GPUs"), job("8 GPUs"))
    one.tick(at=50)
    one.finished(1)
    one.refused(2)
    assert (one.jobs[2].queued, one.jobs[2].not_before) == (0, 50 + REFUSAL_PAUSE)


def test_explain_says_until_when_and_why():
    one = world("1x8", "1 GPU", RetryRule(3, ("failure",), backoff=(40.0, 60.0)))
    fails(one, 1, {"exit_code": 3, "cause": "exit", "failed_rank": 0})
    (reason,) = explain(one.engine, one.jobs[1], one.now + 10).reasons
    assert reason.token is Token.BEGIN_TIME
    assert reason.message == (
        "the next attempt is not before 30 s from now, at 40 s, failed 1 time so far: exit code 3; retry 1 of 3"
    )
    assert (reason.numbers["not_before"], reason.numbers["cause"]) == (40.0, "exit:3")


def test_a_pause_outlives_a_restart():
    one = world("1x8", "1 GPU", RetryRule(3, ("failure",), backoff=(40.0, 60.0)))
    fails(one, 1, {"exit_code": 3})
    engine = Engine(store=one.store, backend=one.backend, policy=load("fifo"), inbox=one.inbox)
    engine.recover([one.jobs[1]], [], 10.0)
    assert engine.next_time() == 40.0


def test_a_node_that_goes_counts_nothing_and_the_job_starts_again_at_once():
    one = world("2x8", "1 GPU", RetryRule(1, ("lost",)))
    one.report(Kind.VANISHED, 1, data={"message": "node n0 is gone", "cause": "node_lost", "node": "n0"})
    assert (one.states()[1], one.jobs[1].failures, one.jobs[1].attempt) == ("STARTING", 0, 2)
    assert one.jobs[1].cause == "node_lost"
