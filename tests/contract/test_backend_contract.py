"""What the engine may rely on with every backend. `backend_beds` says how a backend joins this suite."""

from __future__ import annotations

import pytest

from backend_beds import Bed, SimulatedBed
from gpusched.cluster.profile import ZERO, Checkpoints, Failures, NodeLife, Profile
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job

PROFILES = {
    "simulated": ZERO,
    "simulated with start-up time": Profile(start_up=3.0),
    "simulated with every cost": Profile(3, 2, 1, Checkpoints(10, 1, before_stop=True)),
    "simulated with faults that never come": Profile(grace=2, failures=Failures(NodeLife(1e9, 60), mtbf=1e9)),
}


@pytest.fixture(params=list(PROFILES))
def bed(request: pytest.FixtureRequest) -> Bed:
    return SimulatedBed(PROFILES[request.param])


def kinds(bed: Bed, job: Job) -> list[Kind]:
    return [event.kind for event in bed.reports(job)]


def test_the_first_poll_reports_the_nodes_and_later_ones_only_changes(bed):
    assert len(bed.nodes) == 3
    assert all(node.gpus == 2 and node.schedulable for node in bed.nodes)
    assert len({node.name for node in bed.nodes}) == 3
    assert not bed.backend.poll(0.0).nodes


def test_an_attempt_starts_and_finishes_once(bed):
    job = bed.job(2.0)
    bed.start(job)
    started = bed.until(job, Kind.STARTED)
    finished = bed.until(job, Kind.FINISHED)
    assert kinds(bed, job) == [Kind.STARTED, Kind.FINISHED]
    assert (finished.data or {}).get("exit_code", 0) == 0
    assert finished.time - started.time == pytest.approx(2.0, abs=1.0)


def test_a_gang_is_one_attempt(bed):
    job = bed.job(1.0, pieces=3)
    bed.start(job)
    bed.until(job, Kind.FINISHED)
    assert kinds(bed, job) == [Kind.STARTED, Kind.FINISHED]


def test_a_start_that_is_repeated_starts_nothing_more(bed):
    job = bed.job(2.0)
    bed.start(job)
    bed.start(job)
    bed.until(job, Kind.STARTED)
    bed.start(job)
    bed.until(job, Kind.FINISHED)
    assert kinds(bed, job).count(Kind.FINISHED) == 1


def test_a_stop_ends_the_attempt_before_its_time(bed):
    job = bed.job(100_000.0)
    bed.start(job)
    started = bed.until(job, Kind.STARTED)
    bed.stop(job)
    finished = bed.until(job, Kind.FINISHED)
    assert finished.time - started.time < 60
    assert (finished.data or {}).get("exit_code") == 143


def test_a_stop_before_the_start_was_seen_ends_it_too(bed):
    job = bed.job(100_000.0)
    bed.start(job)
    bed.stop(job)
    assert bed.until(job, Kind.FINISHED).time < 60


def test_a_stop_of_what_does_not_run_reports_that_it_is_gone(bed):
    job = bed.job(1.0)
    bed.stop(job)
    end = bed.until(job, Kind.FINISHED)
    assert end.data["exit_code"] != 0, "a preempted job that never ran would count as done"


def test_a_stop_that_is_repeated_does_no_harm(bed):
    job, other = bed.job(100_000.0), bed.job(4.0)
    bed.start(job)
    bed.start(other)
    bed.until(job, Kind.STARTED)
    bed.stop(job)
    bed.stop(job)
    bed.until(job, Kind.FINISHED)
    bed.stop(job)
    bed.until(other, Kind.FINISHED)
    assert kinds(bed, other) == [Kind.STARTED, Kind.FINISHED]


def test_a_second_attempt_is_another_one(bed):
    job = bed.job(100_000.0)
    bed.start(job)
    bed.until(job, Kind.STARTED)
    bed.stop(job)
    bed.until(job, Kind.FINISHED)
    job.attempt = 2
    bed.start(job)
    bed.until(job, Kind.STARTED)
    bed.stop(job)
    bed.until(job, Kind.FINISHED)
    assert kinds(bed, job) == [Kind.STARTED, Kind.FINISHED]


def test_after_a_restart_what_is_named_runs_on_and_what_is_gone_vanishes(bed):
    runs, never_ran = bed.job(4.0), bed.job(1.0)
    bed.start(runs)
    bed.until(runs, Kind.STARTED)
    bed.backend.adopt([runs, never_ran], 0.0)
    bed.until(never_ran, Kind.VANISHED)
    bed.until(runs, Kind.FINISHED)
    assert Kind.VANISHED not in kinds(bed, runs)


def test_after_a_restart_what_is_not_named_is_stopped(bed):
    forgotten, kept = bed.job(5.0), bed.job(10.0)
    bed.start(forgotten)
    bed.start(kept)
    bed.until(forgotten, Kind.STARTED)
    bed.backend.adopt([kept], 0.0)
    bed.until(kept, Kind.FINISHED)
    succeeded = [event for event in bed.reports(forgotten) if event.kind is Kind.FINISHED and not event.data]
    assert not succeeded, "it ran to its own end"
