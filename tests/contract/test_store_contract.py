"""What every store promises. The same tests run on memory, on a file of SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpusched.cluster.backend import Node, NodeChange
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.jobs.spec import JobSpec
from gpusched.policies.plan import Decision, Line, Token, Why
from gpusched.scheduler.store import queries

WIDE = Shape(
    num_nodes=2,
    gpus=8,
    gpu_types=("H100", "A100"),
    cpu_milli=4000,
    memory=1 << 40,
    labels=(("rack", "a"),),
    distinct=True,
)


def submitted(job: Job) -> Event:
    return Event(job.submitted, Kind.SUBMITTED, job.id, 0, job)


def same(one: Job, other: Job) -> None:
    for name in Job.__slots__:
        assert getattr(one, name) == getattr(other, name), name


def test_a_new_store_is_empty(store):
    assert store.last_job_id() == 0
    assert store.unfinished() == []
    assert store.job(1) is None
    assert store.events() == []
    assert store.decisions() == []
    assert store.known_nodes() == []


def test_an_empty_commit_changes_nothing(store):
    store.commit()
    assert store.events() == []
    assert store.decisions() == []


def test_a_job_comes_back_with_every_field(store):
    job = Job(
        7,
        WIDE,
        1_700_000_000.25,
        name="träin/é\u2603",
        queue="research",
        user="ada",
        priority=80,
        estimate=3600.5,
        limit=7200.0,
        preemptible=True,
        state=State.RUNNING,
    )
    job.queued, job.not_before, job.placed = 1_700_000_001.5, 1_700_000_002.0, 1_700_000_003.125
    job.started, job.first_start, job.ended = 1_700_000_004.0, 1_700_000_003.125, None
    job.attempt, job.failures, job.exit_code, job.stop_cause = 3, 2, 137, "preempted"
    job.reason, job.gpu_seconds = "its GPUs go to another job", 123456.75
    job.placement = (Piece(4, 8), Piece(9, 0, 250, 3))
    job.min_runtime, job.executed = 600.0, 1800.25
    store.commit(jobs=[job], events=[submitted(job)])
    same(store.job(7), job)
    (found,) = store.unfinished()
    same(found, job)


def test_a_job_is_as_it_was_committed_last(store):
    jobs = [Job(number, Shape(gpus=1), float(number)) for number in (1, 2, 3)]
    store.commit(jobs=jobs, events=[submitted(job) for job in jobs])
    jobs[1].state, jobs[1].ended = State.CANCELLED, 9.0
    jobs[2].state, jobs[2].attempt, jobs[2].placement = State.STARTING, 1, (Piece(0, 1),)
    store.commit(jobs=jobs[1:])
    assert store.job(2).state is State.CANCELLED
    assert store.job(2).ended == 9.0
    assert store.job(3).placement == (Piece(0, 1),)
    assert [job.id for job in store.unfinished()] == [1, 3]


def test_what_waits_runs_or_stops_is_unfinished_and_what_ended_is_not(store):
    jobs = [Job(number, Shape(gpus=1), 0.0, state=state) for number, state in enumerate(State, 1)]
    store.commit(jobs=jobs)
    kept = {job.state for job in store.unfinished()}
    assert kept == {"HELD", "QUEUED", "STARTING", "RUNNING", "PREEMPTING", "STOPPING"}


def test_jobs_may_be_committed_in_any_order_of_their_numbers(store):
    store.commit(jobs=[Job(5, Shape(gpus=1), 0.0, name="five")])
    store.commit(jobs=[Job(9, Shape(gpus=1), 0.0, name="nine"), Job(3, Shape(gpus=1), 0.0, name="three")])
    assert store.last_job_id() == 9
    assert [(job.id, job.name) for job in store.unfinished()] == [(3, "three"), (5, "five"), (9, "nine")]


def test_the_last_number_is_known_though_its_job_ended(store):
    jobs = [Job(1, Shape(gpus=1), 0.0), Job(2, Shape(gpus=1), 0.0, state=State.FAILED)]
    store.commit(jobs=jobs)
    assert store.last_job_id() == 2


def test_events_are_numbered_from_1_in_the_order_in_which_they_were_committed(store):
    first = [Event(5.0, Kind.HELD, 1), Event(4.0, Kind.RELEASED, 1)]
    second = [Event(9.0, Kind.HELD, 2), Event(9.0, Kind.RELEASED, 2), Event(9.5, Kind.HELD, 1)]
    store.commit(events=first)
    store.commit(events=second)
    assert store.events() == list(enumerate(first + second, 1))
    assert store.events(after=2) == [(3, second[0]), (4, second[1]), (5, second[2])]
    assert store.events(after=1, limit=2) == [(2, first[1]), (3, second[0])]
    assert store.events(1) == [(1, first[0]), (2, first[1]), (5, second[2])]
    assert store.events(1, after=1, limit=1) == [(2, first[1])]
    assert store.events(3) == []
    assert store.events(after=5) == []


def test_the_details_of_an_event_come_back_as_they_went_in(store):
    job = Job(1, WIDE, 3.5, name="a", user="ada", queue="q", priority=7, estimate=9.0, limit=10.0, preemptible=True)
    ranks = {"ranks": [{"rank": 0, "node": "a", "address": "10.0.0.1", "gpus": [0, 3], "pid": 77, "log": "/logs/0"}]}
    events = [
        submitted(job),
        Event(4.0, Kind.PLACED, 1, 1, (Piece(2, 8), Piece(3, 0, 500, 1))),
        Event(5.0, Kind.STARTED, 1, 1, ranks),
        Event(6.0, Kind.FAILED, 1, 1, {"exit_code": 1, "failed_rank": 0, "message": 'a "word" \u2603 \x00 \ud800'}),
        Event(7.0, Kind.HELD, 1, 1, {}),
        Event(8.0, Kind.CANCELLED, 1, 1, None),
    ]
    store.commit(jobs=[job], events=events)
    found = [event for _, event in store.events()]
    assert found[1:] == events[1:]
    assert isinstance(found[1].data[0], Piece)
    assert found[0].kind is Kind.SUBMITTED
    same(found[0].data, job)


def test_what_no_database_takes_in_a_text_is_replaced_and_does_not_stop_the_queue(sql_store):
    job = Job(1, Shape(gpus=1), 0.0, name="nul\0", user="lone \ud800", queue="\0")
    job.reason = "\0 \udcff"
    placed = Event(1.0, Kind.PLACED, 1, 1, (Piece(0, 1),))
    failed = Event(2.0, Kind.FAILED, 1, 1, {"exit_code": 1, "message": "\0 \ud800"})
    sql_store.commit(jobs=[job], events=[submitted(job), placed, failed])
    sql_store.commit(jobs=[job])
    found = sql_store.job(1)
    assert (found.name, found.user, found.queue, found.reason) == ("nul\ufffd", "lone ?", "\ufffd", "\ufffd ?")
    with sql_store.reader() as connection:
        assert queries.job_attempts(connection, 1)[0].message == "\ufffd ?"
        assert [job.id for job in queries.list_jobs(connection, queries.JobFilter(user="lone \ud800"))] == [1]
        assert queries.find_job(connection, "nul\0").id == 1


def test_decisions_come_back_as_they_were_made(store):
    first = Decision(1.0, "fifo/1", 3, 16, (1, 2), (), ())
    second = Decision(
        2.5,
        "gang/1",
        1,
        0,
        (),
        (2,),
        (
            (Line((), WIDE), Why(Token.FRAGMENTED, 16.0, 11.5, 4, 0)),
            (Line(("research", "ada"), Shape(gpus=1)), Why(Token.PRIORITY, behind=2)),
        ),
        ((7, 3600.5), (9, 1_700_000_000.0)),
    )
    store.commit(decisions=[first])
    store.commit(decisions=[second])
    assert store.decisions() == [(1, first), (2, second)]
    assert store.decisions(after=1) == [(2, second)]
    assert store.decisions(limit=1) == [(1, first)]
    (wide, _), (own, _) = store.decisions()[1][1].waiting
    assert hash(wide.shape) == hash(WIDE)
    assert own.lane == ("research", "ada")


def test_nodes_are_known_by_their_number_as_they_were_last(store):
    old = Node("a", 8, "H100", 96_000, 1 << 40, {"rack": "1"}, "10.0.0.1")
    other = Node("b", 4)
    new = Node("a", 8, "H100", 96_000, 1 << 40, {"rack": "2"}, "10.0.0.9", schedulable=False, why="drained by ada")
    store.commit(nodes=[(0, NodeChange(1.0, old)), (1, NodeChange(1.0, other))])
    store.commit(nodes=[(0, NodeChange(2.0, new)), (1, NodeChange(3.0, other, gone=True))])
    assert store.known_nodes() == [(0, NodeChange(2.0, new)), (1, NodeChange(3.0, other, gone=True))]


@pytest.fixture
def spec():
    document = {"run": "python train.py", "name": "train", "env": {"A": "1"}, "annotations": {"ticket": "7"}}
    return JobSpec.model_validate(document).with_source("name: train  # mine\nrun: python train.py\n")


def test_a_spec_comes_back_with_its_job(store, spec):
    job = Job(1, spec.shape(), 0.0, spec=spec)
    store.commit(jobs=[job], events=[submitted(job)])
    for found in (store.job(1), store.unfinished()[0]):
        assert found.spec == spec
        assert found.spec.source == "name: train  # mine\nrun: python train.py\n"


numbers = st.floats(0, 2e9)
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
shapes = st.builds(
    Shape,
    num_nodes=st.integers(0, 9),
    gpus=st.integers(0, 16),
    gpu_milli=st.integers(0, 999),
    gpu_types=st.lists(names, max_size=2).map(tuple),
    cpu_milli=st.integers(0, 10**6),
    memory=st.integers(0, 1 << 45),
    labels=st.lists(st.tuples(names, names), max_size=2).map(tuple),
    distinct=st.booleans(),
)
places = st.lists(st.builds(Piece, st.integers(0, 3), st.integers(0, 8)), max_size=3).map(tuple)


@st.composite
def commits(draw):
    """A history as engines write it: jobs come, are placed, start and end in any order, several moves a commit."""
    jobs: dict[int, Job] = {}
    history = []
    for _ in range(draw(st.integers(1, 6))):
        changed, events = {}, []
        for _ in range(draw(st.integers(0, 4))):
            what = draw(st.sampled_from(["new", "place", "start", "end"]))
            if what == "new" or not jobs:
                number = len(jobs) + 1
                who = {"name": draw(names), "user": draw(names), "queue": draw(names)}
                job = jobs[number] = Job(number, draw(shapes), draw(numbers), **who)
                events.append(submitted(job))
            else:
                job = jobs[draw(st.sampled_from(sorted(jobs)))]
                time = draw(numbers)
                if what == "place":
                    job.attempt += 1
                    job.state, job.placement = State.STARTING, draw(places)
                    events.append(Event(time, Kind.PLACED, job.id, job.attempt, job.placement))
                elif what == "start":
                    job.state, job.started = State.RUNNING, time
                    events.append(Event(time, Kind.STARTED, job.id, job.attempt, {"ranks": []}))
                else:
                    job.state = draw(st.sampled_from([State.QUEUED, State.FAILED, State.SUCCEEDED]))
                    job.exit_code = draw(st.none() | st.integers(-(1 << 31), 1 << 31))
                    events.append(Event(time, Kind.FAILED, job.id, job.attempt, {"message": draw(names)}))
            changed[job.id] = job
        history.append((changed, events))
        # Fields of jobs as they are at this commit: a store that keeps the object sees later changes too.
        history[-1] += ({number: {name: getattr(job, name) for name in Job.__slots__} for number, job in jobs.items()},)
    return history


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=commits())
def test_any_history_reads_back_from_a_database_as_it_went_in(history, sql_store):
    """One database takes every example in turn: numbers of jobs and events go on from where the last one ended."""
    base, before = sql_store.last_job_id(), len(sql_store.events())
    journal = []
    for changed, events, fields in history:
        jobs = []
        for number, job in changed.items():
            copy = Job(number + base, job.shape, job.submitted)
            for name, value in fields[number].items():
                setattr(copy, name, value)
            copy.id = number + base
            jobs.append(copy)
        moved = [event._replace(job=event.job + base) for event in events]
        sql_store.commit(jobs=jobs, events=moved)
        journal += moved
        for job in jobs:
            found = sql_store.job(job.id)
            for name in Job.__slots__:
                if name != "uid":
                    assert getattr(found, name) == getattr(job, name), name
    found = sql_store.events(after=before)
    assert [number for number, _ in found] == list(range(before + 1, before + 1 + len(journal)))
    for (_, event), went in zip(found, journal, strict=True):
        assert event[:4] == went[:4]
        if went.kind is not Kind.SUBMITTED:
            assert event.data == went.data
