"""What the faces ask about jobs, on both databases."""

from __future__ import annotations

import pytest

from gpusched.jobs.errors import NotFoundError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape, State
from gpusched.jobs.spec import JobSpec
from gpusched.policies.plan import Decision, Line, Token, Why
from gpusched.scheduler.store import queries
from gpusched.scheduler.store.queries import JobFilter

ONE, FOUR, WIDE = Shape(gpus=1), Shape(gpus=4), Shape(num_nodes=2, gpus=8, gpu_types=("H100",))

# number, name, user, queue, priority, state, shape
JOBS = [
    (1, "train-a", "ada", "default", 50, State.SUCCEEDED, ONE),
    (2, "train-b", "bob", "default", 80, State.RUNNING, WIDE),
    (3, "eval", "ada", "research", 50, State.QUEUED, ONE),
    (4, "train-a", "ada", "default", 20, State.QUEUED, FOUR),
    (5, "sweep_1%", "bob", "research", 50, State.FAILED, ONE),
    (6, "Ünïcode", "cy", "default", 80, State.QUEUED, FOUR),
    (7, "evaluate", "ada", "default", 50, State.HELD, FOUR),
]


@pytest.fixture
def store(sql_store):
    jobs = []
    for number, name, user, queue, priority, state, shape in JOBS:
        job = Job(number, shape, 100.0 * number, name=name, user=user, queue=queue, priority=priority, state=state)
        if state is State.SUCCEEDED:
            job.ended, job.gpu_seconds = 900.0, 800.0
        jobs.append(job)
    sql_store.commit(jobs=jobs, events=[Event(job.submitted, Kind.SUBMITTED, job.id, 0, job) for job in jobs])
    return sql_store


@pytest.fixture
def listed(store):
    def lists(**wanted):
        with store.reader() as connection:
            found = queries.list_jobs(connection, JobFilter(**wanted))
            if "limit" not in wanted and "offset" not in wanted:
                assert queries.count_jobs(connection, JobFilter(**wanted)) == len(found)
        return [job.id for job in found]

    return lists


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [7, 6, 5, 4, 3, 2, 1]),
        ({"descending": False}, [1, 2, 3, 4, 5, 6, 7]),
        ({"active": True}, [7, 6, 4, 3, 2]),
        ({"active": False}, [5, 1]),
        ({"active": True, "user": "ada"}, [7, 4, 3]),
        ({"user": "ada"}, [7, 4, 3, 1]),
        ({"user": "ada", "limit": 2}, [7, 4]),
        ({"user": "ada", "limit": 2, "offset": 2}, [3, 1]),
        ({"user": "ada", "limit": 2, "descending": False}, [1, 3]),
        ({"user": "nobody"}, []),
        ({"queue": "research"}, [5, 3]),
        ({"queue": "research", "active": True}, [3]),
        ({"states": frozenset({State.QUEUED})}, [6, 4, 3]),
        ({"states": frozenset({State.QUEUED, State.SUCCEEDED})}, [6, 4, 3, 1]),
        ({"states": frozenset({State.QUEUED, State.SUCCEEDED}), "limit": 2}, [6, 4]),
        ({"states": frozenset({State.QUEUED, State.SUCCEEDED}), "user": "ada"}, [4, 3, 1]),
        ({"states": frozenset({State.LOST})}, []),
        ({"name_prefix": "train"}, [4, 2, 1]),
        ({"name_prefix": "eval"}, [7, 3]),
        ({"name_prefix": "sweep_1%"}, [5]),
        ({"name_prefix": "sweep%"}, []),
        ({"name_prefix": "Ü"}, [6]),
        ({"ids": frozenset({2, 5, 99})}, [5, 2]),
        ({"since": 400.0}, [7, 6, 5, 4]),
        ({"since": 400.0, "limit": 2}, [7, 6]),
        ({"since": 300.0, "until": 400.0}, [4, 3]),
        ({"name": "train-a"}, [4, 1]),
        ({"name": "train"}, []),
        ({"after": 5}, [7, 6]),
        ({"before": 4}, [3, 2, 1]),
        ({"before": 4, "limit": 2}, [3, 2]),
        ({"sort": "priority"}, [6, 2, 7, 5, 3, 1, 4]),
        ({"sort": "priority", "active": True, "limit": 3}, [6, 2, 7]),
        ({"sort": "priority", "descending": False}, [4, 1, 3, 5, 7, 2, 6]),
        ({"sort": "name", "descending": False, "user": "ada"}, [3, 7, 1, 4]),
        ({"sort": "ended"}, [1, 7, 6, 5, 4, 3, 2]),
        ({"sort": "gpus", "limit": 1, "offset": 1}, [7]),
    ],
)
def test_a_listing_has_the_jobs_that_were_asked_for_in_their_order(listed, wanted, numbers):
    assert listed(**wanted) == numbers


