"""Least attained service: levels, crossings without ticks, and the way back to the top."""

from __future__ import annotations

import pytest

from builders import World, cluster, job, trace
from gpusched.jobs.errors import PolicyError
from gpusched.jobs.events import Kind
from gpusched.policies.attained import LeastAttained
from gpusched.policies.catalog import load
from gpusched.policies.testing import check_policy
from gpusched.scheduler.simulate import simulate, trial


def times(policy: str, *asks, nodes: str = "1x8") -> list[tuple[float, float, int]]:
    """(start, end, preemptions) of each job; the policy is told no run times."""
    run = simulate(trace(*asks), cluster(nodes), load(policy), estimates="none")
    return [(one.first_start, one.ended, one.attempt - 1) for one in run.jobs]


@pytest.mark.parametrize(
    "policy",
    [
        "las?step=3h",
        "las-2d?step=8h",
        "tiresias",
        "tiresias-16h",
        "tiresias?limits=8h&promote=4",
        "gittins?step=8h",
        "tiresias?wake=tiresias-artifact",
    ],
)
def test_the_policy_keeps_the_laws(policy):
    check_policy(policy, examples=20)


# Levels ---------------------------------------------------------------------------------------------------------------


def test_a_newcomer_displaces_a_job_that_has_crossed_a_limit():
    asks = [job("8 GPUs for 100 s"), job("8 GPUs for 30 s", at=50)]
    assert times("tiresias?limits=320s", *asks) == [(0, 130, 1), (50, 80, 0)]  # 8 GPUs cross 320 GPU-seconds at 40


def test_within_a_level_those_that_ran_before_go_on():
    asks = [job("8 GPUs for 100 s"), job("8 GPUs for 30 s", at=30)]
    assert times("tiresias?limits=1h", *asks) == [(0, 100, 0), (100, 130, 0)]


def test_the_crossing_itself_is_the_moment_when_a_waiting_job_takes_over():
    asks = [job("8 GPUs for 100 s"), job("8 GPUs for 30 s", at=30)]
    assert times("tiresias?limits=320s", *asks) == [(0, 130, 1), (40, 70, 0)]


def test_wall_time_counts_for_las_and_gpu_time_for_2d_las():
    asks = [job("1 GPU for 100 s"), job("7 GPUs for 100 s"), job("1 GPU for 20 s", at=55)]
    # At 55 the 7 GPUs have had 385 GPU-seconds, the single one 55 s: only 2D-LAS tells them apart.
    assert times("las?step=50s", *asks)[2] == (55, 75, 0)
    assert times("las-2d?step=300s", *asks) == [(0, 100, 0), (0, 120, 1), (55, 75, 0)]


def test_two_jobs_take_turns_of_a_step_under_las():
    asks = [job("8 GPUs for 30 s"), job("8 GPUs for 30 s")]
    found = times("las?step=10s", *asks)
    assert found == [(0, 50, 2), (10, 60, 2)]


def test_it_asks_to_be_woken_for_the_next_crossing_only_while_somebody_waits():
    world = World(cluster("1x8"), "tiresias?limits=320s,800s")
    world.submit(job("8 GPUs, stoppable"))
    world.started(1)
    assert world.engine.next_time() is None
    world.tick(at=10)
    world.submit(job("8 GPUs, stoppable"))
    assert world.engine.next_time() == 40
    world.tick(at=40)
    assert world.states() == {1: "PREEMPTING", 2: "QUEUED"}
    assert world.engine.next_time() is None


def test_what_an_attempt_held_counts_though_it_was_lost():
    world = World(cluster("1x8"), "tiresias?limits=320s")
    world.submit(job("8 GPUs, stoppable", retry=["failure"]), job("8 GPUs"))
    world.started(1)
    world.tick(at=39)
    world.finished(1, 1)  # it failed after 312 GPU-seconds and is tried again later
    assert world.states()[2] == "STARTING"
    world.finished(2)
    world.tick(at=200)
    assert world.states()[1] == "STARTING"
    world.submit(job("8 GPUs"))
    assert world.engine.next_time() == pytest.approx(201)


