"""Samples: what is kept of them, to whom it is attributed, and how it is rolled up, on both databases."""

from __future__ import annotations

import random

import pytest

from gpusched.cluster.backend import Node, NodeChange
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape
from gpusched.scheduler.store.cluster import gpu_holders, held_gpus, latest_gpus, latest_jobs, list_nodes
from gpusched.scheduler.store.samples import Added, Retention, SampleStore
from gpusched.scheduler.store.usage import job_load

HOUR = 3600
T = 1_700_000_000 // HOUR * HOUR  # a full hour


def gpu(index, utilization=0.5, **others):
    figures = {"memory_used": 10 << 30, "memory_total": 80 << 30, "power": 400.0, "temperature": 61, "processes": None}
    return {"index": index, "uuid": f"GPU-{index}", "name": "H100", "utilization": utilization, **figures, **others}


def sample(time, gpus=(), jobs=(), node="a", **others):
    return {"time": time, "node": node, "gpus": list(gpus), "jobs": list(jobs), "host": None, **others}


@pytest.fixture
def store(sql_store):
    nodes = [(0, NodeChange(0.0, Node("a", 8, "H100"))), (1, NodeChange(0.0, Node("b", 8, "A100")))]
    sql_store.commit(nodes=nodes)
    return sql_store


@pytest.fixture
def read(store):
    def rows(sql):
        with store.reader() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql)]

    return rows


@pytest.fixture
def run_job(store):
    """Job `number` starts at `time` with these GPUs of node a."""

    def runs(number, time, gpus, *, attempt=1, milli=0):
        piece = Piece(0, 0 if milli else len(gpus), milli, gpus[0] if milli else -1)
        job = Job(number, Shape(gpus=piece.gpus, gpu_milli=milli), time, name=f"job-{number}", user="ada")
        ranks = {"ranks": [{"rank": 0, "node": "a", "gpus": gpus}]}
        store.commit(
            jobs=[job],
            events=[
                Event(time, Kind.SUBMITTED, number, 0, job),
                Event(time, Kind.PLACED, number, attempt, (piece,)),
                Event(time, Kind.STARTED, number, attempt, ranks),
            ],
        )

    return runs


def test_a_gpu_is_attributed_to_the_attempt_that_holds_it(store, read):
    added = SampleStore(store).add(
        [sample(T + 1.0, [gpu(0), gpu(1, 0.25), gpu(2)])], {("a", 0): (7, 2), ("a", 1): (9, 1)}
    )
    assert added == Added(gpus=3, jobs=0, unknown=0, late=0)
    assert read("SELECT gpu, job, attempt, utilization, memory_used FROM gpu_samples ORDER BY gpu") == [
        (0, 7, 2, 0.5, 10 << 30),
        (1, 9, 1, 0.25, 10 << 30),
        (2, 0, 0, 0.5, 10 << 30),
    ]


def test_where_nothing_can_be_measured_held_gpus_have_rows_without_figures(store, read):
    SampleStore(store).add([sample(T + 1.0)], {("a", 3): (7, 1), ("a", 1): (7, 1), ("b", 0): (8, 1)})
    figures = "utilization, memory_used, power, temperature, processes"
    assert read(f"SELECT gpu, job, attempt, {figures} FROM gpu_samples ORDER BY gpu") == [  # noqa: S608 - our own names
        (1, 7, 1, None, None, None, None, None),
        (3, 7, 1, None, None, None, None, None),
    ]


def test_a_held_gpu_that_the_agent_does_not_see_has_no_row(store, read):
    SampleStore(store).add([sample(T + 1.0, [gpu(0)])], {("a", 0): (7, 1), ("a", 1): (7, 1)})
    assert read("SELECT gpu FROM gpu_samples") == [(0,)]


def test_samples_of_a_node_that_was_never_seen_are_counted_and_left_out(store, read):
    added = SampleStore(store).add([sample(T + 1.0, [gpu(0)], node="z"), sample(T + 1.0, [gpu(0)])], {})
    assert added == Added(gpus=1, jobs=0, unknown=1, late=0)
    assert read("SELECT node FROM gpu_samples") == [(0,)]


