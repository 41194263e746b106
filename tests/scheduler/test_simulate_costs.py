"""Whole replays under a profile: the timelines, the accounts, and that policies meet the same faults."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import Ask, cluster, job, trace
from gpusched.cluster.profile import (
    NEVER,
    ZERO,
    Checkpoints,
    Failures,
    NodeLife,
    Overruns,
    Place,
    Profile,
    Rates,
)
from gpusched.cluster.profile_file import read_text
from gpusched.jobs.errors import SpecError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import FINAL, Job, State
from gpusched.jobs.traces.catalog import read_trace
from gpusched.policies.blocking import Skip, Strict
from gpusched.policies.catalog import load
from gpusched.policies.greedy import Greedy
from gpusched.policies.place import PLACERS
from gpusched.policies.reclaim import ByOrder
from gpusched.scheduler.bounds import lower_bounds
from gpusched.scheduler.report import Run
from gpusched.scheduler.simulate import simulate

ENDS = frozenset(
    {Kind.SUCCEEDED, Kind.FAILED, Kind.RETRIED, Kind.REQUEUED, Kind.STOPPED, Kind.TIMED_OUT, Kind.LOST, Kind.REFUSED}
)
HOUR = 3600.0


def urgent() -> Greedy:
    """Higher priority stops lower."""
    return Greedy(
        "urgent",
        order=lambda one: (-one.priority, one.submitted),
        place=PLACERS["first_fit"],
        blocking=Strict(),
        reclaim=ByOrder(),
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt, as the journal tells of it."""

    job: int
    placed: float
    ended: float
    how: Kind
    kept: float
    lost: float
    overhead: float
    rate: float


def attempts(run: Run) -> list[Attempt]:
    placed: dict[int, float] = {}
    found = []
    for event in run.journal:
        if event.kind is Kind.PLACED:
            placed[event.job] = event.time
        elif event.kind in ENDS:
            began, data = placed.pop(event.job), event.data or {}
            account = data.get("kept", event.time - began), data.get("lost", 0), data.get("overhead", 0)
            found.append(Attempt(event.job, began, event.time, event.kind, *account, data.get("rate", 1)))
    assert not placed, "what was placed has ended"
    return found


def told(run: Run, number: int) -> list[tuple[float, str]]:
    """What happened to a job, and when."""
    return [(event.time, str(event.kind)) for event in run.journal if event.job == number]


# Timelines --------------------------------------------------------------------------------------------------------


def test_a_preempted_job_holds_its_gpus_until_it_is_gone_and_pays_for_its_return():
    """Start-up 3 s, restore 7 s, grace 4 s, a checkpoint of 2 s after each 10 s of work; 100 s of work."""
    run = simulate(
        trace(job("8 GPUs for 100 s, priority 10"), job("8 GPUs for 5 s, priority 90", at=40)),
        cluster("1x8"),
        urgent(),
        profile=Profile(3, 7, 4, Checkpoints(10, 2)),
    )
    assert told(run, 1) == [
        (0, "submitted"),
        (0, "placed"),
        (3, "started"),
        (40, "preempted"),
        (44, "requeued"),
        (52, "placed"),
        (55, "started"),
        (144, "succeeded"),  # 62 + 70 s of work + 6 checkpoints
    ]
    assert told(run, 2) == [(40, "submitted"), (44, "placed"), (47, "started"), (52, "succeeded")]
    assert [(one.job, one.kept, one.lost, one.overhead) for one in attempts(run)] == [
        (1, 30, 1, 13),
        (2, 5, 0, 3),
        (1, 70, 0, 22),
    ]


def test_what_it_is_worth_to_save_before_a_stop():
    asks = [job("8 GPUs for 100 s, priority 10"), job("8 GPUs for 5 s, priority 90", at=40)]
    profile = Profile(grace=4, checkpoints=Checkpoints(NEVER, 4))
    ends = []
    for before_stop in (False, True):
        saves = replace(profile, checkpoints=replace(profile.checkpoints, before_stop=before_stop))
        run = simulate(trace(*asks), cluster("1x8"), urgent(), profile=saves)
        ends.append(run.jobs[0].ended)
    assert ends == [49 + 100, 49 + 60]


