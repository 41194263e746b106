"""GPU time by user, queue, job and type: allocated by the attempts, used by the samples, nothing invented."""

from __future__ import annotations

import io

import pytest

from gpusched.cluster.backend import Node, NodeChange
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.jobs.traces.export import write_export
from gpusched.scheduler.store.samples import SampleStore
from gpusched.scheduler.store.usage import Usage, export_jobs, job_load, usage

HOUR = 3600
T = 1_700_000_000 // HOUR * HOUR


@pytest.fixture
def store(sql_store):
    """Jobs 1 (ada, 4 H100, ended), 2 (ada, 2 A100, runs), 3 (bob, half an A100, two attempts), 4 (bob, waits)."""
    nodes = [(0, NodeChange(0.0, Node("a", 8, "H100"))), (1, NodeChange(0.0, Node("b", 8, "A100")))]
    one = Job(1, Shape(gpus=4), T, name="one", user="ada", queue="default", estimate=900.0)
    two = Job(2, Shape(gpus=2), T + 100.0, name="two", user="ada", queue="research")
    three = Job(3, Shape(gpu_milli=500), T + 200.0, name="", user="bob", queue="research", priority=80, limit=7200.0)
    four = Job(4, Shape(gpus=8), T + 300.0, name="four", user="bob")
    jobs = [one, two, three, four]
    one.state = State.SUCCEEDED
    two.state = State.RUNNING
    three.state = State.FAILED
    half = (Piece(1, 0, 500, 7),)
    sql_store.commit(
        jobs=jobs,
        nodes=nodes,
        events=[
            *[Event(job.submitted, Kind.SUBMITTED, job.id, 0, job) for job in jobs],
            Event(T + 100.0, Kind.PLACED, 1, 1, (Piece(0, 4),)),
            Event(T + 110.0, Kind.STARTED, 1, 1, None),
            Event(T + 1000.0, Kind.PLACED, 2, 1, (Piece(1, 2),)),
            Event(T + 1000.0, Kind.PLACED, 3, 1, half),
            Event(T + 1100.0, Kind.SUCCEEDED, 1, 1, {"exit_code": 0}),
            Event(T + 1200.0, Kind.RETRIED, 3, 1, {"exit_code": 1}),
            Event(T + 1300.0, Kind.PLACED, 3, 2, half),
            Event(T + 1310.0, Kind.STARTED, 3, 2, None),
            Event(T + 1410.0, Kind.FAILED, 3, 2, {"exit_code": 1}),
        ],
    )
    return sql_store


def by(store, what, since=T, until=T + 2000.0, **only):
    with store.reader() as connection:
        return usage(connection, what, since, until, **only)


def allocated(found):
    return {row.key: (row.jobs, row.allocated) for row in found}


def test_gpu_time_is_what_attempts_held(store):
    assert allocated(by(store, "job")) == {"1": (1, 4000.0), "2": (1, 2000.0), "3": (1, 155.0)}
    assert allocated(by(store, "user")) == {"ada": (2, 6000.0), "bob": (1, 155.0)}
    assert allocated(by(store, "queue")) == {"default": (1, 4000.0), "research": (2, 2155.0)}
    assert allocated(by(store, "gpu-type")) == {"H100": (1, 4000.0), "A100": (2, 2155.0)}


def test_the_largest_comes_first(store):
    assert [row.key for row in by(store, "job")] == ["1", "2", "3"]


def test_only_the_time_asked_for_counts(store):
    assert allocated(by(store, "job", T + 1050.0, T + 1350.0)) == {"1": (1, 200.0), "2": (1, 600.0), "3": (1, 100.0)}
    assert by(store, "job", T, T + 100.0) == []
    assert allocated(by(store, "job", T + 5000.0, T + 5010.0)) == {"2": (1, 20.0)}


def test_a_time_that_is_yet_to_come_has_no_usage(store):
    assert by(store, "user", since=T + 9000.0) == []


def test_one_job_alone(store):
    assert by(store, "job", job=1) == [Usage("1", 1, 4000.0, None, None, None)]
    assert by(store, "user", job=4) == []


def test_without_samples_nothing_is_said_on_use(store):
    assert all((row.measured, row.used, row.idle) == (None, None, None) for row in by(store, "user"))