def test_a_sample_that_comes_twice_counts_once(store, read):
    samples = SampleStore(store)
    one = sample(T + 1.0, [gpu(0)], [{"job": 7, "attempt": 1, "cpu": 2.0, "memory": 1 << 30, "processes": 3}])
    samples.add([one, one], {("a", 0): (7, 1)})
    samples.add([one], {("a", 0): (7, 1)})
    samples.roll(T + 120.0)
    assert read("SELECT count(*) FROM gpu_samples") == [(1,)]
    assert read("SELECT count(*) FROM job_samples") == [(1,)]
    assert read("SELECT samples FROM gpu_rollups") == [(1,)]


def test_a_sample_stands_for_the_time_since_the_one_before_but_not_for_a_gap(store, read):
    samples = SampleStore(store, interval=5.0)
    for time in (T, T + 4.0, T + 10.0, T + 100.0):
        samples.add([sample(time, [gpu(0)])], {})
    samples.add([sample(T + 101.0, [gpu(0)], node="b")], {})
    assert read("SELECT node, seconds FROM gpu_samples ORDER BY time") == [(0, 5), (0, 4), (0, 6), (0, 15), (1, 5)]


def test_a_minute_sums_up_its_samples_for_each_holder(store, read):
    samples = SampleStore(store, interval=10.0)
    for beat, utilization in enumerate([0.0, 0.5, 1.0, None]):
        held = {("a", 0): (7, 1)} if beat < 3 else {("a", 0): (8, 1)}
        samples.add([sample(T + 10.0 * beat, [gpu(0, utilization, temperature=60 + beat)])], held)
    assert samples.roll(T + 60.0 + 14.9) == 0
    assert samples.roll(T + 60.0 + 15.0) == 1
    assert read(
        "SELECT job, samples, measured, utilization_mean, utilization_max, temperature_max, seconds, measured_seconds,"
        " used_seconds FROM gpu_rollups WHERE period = 60 ORDER BY job"
    ) == [
        (7, 3, 3, 0.5, 1.0, 62.0, 30.0, 30.0, 15.0),
        (8, 1, 0, None, None, 63.0, 10.0, 0.0, 0.0),
    ]


def test_an_hour_is_the_sum_of_its_minutes(store, read):
    samples = SampleStore(store, interval=5.0)
    draw = random.Random(1)  # noqa: S311 - the same figures every time
    values = [draw.choice([None, draw.random()]) for _ in range(720)]
    for beat, value in enumerate(values):
        process = {"job": 7, "attempt": 1, "cpu": value, "memory": beat << 20, "processes": beat % 5}
        samples.add([sample(T + 5.0 * beat, [gpu(0, value)], [process])], {("a", 0): (7, 1)})
    samples.roll(T + HOUR + 60.0)
    known = [value for value in values if value is not None]
    (hour,) = read(
        "SELECT start, samples, measured, utilization_mean, utilization_max, memory_mean, seconds, measured_seconds,"
        " used_seconds FROM gpu_rollups WHERE period = 3600"
    )
    assert hour[:3] == (T, 720, len(known))
    assert hour[3:] == pytest.approx(
        (sum(known) / len(known), max(known), float(10 << 30), 3600.0, 5.0 * len(known), 5.0 * sum(known))
    )
    (processes,) = read("SELECT samples, cpu_max, memory_max, processes_max FROM job_rollups WHERE period = 3600")
    assert processes == (720, max(known), 719 << 20, 4)
    with store.reader() as connection:
        load = job_load(connection, 7)
    assert load.memory_mean == pytest.approx(sum(range(720)) / 720 * (1 << 20))
    assert (load.cpu_max, load.memory_max, load.processes_max) == (max(known), 719 << 20, 4)