def test_a_listing_can_be_sorted_by_all_that_it_says(store):
    with store.reader() as connection:
        for key in queries.SORTS:
            assert len(queries.list_jobs(connection, JobFilter(sort=key))) == len(JOBS)


def test_a_listed_job_says_what_was_committed(store):
    with store.reader() as connection:
        (job,) = queries.list_jobs(connection, JobFilter(ids=frozenset({2})))
    assert (job.name, job.user, job.state, job.shape, job.gpus) == ("train-b", "bob", State.RUNNING, WIDE, 16.0)
    assert job.preemptible is False
    assert job.uid == store.job(2).uid
    assert len(job.uid) == 26


def test_jobs_are_counted_by_state(store):
    with store.reader() as connection:
        assert queries.count_by_state(connection) == {"FAILED": 1, "HELD": 1, "QUEUED": 3, "RUNNING": 1, "SUCCEEDED": 1}
        assert queries.count_by_state(connection, JobFilter(user="bob")) == {"FAILED": 1, "RUNNING": 1}


@pytest.mark.parametrize(
    ("reference", "number"),
    [
        ("3", 3),
        ("@", 7),
        ("@~0", 7),
        ("@~2", 5),
        ("train-a", 4),
        ("train-b", 2),
        ("eval", 3),
        ("evalu", 7),
        ("Ü", 6),
    ],
)
def test_a_job_is_found_by_what_a_user_types(store, reference, number):
    with store.reader() as connection:
        assert queries.find_job(connection, reference).id == number


def test_a_job_is_found_by_its_ulid_or_how_it_begins_in_either_case(store):
    uid = store.job(5).uid
    with store.reader() as connection:
        assert queries.find_job(connection, uid).id == 5
        assert queries.find_job(connection, uid.lower()).id == 5
        assert queries.find_job(connection, uid[:-1]).id == 5


def test_the_newest_job_of_a_user(store):
    with store.reader() as connection:
        assert queries.find_job(connection, "@", user="bob").id == 5
        assert queries.find_job(connection, "@~1", user="bob").id == 2
        with pytest.raises(NotFoundError, match="no job '@~2'"):
            queries.find_job(connection, "@~2", user="bob")


@pytest.mark.parametrize("reference", ["99", "@~7", "nothing", "train-a%", "9" * 18, "9" * 40, "@-1", "'; --"])
def test_a_job_that_is_not_there_is_not_found(store, reference):
    with store.reader() as connection, pytest.raises(NotFoundError, match="there is no job"):
        queries.find_job(connection, reference)


def test_a_beginning_that_several_jobs_share_is_refused_with_their_numbers(store):
    with store.reader() as connection, pytest.raises(NotFoundError) as caught:
        queries.find_job(connection, "train")
    assert caught.value.message == "'train' can mean more than one job: 4 (train-a), 2 (train-b), 1 (train-a)"