def test_policies_are_told_how_much_work_is_left():
    seen: list[tuple[float, float]] = []

    class Watching(Greedy):
        def plan(self, now, queue, pool):
            seen.extend((now, one.executed) for one in queue.in_order() if one.id == 1)
            return super().plan(now, queue, pool)

    policy = Watching("watching", order=urgent().order, blocking=Strict(), reclaim=ByOrder())
    asks = [job("8 GPUs for 100 s, priority 10"), job("8 GPUs for 5 s, priority 90", at=40)]
    profile = Profile(checkpoints=Checkpoints(10), rates=Rates({"A100": 0.5}))
    simulate(trace(*asks), cluster("1x8:A100"), policy, profile=profile)
    assert dict(seen)[40] == 20, "40 s at half speed, all saved"


def test_a_job_that_overruns_its_limit_is_stopped_after_its_start_up_and_its_limit():
    run = simulate(
        trace(job("8 GPUs for 100 s, limit 30 s"), job("8 GPUs for 5 s")),
        cluster("1x8"),
        load("fifo"),
        profile=Profile(start_up=3, grace=2),
    )
    assert told(run, 1)[-3:] == [(3, "started"), (33, "expired"), (35, "timed_out")]
    assert told(run, 2)[-3:] == [(35, "placed"), (38, "started"), (43, "succeeded")]
    assert [(one.kept, one.lost, one.overhead) for one in attempts(run)] == [(30, 0, 5), (5, 0, 3)]


def test_estimates_may_be_limits():
    asks = [job("8 GPUs for 100 s, estimate 30 s"), job("8 GPUs for 100 s, limit 40 s, estimate 30 s")]
    run = simulate(trace(*asks), cluster("2x8"), load("fifo"), profile=Profile(estimates_are_limits=True))
    assert [(str(one.state), one.ended) for one in run.jobs] == [("TIMEOUT", 30), ("TIMEOUT", 40)]
    run = simulate(trace(*asks), cluster("2x8"), load("fifo"))
    assert [(str(one.state), one.ended) for one in run.jobs] == [("SUCCEEDED", 100), ("TIMEOUT", 40)]


def test_policies_know_nothing_of_an_overrun():
    run = simulate(
        trace(job("8 GPUs for 100 s"), job("8 GPUs for 100 s, limit 150 s")),
        cluster("2x8"),
        load("fifo"),
        profile=Profile(overruns=Overruns(1, 2)),
    )
    assert [(str(one.state), one.ended, one.estimate) for one in run.jobs] == [
        ("SUCCEEDED", 200, 100),
        ("TIMEOUT", 150, 100),
    ]


def test_jobs_of_a_model_run_at_its_rate(tmp_path):
    file = tmp_path / "trace.csv"
    file.write_text("submit_time,num_gpus,duration,model_name\n0,1,100,vgg19\n0,1,100,bert\n0,1,100,\n")
    profile = read_text("rate: {by_type: {A100: 0.5}, models: {vgg19: {by_type: {A100: 0.25}}}}")
    run = simulate(read_trace(str(file)), cluster("1x8:A100"), load("fifo"), profile=profile)
    assert [one.ended for one in run.jobs] == [400, 200, 200]


# Failures ---------------------------------------------------------------------------------------------------------


def test_a_job_that_fails_is_tried_again_as_often_as_the_profile_says_and_after_the_pauses_of_a_live_one():
    run = simulate(
        trace(job("8 GPUs for 10 s")),
        cluster("1x8"),
        load("fifo"),
        profile=Profile(failures=Failures(probability=1, retries=2)),
    )
    (one,) = run.jobs
    assert (one.state, one.attempt, one.exit_code) == (State.FAILED, 3, 1)
    first, second, third = attempts(run)
    assert [first.how, second.how, third.how] == [Kind.RETRIED, Kind.RETRIED, Kind.FAILED]
    assert (second.placed - first.ended, third.placed - second.ended) == pytest.approx((5, 10))


def test_without_retries_a_failed_job_has_failed_and_a_lost_one_is_lost():
    failing = Profile(failures=Failures(probability=1, retries=0))
    run = simulate(trace(job("8 GPUs for 10 s")), cluster("1x8"), load("fifo"), profile=failing)
    assert run.jobs[0].state is State.FAILED
    lost = Profile(failures=Failures(NodeLife(1000, 10), retries=0))
    run = simulate(trace(job(f"8 GPUs for {10**6} s")), cluster("1x8"), load("fifo"), profile=lost)
    assert run.jobs[0].state is State.LOST
    assert run.jobs[0].reason == "node n0 failed"