def test_a_late_sample_is_rolled_up_with_its_minute_and_hour(store, read):
    samples = SampleStore(store, interval=5.0)
    samples.add([sample(T + 5.0, [gpu(0, 1.0)]), sample(T + 5.0, [gpu(0, 1.0)], node="b")], {})
    samples.roll(T + 2 * HOUR)
    samples.add([sample(T + 10.0, [gpu(0, 0.0)])], {})
    wanted = "SELECT period, node, samples, utilization_mean FROM gpu_rollups ORDER BY period, node"
    assert read(wanted) == [(60, 0, 2, 0.5), (60, 1, 1, 1.0), (3600, 0, 2, 0.5), (3600, 1, 1, 1.0)]


def test_rolling_up_is_the_same_however_often_it_is_stopped_and_begun_again(store, read, open_store, made_url):
    draw = random.Random(2)  # noqa: S311 - the same figures every time
    batches = [
        [sample(T + 5.0 * beat, [gpu(i, draw.random()) for i in range(4)], node=node) for node in "ab"]
        for beat in range(800)
    ]
    whole = SampleStore(store)
    for batch in batches:
        whole.add(batch, {("a", 1): (7, 1)})
    whole.roll(T + 2 * HOUR + 75.0)
    table = "SELECT * FROM gpu_rollups ORDER BY period, start, node, gpu, job"
    expected = read(table)
    with store.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM gpu_rollups")
        connection.exec_driver_sql("DELETE FROM meta WHERE key LIKE 'rolled:%%'")
    for end in (T + 100.0, T + 100.0, T + 1000.0, T + HOUR + 10.0, T + 2 * HOUR, T + 2 * HOUR + 75.0):
        begun_again = SampleStore(open_store(made_url))
        begun_again.roll(end)
    found = read(table)
    assert len(found) == len(expected) == 67 * 8 + 2 * 8
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other)


def test_a_bucket_that_was_half_written_is_made_whole(store, read):
    """As after a crash between two chunks: some rows are there, the mark is not."""
    samples = SampleStore(store)
    samples.add([sample(T + 5.0, [gpu(0, 0.5), gpu(1, 0.25)])], {})
    samples.roll(T + 100.0)
    whole = read("SELECT * FROM gpu_rollups ORDER BY gpu")
    with store.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM gpu_rollups WHERE gpu = 1")
        connection.exec_driver_sql("UPDATE gpu_rollups SET samples = 99")
        connection.exec_driver_sql("DELETE FROM meta WHERE key = 'rolled:60'")
    SampleStore(store).roll(T + 100.0)
    assert read("SELECT * FROM gpu_rollups ORDER BY gpu") == whole


def test_each_level_is_kept_for_its_time(store, read):
    keep = Retention(raw=2.0 * HOUR, minutes=5.0 * HOUR, hours=24.0 * HOUR)
    samples = SampleStore(store, keep=keep)
    process = {"job": 7, "attempt": 1, "cpu": 1.0, "memory": 1, "processes": 1}
    for hour in range(30):
        samples.add([sample(T + hour * HOUR + 5.0, [gpu(0)], [process])], {("a", 0): (7, 1)})
    now = T + 30 * HOUR + 20.0
    samples.roll(now)
    for raw in ("gpu_samples", "job_samples"):
        assert read(f"SELECT min(time), count(*) FROM {raw}") == [(T + 28 * HOUR + 5.0, 2)]  # noqa: S608 - our own names
    for table in ("gpu_rollups", "job_rollups"):
        kept = f"SELECT period, min(start), count(*) FROM {table} GROUP BY period ORDER BY period"  # noqa: S608 - the same
        assert read(kept) == [(60, T + 25 * HOUR, 5), (3600, T + 6 * HOUR, 24)]
    added = samples.add([sample(T + 27 * HOUR + 10.0, [gpu(0)])], {})
    assert added.late == 1
    assert read("SELECT samples FROM gpu_rollups WHERE period = 3600") == [(1,)] * 24


def test_hours_are_kept_for_good_unless_it_is_said_otherwise(store, read):
    samples = SampleStore(store)
    samples.add([sample(T + 5.0, [gpu(0)])], {})
    samples.roll(T + 400 * 86400.0)
    assert read("SELECT period, start FROM gpu_rollups") == [(3600, T)]
    assert read("SELECT count(*) FROM gpu_samples") == [(0,)]