def test_a_crossing_at_a_time_that_floats_miss_is_made_once():
    world = World(cluster("1x8"), "tiresias?limits=1h")
    world.tick(at=1_700_000_000.1)
    world.submit(job("7 GPUs, stoppable"), job("7 GPUs, stoppable"))
    world.started(1)
    due = world.engine.next_time()
    assert due == pytest.approx(world.now + 3600 / 7)
    world.tick(at=due)
    assert world.states() == {1: "PREEMPTING", 2: "QUEUED"}


# Promotion ------------------------------------------------------------------------------------------------------------


def test_a_job_that_waited_twice_as_long_as_it_ran_is_back_at_the_top_and_its_count_starts_anew():
    stream = [job("8 GPUs for 20 s", at=40 + 20 * number) for number in range(12)]
    starved = times("tiresias?limits=320s", job("8 GPUs for 90 s"), *stream)
    assert starved[0] == (0, 330, 1)  # stopped at 40, and never again before all others
    promoted = times("tiresias?limits=320s&promote=2", job("8 GPUs for 90 s"), *stream)
    # At 120 it has waited 80 s for its 40 s: it goes first, since it ran before the others; at 160 it is demoted again.
    assert promoted[0][2] == 2
    found = trial(
        trace(job("8 GPUs for 90 s"), *stream), cluster("1x8"), load("tiresias?limits=320s&promote=2"), estimates="none"
    )
    moves = [
        (one.time, str(one.kind))
        for one in found.store.journal
        if getattr(one, "job", 0) == 1 and one.kind in {Kind.PLACED, Kind.PREEMPTED}
    ]
    assert moves == [(0, "placed"), (40, "preempted"), (120, "placed"), (160, "preempted"), (240, "placed")]


def test_a_promotion_is_seen_by_what_if_and_by_a_new_start_alike():
    world = World(cluster("1x8"), "tiresias?limits=80s&promote=1")
    world.submit(job("8 GPUs, stoppable"), job("8 GPUs"))
    world.started(1)
    world.tick(at=10)
    world.finished(1, 143)
    assert world.states() == {1: "QUEUED", 2: "STARTING"}
    world.submit(job("8 GPUs"))
    assert [one.id for one in world.engine.queue.in_order()] == [3, 1]
    world.tick(at=20)  # 10 s for its 10 s
    assert [one.id for one in world.engine.queue.in_order()] == [1, 3]
    world.engine.use(load("tiresias?limits=80s&promote=1"))
    world.tick()
    assert [one.id for one in world.engine.queue.in_order()] == [1, 3]


# Bad options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [(0.0,), (10.0, 10.0), (20.0, 10.0), (-1.0, 5.0)])
def test_limits_that_do_not_rise_are_refused(limits):
    with pytest.raises(PolicyError, match="have to rise"):
        LeastAttained(limits=limits)


@pytest.mark.parametrize("wrong", [{}, {"step": -1.0}, {"step": 5.0, "limits": (3.0,)}, {"step": 5.0, "promote": -1.0}])
def test_other_nonsense_is_refused(wrong):
    with pytest.raises(PolicyError, match="either limits or a step"):
        LeastAttained(**wrong)


# The published simulator's own way ------------------------------------------------------------------------------------


def test_the_artifact_demotes_late_where_the_gpus_do_not_divide_the_limit():
    """3 GPUs cross 100 GPU-seconds at 33.3 s; the wake-up is at 33, too early, then at 33 + (100 - 33) // 3."""
    asks = [job("3 GPUs for 90 s"), job("3 GPUs for 10 s")]
    assert times("tiresias?limits=100s&wake=tiresias-artifact", *asks, nodes="1x3")[1][0] == 55
    assert times("tiresias?limits=100s", *asks, nodes="1x3")[1][0] == pytest.approx(100 / 3)


def test_the_artifact_puts_a_demoted_job_behind_those_that_wait_in_its_new_queue():
    asks = [job("1 GPU for 50 s"), job("1 GPU for 50 s"), job("1 GPU for 5 s", at=45)]
    found = times("tiresias?limits=10s&wake=tiresias-artifact", *asks, nodes="1x1")
    # The first is demoted at 10 and the second at 20; both wait in the second queue, where the one that runs stays.
    assert found[2] == (45, 50, 0)
    assert sum(one[2] for one in found) == 3
