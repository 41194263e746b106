"""What `explain` says of a promised start, and of those who wait for the room that is kept for it."""

from __future__ import annotations

from builders import World, cluster, job
from gpusched.policies.plan import Token
from gpusched.scheduler.cli.explain import lines
from gpusched.scheduler.explain import explain
from gpusched.scheduler.views import iso


def test_a_promised_start_is_told_and_for_whom_the_room_is_kept():
    world = World(cluster("1x8"), "easy")
    world.submit(job("6 GPUs, estimate 100 s"), job("8 GPUs, estimate 10 s"), job("2 GPUs, estimate 101 s"))
    head = explain(world.engine, world.jobs[2], world.now)
    assert head.promised == 100
    held_back = explain(world.engine, world.jobs[3], world.now)
    assert held_back.promised is None
    (reason,) = [one for one in held_back.reasons if one.token is Token.RESERVED_FOR_OTHER]
    assert reason.numbers["behind"] == 2
    assert "job 2" in reason.message


def test_a_promise_that_has_passed_is_not_repeated():
    world = World(cluster("1x8"), "easy")
    world.submit(job("6 GPUs, estimate 100 s"), job("8 GPUs, estimate 10 s"))
    assert explain(world.engine, world.jobs[2], 101.0).promised is None


def test_it_is_a_line_for_people():
    said = {
        "job": 2,
        "name": "train",
        "state": "QUEUED",
        "position": 1,
        "reasons": [],
        "summary": "",
        "promised": iso(3600.0),
    }
    assert any(line.startswith("promised to start by in 1h") for line in lines(said, 0.0)), list(lines(said, 0.0))