def test_long_retention_is_deleted_in_short_transactions(store, read):
    samples = SampleStore(store, keep=Retention(raw=2.0 * HOUR))
    for beat in range(700):
        samples.add([sample(T + beat, [gpu(i) for i in range(8)])], {})
    samples.roll(T + 4 * HOUR)
    assert read("SELECT count(*) FROM gpu_samples") == [(0,)]
    assert read("SELECT sum(samples) FROM gpu_rollups WHERE period = 60") == [(5600,)]


def test_who_holds_which_gpu_is_read_back_from_the_attempts(store, run_job):
    run_job(1, T + 1.0, [0, 3])
    run_job(2, T + 2.0, [1])
    store.commit(events=[Event(T + 3.0, Kind.SUCCEEDED, 2, 1, {"exit_code": 0})])
    with store.reader() as connection:
        assert gpu_holders(connection) == {("a", 0): (1, 1), ("a", 3): (1, 1)}
        (held,) = held_gpus(connection)
    assert (held.job, held.name, held.user, held.node, held.piece.gpus, held.indices) == (
        1,
        "job-1",
        "ada",
        "a",
        2,
        (0, 3),
    )


def test_a_shared_gpu_is_nobodys_in_particular(store, run_job):
    run_job(1, T + 1.0, [2], milli=500)
    with store.reader() as connection:
        assert gpu_holders(connection) == {("a", 2): (1, 1)}
    run_job(2, T + 2.0, [2], milli=300)
    with store.reader() as connection:
        assert gpu_holders(connection) == {}
        assert [held.indices for held in held_gpus(connection)] == [(2,), (2,)]


def test_an_attempt_that_starts_holds_gpus_whose_indices_are_not_known_yet(store):
    job = Job(1, Shape(gpus=2), 0.0)
    store.commit(jobs=[job], events=[Event(0.0, Kind.PLACED, 1, 1, (Piece(1, 2),))])
    with store.reader() as connection:
        assert gpu_holders(connection) == {}
        (held,) = held_gpus(connection)
    assert (held.node, held.piece.gpus, held.indices) == ("b", 2, None)


def test_the_latest_look_at_every_gpu_job_and_host(store):
    samples = SampleStore(store)
    processes = [{"pid": 71, "memory": 5 << 30, "foreign": True}]
    job = {"job": 7, "attempt": 1, "cpu": 2.0, "memory": 1 << 30, "processes": 3}
    host = {"cpu": 3.5, "memory_used": 1 << 33}
    held = {("a", 0): (7, 1)}
    samples.add([sample(T, [gpu(0), gpu(1)], [job]), sample(T - 60.0, [gpu(5)], node="b")], held)
    samples.add([sample(T + 5.0, [gpu(0, 0.9, processes=processes)], [{**job, "cpu": 4.0}], host=host)], held)
    with store.reader() as connection:
        first, second = latest_gpus(connection, T - 10.0)
        assert (first.node, first.gpu, first.time, first.utilization, first.job) == ("a", 0, T + 5.0, 0.9, 7)
        assert (first.uuid, first.model, first.memory_total, first.processes) == ("GPU-0", "H100", 80 << 30, processes)
        assert (second.gpu, second.time, second.utilization, second.job, second.processes) == (1, T, 0.5, 0, None)
        (process,) = latest_jobs(connection, T - 10.0)
        assert (process.job, process.node, process.cpu, process.memory, process.processes) == (7, "a", 4.0, 1 << 30, 3)
        nodes = list_nodes(connection)
    assert [(node.node.name, node.host, node.host_time) for node in nodes] == [("a", host, T + 5.0), ("b", None, None)]


def test_nodes_that_left_are_listed_only_when_asked_for(store):
    store.commit(nodes=[(1, NodeChange(5.0, Node("b", 8, "A100"), gone=True))])
    with store.reader() as connection:
        assert [node.number for node in list_nodes(connection)] == [0]
        assert [(node.number, node.present, node.changed) for node in list_nodes(connection, gone=True)] == [
            (0, True, 0.0),
            (1, False, 5.0),
        ]