def test_labels_and_annotations_find_a_job(store):
    document = {"run": "x", "labels": {"zone": "a"}, "annotations": {"ticket": "ML-42"}}
    spec = JobSpec.model_validate(document)
    job = Job(8, spec.shape(), 800.0, spec=spec)
    store.commit(jobs=[job], events=[Event(800.0, Kind.SUBMITTED, 8, 0, job)])
    with store.reader() as connection:
        for labels in ({"zone": "a"}, {"ticket": "ML-42"}, {"zone": "a", "ticket": "ML-42"}):
            assert [job.id for job in queries.list_jobs(connection, JobFilter(labels=labels))] == [8]
        for labels in ({"zone": "b"}, {"zone": "a", "ticket": "none"}, {"ML-42": "ticket"}):
            assert queries.list_jobs(connection, JobFilter(labels=labels)) == []
        assert queries.job_labels(connection, 8) == {"ticket": "ML-42", "zone": "a"}
        assert queries.job_labels(connection, 1) == {}


def test_a_secret_is_kept_apart_and_comes_back_only_where_a_job_is_started(store):
    spec = JobSpec.model_validate({"run": "x", "secrets": {"TOKEN": "hunter2"}})
    job = Job(8, spec.shape(), 800.0, name="secretive", spec=spec)
    store.commit(jobs=[job], events=[Event(800.0, Kind.SUBMITTED, 8, 0, job)])
    assert store.secrets(8) == {"TOKEN": "hunter2"}
    assert store.secrets(1) == {}
    assert store.unfinished()[-1].spec.secret_values() == {"TOKEN": "hunter2"}
    with store.reader() as connection:
        shown = [
            queries.list_jobs(connection, JobFilter()),
            queries.find_job(connection, "8"),
            queries.job_spec(connection, 8),
            queries.job_events(connection, 8),
            queries.job_attempts(connection, 8),
            store.job(8).spec,
            store.events(8),
        ]
    assert "hunter2" not in repr(shown)
    assert '"TOKEN"' in shown[2][0]


def test_secrets_go_with_the_end_of_their_job(store):
    spec = JobSpec.model_validate({"run": "x", "secrets": {"TOKEN": "hunter2"}})
    job = Job(8, spec.shape(), 800.0, name="secretive", spec=spec)
    store.commit(jobs=[job], events=[Event(800.0, Kind.SUBMITTED, 8, 0, job)])
    job.state, job.ended = State.CANCELLED, 801.0
    store.commit(jobs=[job], events=[Event(801.0, Kind.CANCELLED, 8)])
    assert store.secrets(8) == {}


def test_a_spec_is_shown_as_it_was_resolved_and_as_it_was_written(store):
    spec = JobSpec.model_validate({"run": "python train.py"}).with_source("run: python train.py\n")
    job = Job(8, spec.shape(), 800.0, spec=spec)
    store.commit(jobs=[job])
    with store.reader() as connection:
        assert queries.job_spec(connection, 8) == (spec.to_store(), "run: python train.py\n")
        assert queries.job_spec(connection, 1) == (None, None)
        assert queries.job_spec(connection, 99) == (None, None)


def test_the_journal_of_a_job_is_plain_data(store):
    store.commit(events=[Event(950.0, Kind.HELD, 3), Event(951.0, Kind.RELEASED, 3), Event(952.0, Kind.HELD, 4)])
    with store.reader() as connection:
        first, *rest = queries.job_events(connection, 3)
        assert (first.kind, first.data["name"], first.data["shape"]["gpus"]) == ("submitted", "eval", 1)
        assert [(event.seq, event.kind, event.data) for event in rest] == [(8, "held", None), (9, "released", None)]
        assert [event.seq for event in queries.job_events(connection, after=8)] == [9, 10]
        assert [event.seq for event in queries.job_events(connection, after=8, limit=1)] == [9]


