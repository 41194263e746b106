"""Every metric of the reports on runs that are small enough to work it out by hand."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

import builders
from gpusched.cluster.backend import Node
from gpusched.cluster.profile import Checkpoints, Profile
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.policies.catalog import load
from gpusched.scheduler.report import Run, Waste, summarize
from gpusched.scheduler.report.fairness import Count, due_isolated, jain
from gpusched.scheduler.report.ledger import accounts
from gpusched.scheduler.report.metric import METRICS, SPEED, shown
from gpusched.scheduler.report.table import to_csv, to_dict
from gpusched.scheduler.simulate import simulate


def ended(number, gpus, submitted, start, end, *, user="", queue="default", state=State.SUCCEEDED):
    job = Job(number, Shape(1, gpus), submitted, user=user, queue=queue)
    job.first_start = job.placed = start
    job.ended, job.state, job.attempt = end, state, 1
    job.gpu_seconds = gpus * (end - start)
    return job


def placed(time, job, gpus, *, attempt=1, node=0):
    return Event(time, Kind.PLACED, job, attempt, (Piece(node, gpus),))


def over(time, job, kind=Kind.SUCCEEDED, *, attempt=1, **told):
    return Event(time, kind, job, attempt, told or None)


def turns():
    """Four GPUs. Job 1 (4 GPUs) runs 0..10; job 2 (2 GPUs, submitted at 0) runs 10..30; job 3 (4, at 6) runs 30..40."""
    jobs = [
        ended(1, 4, 0, 0, 10, user="ann", queue="prod"),
        ended(2, 2, 0, 10, 30, user="bob", queue="dev"),
        ended(3, 4, 6, 30, 40, user="bob", queue="prod"),
    ]
    journal = [placed(0, 1, 4), over(10, 1), placed(10, 2, 2), over(30, 2), placed(30, 3, 4), over(40, 3)]
    return Run("fifo", "hand", [Node("a", 4)], jobs, journal)


def preempted(**told):
    """Two GPUs. Job 1 (2 GPUs) runs 0..20, is told to go, waits 20..50, and runs 50..100; its ends tell `told`."""
    job = ended(1, 2, 0, 0, 100)
    job.attempt, job.gpu_seconds = 2, 2 * 70.0
    journal = [
        placed(0, 1, 2),
        Event(20, Kind.PREEMPTED, 1, 1),
        over(20, 1, Kind.REQUEUED, **told.get("first", {})),
        placed(50, 1, 2, attempt=2),
        over(100, 1, attempt=2, **told.get("second", {})),
    ]
    return Run("p", "hand", [Node("a", 2)], [job], journal)


def test_the_wait_counts_every_second_without_gpus_and_the_delay_only_those_before_the_first_start():
    figures = summarize(preempted())
    assert figures.delay.mean == 0
    assert figures.wait.mean == 30
    assert figures.jct.mean == 100


def test_overhead_and_lost_work_come_from_the_journal_times_the_gang():
    told = {
        "first": {"exit_code": 143, "kept": 12, "lost": 5, "overhead": 3},
        "second": {"exit_code": 0, "kept": 46, "lost": 0, "overhead": 4},
    }
    figures = summarize(preempted(**told))
    assert figures.waste == Waste(overhead=2 * 7, lost=2 * 5, failed=0, held_idle=0)
    assert figures.slowdown.mean == pytest.approx(100 / (12 + 46))
    assert figures.wait.mean == 30, "what was lost was held all the same"
    assert (figures.preemptions, figures.preempted_jobs, figures.restarts, figures.most_restarts) == (1, 1, 1, 1)
    row = to_dict(figures)
    assert (row["overhead_gpu_seconds"], row["lost_gpu_seconds"]) == (14, 10)
    assert row["wasted_gpu_hours"] == pytest.approx(24 / 3600)
    assert (row["preemptions_per_job"], row["restarts_per_job"]) == (1, 1)


def test_work_at_another_rate_counts_as_what_the_asked_for_gpus_would_have_taken():
    told = {"first": {"kept": 20, "lost": 0, "overhead": 0, "rate": 0.5}, "second": {"kept": 50, "lost": 0, "rate": 2}}
    assert summarize(preempted(**told)).slowdown.mean == pytest.approx(100 / (20 * 0.5 + 50 * 2))


def test_a_journal_that_tells_nothing_makes_all_time_held_run_time():
    figures = summarize(preempted())
    assert figures.slowdown.mean == pytest.approx(100 / 70)
    assert figures.slowdown_mean == pytest.approx(100 / 70)
    assert figures.waste == Waste()


def test_gpus_held_before_every_rank_runs_are_held_idle_unless_told_as_overhead():
    run = preempted()
    assembling = [*run.journal[:1], Event(6, Kind.STARTED, 1, 1), *run.journal[1:]]
    assert summarize(replace(run, journal=assembling)).waste == Waste(held_idle=2 * 6)
    run = preempted(first={"kept": 10, "lost": 6, "overhead": 4})
    assembling = [*run.journal[:1], Event(6, Kind.STARTED, 1, 1), *run.journal[1:]]
    figures = summarize(replace(run, journal=assembling))
    assert figures.waste == Waste(overhead=2 * 4, lost=2 * 6, held_idle=2 * 2)


def test_an_attempt_that_the_cluster_refused_held_its_gpus_idle_and_is_no_restart():
    job = ended(1, 2, 0, 5, 30)
    job.gpu_seconds = 2 * 14.0
    journal = [placed(5, 1, 2), over(9, 1, Kind.REFUSED), placed(20, 1, 2, attempt=2), over(30, 1, attempt=2)]
    figures = summarize(Run("p", "t", [Node("a", 2)], [job], journal))
    assert figures.waste == Waste(held_idle=2 * 4)
    assert figures.restarts == 0
    assert figures.slowdown.mean == pytest.approx(30 / 10)
    assert figures.wait.mean == 30 - 14


def test_failed_attempts_are_wasted_as_far_as_nothing_of_them_was_kept_and_failed_jobs_whole():
    tried = ended(1, 2, 0, 0, 50)
    journal = [
        placed(0, 1, 2),
        over(10, 1, Kind.RETRIED, exit_code=1, kept=4, lost=1, overhead=2),
        placed(10, 1, 2, attempt=2),
        over(50, 1, attempt=2),
    ]
    assert summarize(Run("p", "t", [Node("a", 2)], [tried], journal)).waste == Waste(2 * 2, 2 * 1, 2 * 3, 0)
    lost = ended(1, 2, 0, 0, 50, state=State.FAILED)
    journal[-1] = over(50, 1, Kind.FAILED, attempt=2, exit_code=1, kept=30, lost=8, overhead=2)
    assert summarize(Run("p", "t", [Node("a", 2)], [lost], journal)).waste == Waste(2 * 4, 2 * 9, 2 * (7 + 30), 0)


def test_no_second_is_wasted_twice_whatever_the_journal_says():
    draw = random.Random(7)  # noqa: S311 - cases
    for _ in range(300):
        told = {key: draw.choice([0, 3, 12, 90]) for key in ("kept", "lost", "overhead") if draw.random() < 0.7}
        kind = draw.choice([Kind.RETRIED, Kind.REQUEUED, Kind.REFUSED])
        journal = [
            placed(0, 1, 2),
            Event(draw.choice([0, 5]), Kind.STARTED, 1, 1),
            over(20, 1, kind, **told),
            placed(20, 1, 2, attempt=2),
            over(30, 1, draw.choice([Kind.FAILED, Kind.SUCCEEDED]), attempt=2),
        ]
        state = State.FAILED if journal[-1].kind is Kind.FAILED else State.SUCCEEDED
        (book,) = accounts(journal, [ended(1, 2, 0, 0, 30, state=state)]).values()
        assert book.overhead + book.lost + book.failed + book.idle <= book.held == 30
        assert min(book.overhead, book.lost, book.failed, book.idle) >= 0


def test_themis_compares_with_a_share_of_one_nth_of_the_cluster():
    figures = summarize(turns())
    # Job 1: alive 0..10, active 2 for 6 s and 3 for 4 s = 2.4; due 10 x 4 x 2.4 / 4 = 24. Job 2: alive 0..30, active
    # 24 + 20 x 2 = 64 / 30; due max(20, 20 x 2 x 64/30 / 4). Job 3: alive 6..40, active 3 x 4 + 2 x 20 + 10 = 62 / 34.
    due = [24, 20 * 2 * (64 / 30) / 4, 10 * 62 / 34]
    rho = [10 / due[0], 30 / due[1], 34 / due[2]]
    found = figures.rho_themis
    assert (found.worst, found.mean) == (pytest.approx(max(rho)), pytest.approx(sum(rho) / 3))
    assert found.above_one == pytest.approx(2 / 3)
    inverse = [1 / value for value in rho]
    assert found.jain == pytest.approx(sum(inverse) ** 2 / (3 * sum(x * x for x in inverse)))
    users = [inverse[0], (inverse[1] + inverse[2]) / 2]
    assert found.jain_by_user == pytest.approx(sum(users) ** 2 / (2 * sum(x * x for x in users)))
    queues = [(inverse[0] + inverse[2]) / 2, inverse[1]]
    assert found.jain_by_queue == pytest.approx(sum(queues) ** 2 / (2 * sum(x * x for x in queues)))


def test_static_multiplies_the_exclusive_time_by_the_crowd_of_the_whole_trace():
    assert summarize(turns()).rho_static.worst == pytest.approx(34 / 10), "3 jobs on 4 GPUs: no crowd"
    run = turns()
    small = [Node("a", 4)]
    idle = [ended(i, 1, 0, 40 + i, 41 + i) for i in range(4, 12)]
    journal = [*run.journal]
    for job in idle:
        journal += [placed(job.first_start, job.id, 1), over(job.ended, job.id)]
    figures = summarize(Run("p", "t", small, [*run.jobs, *idle], sorted(journal, key=lambda event: event.time)))
    assert figures.rho_static.mean == pytest.approx(
        sum((job.ended - job.submitted) / ((job.ended - job.first_start) * 11 / 4) for job in [*run.jobs, *idle]) / 11
    )


def test_isolated_compares_with_an_equal_split_among_active_jobs():
    # Split: 0..6 two active, 2 GPUs each: job 1 (4 GPUs) at rate 1/2, job 2 (2 GPUs) at rate 1. From 6 three active,
    # 4/3 each: rates 1/3, 2/3, 1/3. Job 1 has 7 left: done after 21 s, at 27; job 2 has 14 left: 21 s, at 27 as well.
    # Job 3 then has done 7 of its 10 and has the cluster for itself: 3 s, done at 30.
    run = turns()
    due = due_isolated(run.jobs, {1: 10, 2: 20, 3: 10}, 4)
    assert due == {1: pytest.approx(27), 2: pytest.approx(27), 3: pytest.approx(24)}
    found = summarize(run).rho_isolated
    assert found.worst == pytest.approx(34 / 24)
    assert found.mean == pytest.approx((10 / 27 + 30 / 27 + 34 / 24) / 3)


def test_the_equal_split_equals_a_step_by_step_simulation():
    draw = random.Random(3)  # noqa: S311 - cases
    for _ in range(30):
        jobs = [ended(i, draw.choice([1, 2, 4, 8]), draw.randrange(30), 99, 100) for i in range(1, 9)]
        runs = {job.id: draw.randrange(1, 20) for job in jobs}
        left, now, step = dict(runs), 0.0, 1 / 512
        found = {}
        while left:
            active = [job for job in jobs if job.id in left and job.submitted <= now]
            for job in active:
                left[job.id] -= step * min(1, 8 / len(active) / job.shape.gpus)
                if left[job.id] <= 1e-9:
                    del left[job.id]
                    found[job.id] = now + step - job.submitted
            now += step
        assert due_isolated(jobs, runs, 8) == pytest.approx(found, abs=0.1)


def test_isolated_is_left_out_where_a_run_time_is_not_known_or_the_run_is_long_and_nobody_asks(monkeypatch):
    run = turns()
    waiting = Job(4, Shape(1, 1), 1)
    assert summarize(replace(run, jobs=[*run.jobs, waiting])).rho_isolated is None
    monkeypatch.setattr("gpusched.scheduler.report.summary.ISOLATED_JOBS", 2)
    assert summarize(run).rho_isolated is None
    assert summarize(run, isolated=True).rho_isolated is not None


def test_jain_is_one_when_all_are_alike_and_one_nth_when_one_has_all():
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([0, 0, 0, 8]) == pytest.approx(1 / 4)
    assert jain([]) is None
    assert jain([0, 0]) is None


def test_users_and_queues_have_their_own_figures():
    figures = summarize(turns())
    bob, ann = figures.by_user
    assert (bob.name, bob.jobs, bob.gpu_seconds) == ("bob", 2, 2 * 20 + 4 * 10)
    assert (ann.name, ann.jobs, ann.gpu_seconds) == ("ann", 1, 40)
    assert bob.jct_mean == (30 + 34) / 2
    assert (bob.delay_mean, bob.delay_p95, bob.longest_wait) == ((10 + 24) / 2, 24, 24)
    assert bob.slowdown_mean == pytest.approx((30 / 20 + 34 / 10) / 2)
    assert (ann.rho_themis_mean, ann.above_due, bob.above_due) == (pytest.approx(10 / 24), False, True)
    prod, dev = figures.by_queue
    assert (prod.name, prod.gpu_seconds, dev.name, dev.gpu_seconds) == ("prod", 80, "dev", 40)
    assert figures.fairness == pytest.approx(120**2 / (2 * (80**2 + 40**2)))
    assert figures.fairness_queues == pytest.approx(120**2 / (2 * (80**2 + 40**2)))


def test_the_longest_wait_counts_a_job_that_never_started():
    run = turns()
    stuck = Job(4, Shape(1, 9), 2, name="stuck")
    figures = summarize(replace(run, jobs=[*run.jobs, stuck]))
    assert figures.longest_wait == 40 - 2
    assert summarize(run).longest_wait == 24
    assert figures.delay_p95 == 24


def test_the_offered_load_is_what_the_jobs_ask_for_while_they_arrive():
    assert summarize(turns()).offered_load == pytest.approx((40 + 40 + 40) / (4 * 6))


def test_decisions_are_timed_only_where_they_were_measured():
    run = turns()
    assert summarize(run).decision is None
    figures = summarize(replace(run, decision_seconds=[0.001, 0.003, 0.002]))
    assert (figures.decision.p50, figures.decision.p99, figures.decisions) == (0.002, 0.003, 3)
    assert figures.decisions_per_second == pytest.approx(500)
    assert "decision_p99" not in to_dict(figures)
    assert to_dict(figures, timing=True)["decision_p99"] == 0.003


def test_bounds_are_shown_only_where_they_are_known():
    figures = summarize(turns())
    assert not [
        metric for metric in shown(METRICS, [figures]) if "bound" in metric.key and "slowdown" not in metric.key
    ]
    bounded = replace(figures, jct_bound=figures.jct.mean / 1.25, makespan_bound=40.0)
    by_key = {metric.key: metric for metric in shown(METRICS, [bounded])}
    assert by_key["jct_above_bound"].value(bounded) == pytest.approx(0.25)
    assert by_key["makespan_above_bound"].value(bounded) == 0, "and a policy that meets the bound shows it"
    assert to_dict(bounded)["jct_above_bound"] == pytest.approx(0.25)
    assert to_dict(figures)["jct_bound"] is None


def test_every_metric_has_its_own_key_which_is_a_column_of_the_csv():
    header = to_csv([summarize(turns())], timing=True).splitlines()[0].split(",")
    keys = [metric.key for metric in (*METRICS, *SPEED)]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= set(header)
    assert len(set(header)) == len(header)
    json.dumps(to_dict(summarize(turns()), timing=True), allow_nan=False)


def test_a_count_over_time_integrates_exactly():
    count = Count([(0, 10), (0, 30), (6, 40)])
    assert count.integral(0, 40) == 10 + 30 + 34
    assert count.integral(5, 7) == 2 + 3
    assert Count([]).integral(0, 5) == 0


def test_a_timed_replay_measures_each_decision_and_an_untimed_one_none():
    asks = [builders.job("2 GPUs for 10 s", at=at) for at in (0, 0, 5)]
    fifo = load("fifo")
    assert not simulate(builders.trace(*asks), builders.cluster("1x2"), fifo).decision_seconds
    timed = simulate(builders.trace(*asks), builders.cluster("1x2"), fifo, timing=True)
    # At 0 for the first two, at 5 for the third, at 10 and 20 for those that wait.
    assert len(timed.decision_seconds) == 4
    assert summarize(timed).decision.p99 > 0


def test_the_documentation_names_every_field():
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    figures = to_dict(summarize(turns()), timing=True)
    named = {word for part in text.split("`")[1::2] for word in part.split()}
    assert set(figures) <= named
    assert set(figures["by_user"][0]) <= named
    assert set(figures["rho_themis"]) <= named


@pytest.mark.parametrize("policy", ["fifo", "srtf", "tiresias"])
def test_under_costs_and_preemption_run_times_are_the_trace_s_and_waste_is_the_rest_of_what_was_held(policy):
    draw = random.Random(5)  # noqa: S311 - cases
    asks = [
        builders.job(f"{draw.choice([1, 2, 4])} GPUs for {draw.randrange(50, 900)} s", at=draw.randrange(2000))
        for _ in range(80)
    ]
    jobs = builders.trace(*asks)
    profile = Profile(start_up=7, restore=5, checkpoints=Checkpoints(interval=60, cost=2))
    run = simulate(jobs, builders.cluster("2x4"), load(policy), profile=profile)
    figures = summarize(run)
    lasts = {trace_job.id + 1: trace_job.duration for trace_job in jobs.jobs}
    expected = [(one.ended - one.submitted) / lasts[one.id] for one in run.jobs]
    assert figures.slowdown.mean == pytest.approx(sum(expected) / len(expected))
    held = sum(one.gpu_seconds for one in run.jobs)
    work = sum(lasts[one.id] * one.shape.total_gpus for one in run.jobs)
    assert figures.waste.total == pytest.approx(held - work)
    assert figures.waste.overhead > 0
    assert (figures.waste.lost > 0) == (figures.preemptions > 0) == (policy != "fifo")