def sampled(store, begin, end, utilization, *, step=5.0):
    """Every GPU of job 1 at this utilization; job 2's cannot be measured."""
    samples = SampleStore(store, interval=step)
    held = {("a", index): (1, 1) for index in range(4)} | {("b", index): (2, 1) for index in range(2)}
    time = begin + step
    while time <= end:
        gpus = [{"index": index, "utilization": utilization} for index in range(4)]
        job = {"job": 1, "attempt": 1, "cpu": 3.0, "memory": 1 << 30, "processes": 9}
        samples.add([{"time": time, "node": "a", "gpus": gpus, "jobs": [job]}, {"time": time, "node": "b"}], held)
        time += step
    return samples


@pytest.mark.parametrize("rolled", [0.0, T + 500.0, T + 1500.0, T + 3 * HOUR], ids=["raw", "part", "minutes", "hours"])
def test_use_is_what_the_samples_measured_at_whatever_level_they_are(store, rolled):
    samples = sampled(store, T + 120.0, T + 1080.0, 0.25)
    if rolled:
        samples.roll(rolled)
    found = {row.key: row for row in by(store, "job", T, T + HOUR)}
    one, two = found["1"], found["2"]
    assert one.allocated == 4000.0
    assert (one.measured, one.used, one.idle) == pytest.approx((3840.0, 960.0, 2880.0))
    assert (two.measured, two.used, two.idle) == (None, None, None)
    ada, bob = by(store, "user", T, T + HOUR)
    assert (ada.measured, ada.used) == pytest.approx((3840.0, 960.0))
    assert bob.used is None


def test_use_since_the_middle_of_an_hour_counts_its_whole_minutes(store):
    samples = sampled(store, T + 120.0, T + 1080.0, 1.0)
    samples.roll(T + 3 * HOUR)
    one = {row.key: row for row in by(store, "job", T + 630.0, T + HOUR)}["1"]
    # Of samples at T+660 to T+1080 each stands for 5 s of 4 GPUs.
    assert one.measured == pytest.approx(85 * 5.0 * 4)
    assert one.measured <= one.allocated


def test_measured_time_is_never_more_than_allocated_time(store):
    samples = sampled(store, T + 100.0, T + 1100.0, 1.0)
    for rolled in (0.0, T + 700.0, T + 3 * HOUR):
        if rolled:
            samples.roll(rolled)
        for since in range(0, 1100, 37):
            for row in by(store, "job", T + since, T + HOUR):
                assert row.measured is None or row.measured <= row.allocated


def test_what_the_processes_of_a_job_took(store):
    with store.reader() as connection:
        empty = job_load(connection, 1)
    assert (empty.cpu_mean, empty.cpu_max, empty.memory_max, empty.processes_max) == (None, None, None, None)
    samples = sampled(store, T + 120.0, T + 1080.0, 0.25)
    for rolled in (0.0, T + 500.0, T + 3 * HOUR):
        if rolled:
            samples.roll(rolled)
        with store.reader() as connection:
            load = job_load(connection, 1)
        assert (load.cpu_mean, load.cpu_max, load.memory_max, load.processes_max) == (3.0, 3.0, 1 << 30, 9)


def test_the_history_is_exported_as_a_trace_that_replays(store):
    with store.reader() as connection:
        jobs = list(export_jobs(connection))
    assert [(job.name, job.submitted, job.duration, job.attempts) for job in jobs] == [
        ("one", 0.0, 990.0, 1),
        ("3", 200.0, 300.0, 2),
    ]
    first, second = jobs
    assert (first.user, first.queue, first.estimate, first.state, first.shape) == (
        "ada",
        "default",
        900.0,
        "SUCCEEDED",
        Shape(gpus=4),
    )
    assert (second.priority, second.limit, second.shape) == (80, 7200.0, Shape(gpu_milli=500))
    assert write_export(io.StringIO(), jobs, epoch=T) == 2
    with store.reader() as connection:
        assert [job.name for job in export_jobs(connection, since=T + 1.0)] == ["3"]
        assert [job.name for job in export_jobs(connection, until=T + 1.0)] == ["one"]
