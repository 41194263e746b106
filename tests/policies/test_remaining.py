"""Shortest first: who gives way to whom, when, and for how much."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import World, cluster, job, trace
from gpusched.cluster.backend import Node
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Shape
from gpusched.jobs.traces.trace import Trace, TraceJob
from gpusched.policies.catalog import load
from gpusched.policies.plan import Token
from gpusched.policies.testing import check_policy
from gpusched.scheduler.simulate import simulate, trial

POLICIES = ["srtf", "srsf", "smallest", "srtf?margin=5s", "srtf?aging=0.5", "srsf?margin=2s&aging=2", "sjf?aging=1"]


def times(policy: str, *asks, nodes: str = "1x8") -> list[tuple[float, float, int]]:
    """(start, end, preemptions) of each job."""
    run = simulate(trace(*asks), cluster(nodes), load(policy))
    return [(one.first_start, one.ended, one.attempt - 1) for one in sorted(run.jobs, key=lambda one: one.id)]


@pytest.mark.parametrize("policy", POLICIES)
def test_the_policy_keeps_the_laws(policy):
    check_policy(policy, examples=40)


# By hand --------------------------------------------------------------------------------------------------------------

LONG = job("8 GPUs for 100 s")


def test_a_shorter_job_takes_the_place_of_a_longer_one_that_then_goes_on_with_the_rest():
    assert times("srtf", LONG, job("8 GPUs for 10 s", at=40)) == [(0, 110, 1), (40, 50, 0)]


def test_what_counts_is_what_is_left_not_the_whole_run():
    assert times("srtf", LONG, job("8 GPUs for 10 s", at=95)) == [(0, 100, 0), (100, 110, 0)]


def test_without_preemption_the_shorter_one_waits():
    assert times("srtf?preempt=no", LONG, job("8 GPUs for 10 s", at=40)) == [(0, 100, 0), (100, 110, 0)]


def test_as_few_jobs_as_it_takes_give_way_those_with_the_most_left_first():
    asks = [job("2 GPUs for 50 s"), job("2 GPUs for 70 s"), job("4 GPUs for 60 s"), job("3 GPUs for 10 s", at=1)]
    # The 70 s leave 2 GPUs, too few; with the 60 s gone as well the 70 s fit again.
    assert times("srtf", *asks) == [(0, 50, 0), (0, 70, 0), (0, 70, 1), (1, 11, 0)]


def test_nobody_is_stopped_for_a_job_that_would_not_fit_then_either():
    asks = [job("4 GPUs for 5 s"), job("4 GPUs for 100 s"), job("8 GPUs for 20 s", at=1)]
    assert times("srtf", *asks) == [(0, 5, 0), (0, 120, 1), (5, 25, 0)]


def test_srsf_weighs_run_time_by_gpus():
    asks = [job("8 GPUs for 20 s"), job("1 GPU for 100 s", at=1)]
    assert times("srsf", *asks) == [(0, 120, 1), (1, 101, 0)]  # 152 GPU-seconds are left against 100
    assert times("srtf", *asks) == [(0, 20, 0), (20, 120, 0)]


def test_smallest_asks_for_no_estimate():
    run = simulate(
        trace(job("8 GPUs for 20 s"), job("1 GPU for 100 s", at=1)), cluster("1x8"), load("smallest"), estimates="none"
    )
    assert [(one.first_start, one.ended) for one in run.jobs] == [(0, 120), (1, 101)]


def test_jobs_without_an_estimate_come_last_and_do_not_displace_each_other():
    world = World(cluster("1x8"), "srtf")
    for _ in range(2):
        (new,) = world.submit(job("8 GPUs, stoppable"))
        new.estimate = None
    world.tick(at=5)
    world.submit(job("1 GPU for 10 s"))
    assert world.states()[1] == "PREEMPTING"
    assert world.states()[2] == "QUEUED"


# Hysteresis and aging -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("margin", "stopped"), [(0, 1), (49, 1), (50, 0), (60, 0)])
def test_a_margin_keeps_a_job_that_is_behind_by_no_more_than_that(margin, stopped):
    asks = [LONG, job("8 GPUs for 40 s", at=10)]  # 90 s are left against 40
    assert times(f"srtf?margin={margin}s", *asks)[0][2] == stopped


def test_a_margin_of_srsf_counts_for_each_gpu_of_the_job_that_would_go():
    asks = [job("8 GPUs for 100 s"), job("1 GPU for 400 s", at=10)]  # 720 against 400 GPU-seconds
    assert times("srsf?margin=39s", *asks)[0][2] == 1
    assert times("srsf?margin=40s", *asks)[0][2] == 0


def test_with_aging_a_long_job_is_overtaken_only_by_those_that_come_in_time():
    stream = [job("8 GPUs for 10 s", at=10 * number) for number in range(1, 60)]
    starved = times("srtf", job("8 GPUs for 10 s"), job("8 GPUs for 100 s", at=1), *stream)
    aged = times("srtf?aging=1", job("8 GPUs for 10 s"), job("8 GPUs for 100 s", at=1), *stream)
    assert starved[1][0] == 600
    # 100 s of work at second 1 are as good as 10 s of work at second 91: those that come until 91 go first.
    assert aged[1] == (100, 200, 0)


@pytest.mark.parametrize("policy", ["srtf?aging=1", "sjf?aging=1", "srsf?aging=8"])
def test_a_job_that_has_aged_is_not_stopped_at_once_by_those_that_it_overtook(policy):
    asks = [
        job("8 GPUs for 10 s"),
        job("8 GPUs for 50 s", at=1),
        *[job("8 GPUs for 10 s", at=5 + n) for n in range(50)],
    ]
    assert times(policy, *asks)[1][2] == 0


# Live -----------------------------------------------------------------------------------------------------------------


def test_a_victim_has_its_grace_and_the_claimant_waits_for_it():
    world = World(cluster("1x8"), "srtf")
    world.submit(job("8 GPUs for 100 s, stoppable"))
    world.started(1)
    world.tick(at=10)
    world.submit(job("4 GPUs for 5 s"))
    assert world.states() == {1: "PREEMPTING", 2: "QUEUED"}
    assert world.engine.queue.group_of(world.jobs[2]).why.token is Token.WAITING_FOR_VICTIMS
    assert [number for number, *_ in world.backend.stopped] == [1]
    world.submit(job("4 GPUs for 1 s"), job("1 GPU for 3000 s"))  # the victim's other GPUs are kept for nobody else
    assert [number for number, *_ in world.backend.stopped] == [1]
    world.finished(1, 143)
    assert world.states() == {1: "QUEUED", 2: "STARTING", 3: "STARTING", 4: "QUEUED"}


def test_jobs_that_may_not_be_stopped_stay():
    world = World(cluster("1x8"), "srtf")
    world.submit(job("8 GPUs for 100 s"))
    world.tick(at=10)
    world.submit(job("8 GPUs for 5 s"))
    assert world.states() == {1: "STARTING", 2: "QUEUED"}


def test_a_minimum_run_time_is_waited_for_without_ticks():
    world = World(cluster("1x8"), "srtf")
    world.submit(job("8 GPUs for 100 s, stoppable, at least 30 s"))
    world.started(1)
    world.tick(at=10)
    world.submit(job("8 GPUs for 5 s"))
    assert world.states() == {1: "RUNNING", 2: "QUEUED"}
    assert world.engine.next_time() == 30
    world.tick(at=30)
    assert world.states()[1] == "PREEMPTING"


def test_what_if_leaves_no_trace_of_a_claim():
    world = World(cluster("1x8"), "srtf")
    world.submit(job("8 GPUs for 100 s, stoppable"))
    world.started(1)
    world.tick(at=10)
    (new,) = world.submit(job("8 GPUs for 5 s, held"))
    plan = world.engine.foresee([new], world.now)
    assert [(victim.id, claimant) for victim, claimant in plan.preemptions] == [(1, 2)]
    world.tick(at=20)
    assert world.states() == {1: "RUNNING", 2: "HELD"}


# Laws of what a run looks like ----------------------------------------------------------------------------------------

drawn_jobs = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([1, 1, 2, 3, 4, 8]), st.integers(1, 20)), min_size=2, max_size=16
)


def played(drawn, policy: str, nodes: int = 2, size: int = 4):
    drawn = sorted(drawn, key=lambda one: one[0])
    rows = [
        TraceJob(number, "", at - drawn[0][0], lasts, Shape(0, gpus)) for number, (at, gpus, lasts) in enumerate(drawn)
    ]
    return trial(Trace(rows, "drawn", "drawn"), [Node(f"n{number}", size) for number in range(nodes)], load(policy))


@settings(max_examples=80)
@given(drawn_jobs, st.sampled_from(["srtf", "srsf", "smallest", "las?step=3s", "tiresias?limits=8s,30s", "gittins"]))
def test_every_preemption_starts_its_claimant_at_that_instant_and_nobody_goes_in_circles(drawn, policy):
    found = played(drawn, policy)
    events = found.store.journal
    placed = [(one.time, one.job) for one in events if getattr(one, "kind", None) is Kind.PLACED]
    stopped = [
        (one.time, one.job, one.data["claimant"]) for one in events if getattr(one, "kind", None) is Kind.PREEMPTED
    ]
    assert all((time, claimant) in placed for time, _, claimant in stopped)
    assert len({(time, victim) for time, victim, _ in stopped}) == len(stopped)
    assert len(set(placed)) == len(placed), "a job may be moved at one instant, and no more"


@settings(max_examples=80)
@given(drawn_jobs)
def test_no_shorter_job_that_would_fit_waits_behind_a_longer_one(drawn):
    """Under `count`, at every instant: whoever waits would not fit even if all with more left were gone."""
    found = played(drawn, "srtf+count+skip+preempt")
    spans: dict[int, list[list[float]]] = {}
    for one in found.store.journal:
        kind = getattr(one, "kind", None)
        if kind is Kind.PLACED:
            spans.setdefault(one.job, []).append([one.time, float("inf")])
        elif kind in {Kind.PREEMPTED, Kind.SUCCEEDED, Kind.FINISHED}:
            spans[one.job][-1][1] = one.time
    jobs = {one.id: one for one in found.run.jobs}

    def runs(number: int, now: float) -> bool:
        return any(start <= now < end for start, end in spans[number])

    def left(number: int, now: float) -> float:
        return jobs[number].estimate - sum(min(end, now) - start for start, end in spans[number] if start < now)

    for now in sorted({time for each in spans.values() for span in each for time in span if time < 1e9}):
        live = [number for number, one in jobs.items() if one.submitted <= now and left(number, now) > 0]
        for number in live:
            if not runs(number, now):
                ahead = [other for other in live if runs(other, now) and left(other, now) <= left(number, now)]
                room = 8 - sum(jobs[other].shape.gpus for other in ahead)
                assert jobs[number].shape.gpus > room, f"job {number} waits at {now}"
