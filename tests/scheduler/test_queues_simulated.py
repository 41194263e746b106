"""Queues in a simulation, and under an engine whose queues change while jobs run: nothing is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import World, cluster, job, trace
from gpusched.jobs.errors import TraceError
from gpusched.jobs.job import State
from gpusched.jobs.traces.trace import Trace
from gpusched.policies.catalog import load
from gpusched.policies.plan import Token
from gpusched.policies.tree import Tree
from gpusched.scheduler.queues import parse_queues
from gpusched.scheduler.simulate import simulate


def tree(text: str) -> Tree:
    return parse_queues(text, file="queues")


def of_queues(*named: tuple[str, str]) -> Trace:
    """A trace from (queue, words of a job)."""
    return trace(*(replace(job(words), queue=queue) for queue, words in named))


TWO = tree("queues: [{name: lab}, {name: a, parent: lab, nominal_quota: 6}, {name: b, parent: lab, nominal_quota: 2}]")
FIRM = tree("queues: [{name: a, nominal_quota: 6}, {name: b, nominal_quota: 2}]")


def starts(run) -> list[float]:
    return [one.first_start for one in sorted(run.jobs, key=lambda one: one.id)]


def test_a_quota_holds_jobs_back_where_nobody_lends():
    jobs = of_queues(("b", "2 GPUs for 10 s"), ("b", "2 GPUs for 10 s"), ("a", "4 GPUs for 10 s"))
    assert starts(simulate(jobs, cluster("1x8"), load("binpack"))) == [0, 0, 0]
    assert starts(simulate(jobs, cluster("1x8"), load("binpack"), tree=FIRM)) == [0, 10, 0]
    assert starts(simulate(jobs, cluster("1x8"), load("binpack"), tree=TWO)) == [0, 0, 0]


def test_jobs_that_name_no_queue_go_to_the_default_one():
    jobs = of_queues(("default", "2 GPUs for 10 s"), ("default", "2 GPUs for 10 s"))
    run = simulate(jobs, cluster("1x8"), load("binpack"), tree=Tree(FIRM.queues, "b"))
    assert [one.queue for one in run.jobs] == ["b", "b"]
    assert starts(run) == [0, 10]


def test_what_a_queue_could_never_hold_is_rejected_with_the_reason():
    jobs = of_queues(("b", "3 GPUs for 10 s"), ("b", "2 GPUs for 10 s"))
    run = simulate(jobs, cluster("1x8"), load("fifo"), tree=FIRM)
    assert [why for _, why in run.rejected] == ["asks for 3 GPUs, and queue b with all it borrows could have 2"]
    assert starts(run) == [0]


def test_a_trace_for_queues_that_are_not_there_is_refused_with_their_names_and_numbers():
    jobs = of_queues(("a", "1 GPU"), ("x", "1 GPU"), ("y", "1 GPU"), ("x", "2 GPUs"))
    with pytest.raises(TraceError) as caught:
        simulate(jobs, cluster("1x8"), load("fifo"), tree=FIRM)
    assert caught.value.message == (
        "3 jobs of the trace are for queues that the queue file does not have: x (2), y (1)"
    )
    assert "the queues that take jobs are a, b" in caught.value.hint


CHANGES = [
    "queues: [{name: a, nominal_quota: 6}, {name: b, nominal_quota: 2}]",
    "queues: [{name: a, paused: true}]",
    "queues: [{name: lab, nominal_quota: 3}, {name: b, parent: lab}]",
    "queues: [{name: a}, {name: below, parent: a, nominal_quota: 1}]",
    "queues: [{name: other}]",
    "",
]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_becomes_of_their_queues_no_job_is_lost(data):
    world = World(cluster("2x4"), data.draw(st.sampled_from(["fifo", "binpack", "gang", "priority"])))
    for _ in range(data.draw(st.integers(1, 15))):
        what = data.draw(st.sampled_from(["submit", "submit", "end", "change"]))
        holding = [one.id for one in world.running()]
        if what == "submit":
            ask = job(f"{data.draw(st.integers(2, 4))} GPUs")
            world.submit(replace(ask, queue=data.draw(st.sampled_from("ab")), stoppable=data.draw(st.booleans())))
        elif what == "end" and holding:
            world.finished(data.draw(st.sampled_from(holding)))
        elif what == "change":
            text = data.draw(st.sampled_from(CHANGES))
            world.engine.use_tree(tree(text) if text else None)
            world.tick()
        world.check()
    world.engine.use_tree(tree("queues: [{name: other}]"))
    world.tick()
    for one in world.jobs.values():
        if one.state is State.QUEUED:
            assert world.engine.queue.group_of(one).why.token is Token.QUEUE_NOT_FOUND
    while holding := [one.id for one in world.running()]:
        world.finished(holding[0])
    world.engine.use_tree(None)
    world.tick()
    while holding := [one.id for one in world.running()]:
        world.finished(holding[0])
    assert {one.state for one in world.jobs.values()} <= {State.SUCCEEDED}