def test_a_lost_gang_waits_for_the_repair_goes_on_from_its_checkpoint_and_finishes():
    profile = Profile(restore=5, checkpoints=Checkpoints(100), failures=Failures(NodeLife(20_000, 50), retries=1000))
    run = simulate(trace(job("2x8 GPUs for 50000 s")), cluster("2x8"), load("fifo"), profile=profile)
    tries = attempts(run)
    assert len(tries) > 2
    assert [one.how for one in tries] == [Kind.RETRIED] * (len(tries) - 1) + [Kind.SUCCEEDED]
    for lost, following in itertools.pairwise(tries):
        assert following.placed >= lost.ended + 50 - 1e-6
        assert 0 <= lost.lost <= 100
    assert sum(one.kept for one in tries) == pytest.approx(50_000)


def test_a_run_with_faults_ends_when_its_jobs_have():
    profile = Profile(failures=Failures(NodeLife(10 * HOUR, HOUR), retries=1000))
    asks = [job("4 GPUs for 3000 s", at=100_000 * number) for number in range(5)]
    run = simulate(trace(*asks), cluster("20x8"), load("binpack"), profile=profile)
    assert [one.state for one in run.jobs] == [State.SUCCEEDED] * 5
    assert run.journal[-1].time < 500_000


def test_a_seed_gives_the_same_journal_again_and_another_seed_another():
    asks = [job("4 GPUs for 3000 s", at=100 * number) for number in range(40)]
    profile = Profile(failures=Failures(NodeLife(10 * HOUR, HOUR), mtbf=2 * HOUR))
    journals = [
        [(event.time, event.kind, event.job, event.attempt, repr(event.data)) for event in run.journal if event.attempt]
        for run in (
            simulate(trace(*asks), cluster("4x8"), load("binpack"), profile=profile, seed=seed) for seed in (1, 1, 2)
        )
    ]
    assert journals[0] == journals[1] != journals[2]


def test_policies_meet_the_same_faults():
    """Common random numbers: the first attempt of each job fails after the same running time, whoever decides."""
    asks = [job(f"{1 + number % 8} GPUs for {1000 + number} s", at=10 * number) for number in range(80)]
    profile = Profile(failures=Failures(probability=0.3))
    found = []
    for policy in ("fifo", "shortest+best_fit+skip"):
        run = simulate(trace(*asks), cluster("2x8"), load(policy), profile=profile, seed=7)
        first: dict[int, tuple[float, str]] = {}
        for one in attempts(run):
            first.setdefault(one.job, (round(one.ended - one.placed, 6), str(one.how)))
        found.append(first)
    assert found[0] == found[1]
    assert {how for _, how in found[0].values()} == {"succeeded", "retried"}


# Laws -------------------------------------------------------------------------------------------------------------

sized = st.one_of(
    st.integers(0, 30), st.tuples(st.integers(0, 9), st.integers(10, 40)).map(lambda two: ((1, two[0]), (8, two[1])))
)
checkpoints = st.builds(
    Checkpoints, st.sampled_from([None, NEVER, 7, 20, ((1, 5), (8, 50))]), st.integers(0, 5), st.booleans()
)
rates = st.builds(
    Rates,
    st.sampled_from([{}, {"default": 0.5}, {"H100": 2, "A100": 0.25}]),
    st.sampled_from([(), ((2, 0.5),)]),
    st.sampled_from([(), ((2, 0.125),)]),
)
failures = st.builds(
    Failures,
    st.builds(NodeLife, st.sampled_from([None, 500, 5000]), st.integers(0, 100)),
    st.just({}),
    st.sampled_from([None, 200, 5000]),
    st.sampled_from([0, 0.2]),
    st.integers(0, 5),
)
profiles = st.builds(
    Profile, sized, sized, sized, checkpoints, rates, st.just({}), st.just("rack"), failures,
    st.sampled_from([Overruns(), Overruns(0.5, 2)]),
)  # fmt: skip


@st.composite
def asked(draw: st.DrawFn) -> Ask:
    words = draw(st.sampled_from(["1 GPU", "8 GPUs", "2x4 GPUs", "2x8 GPUs, apart", "12 GPUs in total", "0.5 GPU"]))
    ask = job(f"{words.split(', ')[0]} for {draw(st.integers(1, 300))} s", at=draw(st.integers(0, 200)))
    limit = draw(st.sampled_from([None, None, 150]))
    return replace(ask, priority=draw(st.sampled_from([10, 50, 90])), limit=limit)