def test_a_waiting_job_has_the_latest_reason_of_its_shape(store):
    old, new = Why(Token.INSUFFICIENT_GPUS, 4, 2, 1), Why(Token.FRAGMENTED, 4.0, 6.5, 3, 2)
    store.commit(
        decisions=[
            Decision(1.0, "fifo/1", 2, 2, (), (), ((Line((), FOUR), old), (Line((), ONE), old))),
            Decision(2.0, "fifo/1", 2, 6, (), (), ((Line((), FOUR), new),)),
            Decision(3.0, "fifo/1", 2, 6, (), (), ()),
        ]
    )
    with store.reader() as connection:
        assert queries.reason_for_shape(connection, FOUR) == queries.ShapeReason(2, 2.0, "fifo/1", new)
        assert queries.reason_for_shape(connection, ONE).why == old
        assert queries.reason_for_shape(connection, WIDE) is None
        assert queries.reason_for_job(connection, queries.find_job(connection, "4")).why == new
        assert queries.reason_for_job(connection, store.job(4)).why == new
        assert queries.reason_for_job(connection, queries.find_job(connection, "7")) is None


def test_a_job_waits_for_the_reason_of_its_own_line(store):
    ours, others = Why(Token.QUOTA_EXCEEDED, 1, 5, 2), Why(Token.PRIORITY, 1, 5, 2, 1)
    own, other = ("research", "ada"), ("research", "bob", "fixed")
    lines = ((Line((), ONE), others), (Line(other, ONE), others), (Line(own, ONE), ours))
    store.commit(decisions=[Decision(1.0, "fair/1", 2, 2, (), (), lines)])
    with store.reader() as connection:
        job = queries.find_job(connection, "3")
        assert queries.reason_for_job(connection, job, own) == queries.ShapeReason(1, 1.0, "fair/1", ours)
        assert queries.reason_for_job(connection, job).why == others
        assert queries.reason_for_job(connection, job, ("default",)) is None


def test_what_is_in_each_queue_is_counted_by_state(store):
    with store.reader() as connection:
        assert queries.load_by_queue(connection) == [
            queries.QueueLoad("default", State.HELD, 1, 4),
            queries.QueueLoad("default", State.QUEUED, 2, 8),
            queries.QueueLoad("default", State.RUNNING, 1, 16),
            queries.QueueLoad("research", State.QUEUED, 1, 1),
        ]


def test_what_a_position_in_the_queue_is_made_of(store):
    with store.reader() as connection:
        ahead = {name: queries.waiting_ahead(connection, queries.find_job(connection, name)) for name in "346"}
    assert ahead["3"] == queries.Ahead(waiting=3, arrived=0, priority=1, same_shape=0)
    assert ahead["4"] == queries.Ahead(waiting=3, arrived=1, priority=2, same_shape=0)
    assert ahead["6"] == queries.Ahead(waiting=3, arrived=2, priority=0, same_shape=1)


@pytest.mark.parametrize(
    "wanted",
    [
        {"active": True, "limit": 10},
        {"user": "ada", "active": True, "limit": 10},
        {"user": "ada", "limit": 10},
        {"queue": "default", "limit": 10},
        {"states": frozenset({State.QUEUED}), "limit": 10},
        {"states": frozenset({State.QUEUED})},
        {"states": frozenset({State.FAILED}), "limit": 10},
        {"name_prefix": "train", "limit": 10},
        {"since": 5000.0},
        {"ids": frozenset({1, 2})},
        {"labels": {"zone": "a"}},
    ],
)
def test_no_listing_reads_the_whole_history(tmp_path, open_store, wanted):
    """On SQLite, whose plans do not depend on how many rows there are: each look goes through an index."""
    store = open_store(str(tmp_path / "plans.db"))
    with store.reader() as connection:
        looks = []
        raw = connection.connection.driver_connection
        raw.set_trace_callback(looks.append)
        queries.list_jobs(connection, JobFilter(**wanted))
        raw.set_trace_callback(None)
        plans = [
            " / ".join(step[3] for step in raw.execute(f"EXPLAIN QUERY PLAN {look}"))
            for look in looks
            if look.startswith("SELECT")
        ]
    assert plans
    for plan in plans:
        assert "SCAN" not in plan
