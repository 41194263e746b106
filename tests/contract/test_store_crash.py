"""A process killed in the middle of commits: what was acknowledged is there, and of no commit is there a part."""

from __future__ import annotations

import random
import signal

import pytest

from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape

WRITER = """
import os, signal, sys
from sqlalchemy import event
from gpusched.cluster.backend import Node, NodeChange
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.policies.plan import Decision, Line, Token, Why
from gpusched.scheduler.store.sql import SqlStore

url, die_at, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = SqlStore(url)
store.commit(nodes=[(0, NodeChange(0.0, Node("a", 8)))])
print(store.last_job_id(), flush=True)
steps = 0

def step(*_):
    global steps
    steps += 1
    if steps == die_at:
        os.kill(os.getpid(), signal.SIGKILL)

if die_at:
    event.listen(store.database.writer, "before_cursor_execute", step)
    event.listen(store.database.writer, "commit", step)

while True:
    first = store.last_job_id() + 1
    jobs = [Job(first + i, Shape(gpus=1), float(first)) for i in range(size)]
    events = [Event(job.submitted, Kind.SUBMITTED, job.id, 0, job) for job in jobs]
    for job in jobs:
        job.state, job.attempt, job.placement = State.STARTING, 1, (Piece(0, 1),)
        events.append(Event(float(first), Kind.PLACED, job.id, 1, job.placement))
    why = ((Line((), Shape(gpus=2)), Why(Token.INSUFFICIENT_GPUS)),)
    decision = Decision(float(first), "fifo/1", size, 8, tuple(job.id for job in jobs), (), why)
    store.commit(jobs=jobs, events=events, decisions=[decision])
    print(jobs[-1].id, flush=True)
"""


def check(store, acknowledged, size):
    """Whole commits only, the acknowledged ones among them; jobs, events, attempts and decisions agree."""
    last = store.last_job_id()
    assert last >= acknowledged
    assert last % size == 0
    jobs = store.unfinished()
    assert [job.id for job in jobs] == list(range(1, last + 1))
    assert all(job.uid and job.attempt == 1 and job.placement for job in jobs)
    journal = store.events()
    assert [number for number, _ in journal] == list(range(1, 2 * last + 1))
    decided = [number for _, decision in store.decisions() for number in decision.starts]
    assert decided == list(range(1, last + 1))
    with store.reader() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM attempts").scalar() == last
    return last


def test_a_process_killed_at_any_step_of_a_commit_leaves_whole_commits(made_url, open_store, start_python):
    """A commit is BEGIN, six statements and COMMIT: the second one is cut off before each of them in turn."""
    acknowledged = 0
    for die_at in range(9, 19):
        process = start_python(WRITER, made_url, die_at, 5)
        said, complaints = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, complaints
        before, *done = map(int, said.split())
        assert before >= acknowledged
        assert done, "the first commit was acknowledged"
        acknowledged = done[-1]
        store = open_store(made_url)
        assert check(store, acknowledged, size=5) == acknowledged
        store.close()


def test_a_process_killed_at_any_moment_loses_nothing_that_was_acknowledged(made_url, open_store, start_python):
    draw = random.Random(4)  # noqa: S311 - the same moments every time
    for _ in range(4):
        process = start_python(WRITER, made_url, 0, 20)
        said = ""
        for _ in range(draw.randrange(2, 60)):
            said = process.stdout.readline()
        process.kill()
        rest, _ = process.communicate(timeout=60)
        complete = [line for line in (said + rest).splitlines(keepends=True) if line.endswith("\n")]
        store = open_store(made_url)
        assert check(store, int(complete[-1]), size=20) > 0
        store.close()


def test_a_database_that_was_being_made_when_its_maker_died_is_made_by_the_next(database_url, open_store, start_python):
    maker = """
import os, signal, sys
from sqlalchemy import Engine, event
from gpusched.scheduler.store.sql import SqlStore

made = 0

def step(connection, cursor, statement, *_):
    global made
    made += "CREATE TABLE" in statement
    if made == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", step)
SqlStore(sys.argv[1])
"""
    for table in ("1", "5", "15"):
        process = start_python(maker, database_url, table)
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, complaints
    store = open_store(database_url)
    assert store.upgraded_from is None
    assert store.last_job_id() == 0


def test_a_commit_that_raises_leaves_nothing(sql_store):
    good = Job(1, Shape(gpus=1), 0.0)
    sql_store.commit(jobs=[good], events=[Event(0.0, Kind.SUBMITTED, 1, 0, good)])
    bad = Event(1.0, Kind.STARTED, 2, 1, {"ranks": object()})
    with pytest.raises(TypeError):
        sql_store.commit(jobs=[Job(2, Shape(gpus=1), 1.0)], events=[Event(1.0, Kind.HELD, 1), bad])
    assert sql_store.last_job_id() == 1
    assert len(sql_store.events()) == 1
    sql_store.commit(events=[Event(2.0, Kind.HELD, 1)])
    assert [number for number, _ in sql_store.events()] == [1, 2]