@settings(max_examples=150, deadline=None)
@given(st.lists(asked(), min_size=1, max_size=8), profiles, st.integers(0, 3))
def test_every_second_of_every_attempt_is_kept_lost_or_overhead_and_the_work_of_a_finished_job_is_its_duration(
    asks, profile, seed
):
    nodes = cluster("1x8:H100@rack=a 1x8:A100@rack=b")
    policy = Greedy("urgent", order=urgent().order, place=PLACERS["best_fit"], blocking=Skip(), reclaim=ByOrder())
    replayed = trace(*asks)
    run = simulate(replayed, nodes, policy, profile=profile, seed=seed)
    work: dict[int, float] = defaultdict(float)
    for one in attempts(run):
        assert min(one.kept, one.lost, one.overhead) >= -1e-6, one
        if profile != ZERO or one.how is not Kind.TIMED_OUT:
            assert one.kept + one.lost + one.overhead == pytest.approx(one.ended - one.placed, abs=1e-6), one
        work[one.job] += one.kept * one.rate
    for one in run.jobs:
        duration = replayed.jobs[one.id - 1].duration
        assert one.state in FINAL
        if one.state is State.SUCCEEDED:
            factors = {1.0, profile.overruns.factor}
            assert any(work[one.id] == pytest.approx(duration * factor, abs=1e-6) for factor in factors)
            assert one.executed == pytest.approx(work[one.id]) or profile == ZERO
        else:
            assert work[one.id] <= duration * profile.overruns.factor + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.lists(asked(), min_size=1, max_size=8), profiles, st.integers(0, 3))
def test_no_schedule_under_a_profile_beats_the_bounds_at_its_best_rates(asks, profile, seed):
    nodes = cluster("1x8:H100@rack=a 1x8:A100@rack=b")
    replayed = trace(*(replace(ask, limit=None) for ask in asks))
    run = simulate(replayed, nodes, urgent(), profile=profile, seed=seed)
    done = [one for one in run.jobs if one.state is State.SUCCEEDED]
    found = lower_bounds([replayed.jobs[one.id - 1] for one in done], nodes, profile.best_rates(nodes))
    if done:
        assert found.jct <= sum(one.ended - one.submitted for one in done) / len(done) + 1e-6
        assert found.makespan <= max(one.ended for one in done) - min(one.submitted for one in done) + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.lists(asked(), min_size=1, max_size=8))
def test_a_profile_that_asks_for_nothing_changes_nothing(asks):
    """What costs nothing goes the same way through the general code as through the short one."""
    nodes = cluster("2x8")
    plain = simulate(trace(*asks), nodes, urgent())
    general = simulate(trace(*asks), nodes, urgent(), profile=Profile(failures=Failures(retries=4)))
    for run in (plain, general):
        assert all(one.state in FINAL for one in run.jobs)
    assert [_when(one) for one in plain.jobs] == [_when(one) for one in general.jobs]
    assert [_bare(event) for event in plain.journal] == [_bare(event) for event in general.journal]


def _when(one: Job) -> tuple[str, float | None, float | None, int]:
    return str(one.state), one.first_start, one.ended, one.attempt


def _bare(event: Event) -> tuple[float, str, int, int]:
    return event.time, str(event.kind), event.job, event.attempt


# What cannot be is said before the run ----------------------------------------------------------------------------


def test_a_gpu_type_without_a_rate_is_one_error_with_its_line():
    profile = Profile(rates=Rates({"H100": 1}), places={"rate.by_type": Place("costs.yaml", 4, 3)})
    with pytest.raises(SpecError) as caught:
        simulate(trace(job("1 GPU")), cluster("2x8:H100 3x4:A100"), load("fifo"), profile=profile)
    assert str(caught.value) == (
        "costs.yaml:4:3: rate.by_type: has no rate for A100, which 3 nodes of the cluster have "
        "(add `A100: 1`, or `default: 1` for all types that are not named)"
    )


def test_a_gpu_type_that_no_job_may_get_needs_no_rate():
    profile = Profile(rates=Rates({"H100": 2}))
    run = simulate(trace(job("1 H100 GPU for 10 s")), cluster("1x8:H100 1x4:A100"), load("fifo"), profile=profile)
    assert run.jobs[0].ended == 5


def test_nodes_that_name_no_type_are_said_to():
    with pytest.raises(SpecError, match="no rate for 2 nodes that name no GPU type"):
        simulate(trace(job("1 GPU")), cluster("2x8"), load("fifo"), profile=Profile(rates=Rates({"H100": 1})))


def test_racks_count_only_where_nodes_name_them():
    with pytest.raises(SpecError, match="no label `rack` is on n0, n1, n2 and 1 more"):
        simulate(trace(job("1 GPU")), cluster("4x8"), load("fifo"), profile=Profile(rates=Rates(by_racks=((2, 0.5),))))
