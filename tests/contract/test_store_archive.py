"""History in Parquet files: nothing is lost or there twice, wherever it is interrupted, and it reads as before."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpusched.jobs.errors import NotFoundError, StoreError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Piece, Shape, State
from gpusched.policies.plan import Decision
from gpusched.scheduler.settings import ArchivePolicy
from gpusched.scheduler.store import archive as archives
from gpusched.scheduler.store import queries
from gpusched.scheduler.store.archive import Archive
from gpusched.scheduler.store.lease import Lease, LeaseHeldError
from gpusched.scheduler.store.past import past_attempts
from gpusched.scheduler.store.queries import JobFilter
from gpusched.scheduler.store.sql import SqlStore
from gpusched.scheduler.store.usage import export_jobs, total, usage

DAY = 86400.0
T = 1_700_000_000.0
NOW = T + 100 * DAY
POLICY = ArchivePolicy(after=30 * DAY)
JOBS = 20


@pytest.fixture
def file_store(tmp_path, open_store):
    """A store on SQLite: for what is the same on both."""
    return open_store(str(tmp_path / "gpusched.db"))


def fill(store: SqlStore, count: int = JOBS, *, first: int = 1, begin: float = T) -> None:
    """Each of these jobs ran for an hour, one a day; the last of them still runs."""
    jobs, events, decisions = [], [], []
    for number in range(first, first + count):
        at = begin + (number - first) * DAY
        job = Job(number, Shape(gpus=2), at, name=f"job-{number}", user=f"user{number % 3}")
        runs = number == first + count - 1
        job.state, job.attempt = State.RUNNING if runs else State.SUCCEEDED, 1
        job.placed = job.first_start = job.started = at
        job.ended = None if runs else at + 3600
        jobs.append(job)
        events += [
            Event(at, Kind.SUBMITTED, number, 0, job),
            Event(at, Kind.PLACED, number, 1, (Piece(0, 2),)),
            Event(at, Kind.STARTED, number, 1, None),
        ]
        events += [] if runs else [Event(at + 3600, Kind.SUCCEEDED, number, 1, {"exit_code": 0})]
        decisions.append(Decision(at, "fifo/1", 1, 8, (number,), (), ()))
    store.commit(jobs=jobs, events=events, decisions=decisions)


def whole(store: SqlStore) -> dict[str, list]:
    """All that is known, from tables and files together."""
    with Archive(store, Path()).reading_since(0.0) as connections:
        return {
            "jobs": sorted(
                (job.id, job.name, job.state, job.submitted, job.ended)
                for one in connections
                for job in queries.list_jobs(one, JobFilter())
            ),
            "events": sorted(
                (event.seq, event.kind, event.job, str(event.data))
                for one in connections
                for event in queries.job_events(one)
            ),
            "attempts": sorted(
                (attempt.job, attempt.attempt, attempt.ended, attempt.result)
                for one in connections
                for job in queries.list_jobs(one, JobFilter())
                for attempt in queries.job_attempts(one, job.id)
            ),
            "export": [job._replace(id=0) if hasattr(job, "_replace") else job for job in export_jobs(*connections)],
            "usage": total(row for one in connections for row in usage(one, "user", 0.0, NOW)),
            "past": sorted((job.id, until) for one in connections for job, until in past_attempts(one, 0.0, 1000)),
        }


def test_what_ended_long_ago_moves_and_reads_as_before(sql_store, tmp_path):
    fill(sql_store)
    before = whole(sql_store)
    archive = Archive(sql_store, tmp_path / "archive")
    assert archive.compact(ArchivePolicy(after=90 * DAY), NOW) > 0
    with sql_store.reader() as connection:
        left = queries.list_jobs(connection, JobFilter(descending=False))
    assert [job.id for job in left] == list(range(11, JOBS + 1))
    assert whole(sql_store) == before
    assert archive.verify() == []
    assert archive.compact(ArchivePolicy(after=90 * DAY), NOW) == 0


def test_numbers_go_on_rising_after_all_that_could_go_went(sql_store, tmp_path, open_store):
    fill(sql_store)
    last_event = sql_store.events()[-1][0]
    Archive(sql_store, tmp_path / "archive").compact(POLICY, NOW)
    with sql_store.reader() as connection:
        assert [job.id for job in queries.list_jobs(connection, JobFilter())] == [JOBS]  # it still runs
    assert sql_store.last_job_id() == JOBS
    assert [job.id for job in sql_store.unfinished()] == [JOBS]
    again = open_store(str(sql_store.database.url.render_as_string(hide_password=False)))
    fill(again, 2, first=JOBS + 1, begin=NOW)
    assert again.events()[-1][0] == last_event + 7
    assert again.last_job_id() == JOBS + 2


def test_a_finished_last_job_and_the_last_line_stay(file_store, tmp_path):
    fill(file_store, 5)
    job = file_store.job(5)
    job.state, job.ended = State.SUCCEEDED, T + 5 * DAY
    file_store.commit(jobs=[job], events=[Event(T + 5 * DAY, Kind.SUCCEEDED, 5, 1, None)])
    last = file_store.events()[-1][0]
    Archive(file_store, tmp_path).compact(POLICY, NOW)
    assert file_store.last_job_id() == 5
    assert file_store.events()[-1][0] == last
    assert len(file_store.decisions()) == 1


def test_one_archived_job_is_found_by_number_ulid_name_and_how_they_begin(file_store, tmp_path):
    fill(file_store)
    uid = file_store.job(7).uid
    archive = Archive(file_store, tmp_path)
    archive.compact(POLICY, NOW)
    assert [archive.find(ref) for ref in ("7", uid.lower(), "job-7", "@", "99")] == [7, 7, 7, None, None]
    with pytest.raises(NotFoundError, match="more than one"):
        archive.find("job-")
    with archive.reading(7) as connection:
        assert queries.find_job(connection, "7").name == "job-7"
        kinds = [event.kind for event in queries.job_events(connection, 7)]
    assert kinds == ["submitted", "placed", "started", "succeeded"]
    with pytest.raises(NotFoundError), archive.reading(JOBS):
        pass


def test_a_restored_part_is_in_the_tables_again_and_nowhere_twice(file_store, tmp_path):
    fill(file_store)
    before = whole(file_store)
    archive = Archive(file_store, tmp_path)
    archive.compact(POLICY, NOW)
    for part in archive.parts():
        archive.restore(part.number)
    assert archive.parts() == []
    assert file_store.job(3).name == "job-3"
    assert len(file_store.decisions()) == JOBS
    assert whole(file_store) == before
    with pytest.raises(NotFoundError):
        archive.restore(99)


def test_more_than_is_to_be_kept_goes_early(file_store, tmp_path):
    fill(file_store)
    Archive(file_store, tmp_path).compact(ArchivePolicy(after=None, keep=5), NOW)
    with file_store.reader() as connection:
        assert queries.count_jobs(connection, JobFilter(active=False)) == 5


def test_a_file_that_was_changed_or_is_gone_is_named(file_store, tmp_path):
    fill(file_store)
    archive = Archive(file_store, tmp_path)
    archive.compact(POLICY, NOW)
    files = sorted(tmp_path.glob("*.parquet"))
    files[0].write_bytes(files[0].read_bytes() + b"x")
    files[1].unlink()
    faults = archive.verify()
    assert len(faults) == 2
    assert "is not there" in " ".join(faults)
    with pytest.raises(StoreError, match="is not here"), archive.reading_since(0.0):
        pass


def test_who_does_not_lead_archives_nothing(sql_store, tmp_path, open_store):
    fill(sql_store)
    other = open_store(str(sql_store.database.url.render_as_string(hide_password=False)))
    Lease(sql_store, "one", ttl=0.05).acquire()
    end, successor = time.monotonic() + 20, Lease(other, "two")
    while True:
        try:
            successor.acquire()
            break
        except LeaseHeldError:
            assert time.monotonic() < end
    with pytest.raises(StoreError):
        Archive(sql_store, tmp_path).compact(POLICY, NOW)
    assert Archive(other, tmp_path).parts() == []
    assert Archive(other, tmp_path).compact(POLICY, NOW) > 0


def test_it_stops_between_two_steps_and_goes_on_later(file_store, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "CHUNK", 3)
    fill(file_store)
    before = whole(file_store)
    steps = []
    archive = Archive(file_store, tmp_path, on_step=steps.append)
    archive.compact(POLICY, NOW, stop=lambda: steps.count("delete") >= 2)
    assert [part.state for part in archive.parts()] == ["moving"]
    assert whole(file_store) == before
    archive.compact(POLICY, NOW)
    assert {part.state for part in archive.parts()} == {"moved"}
    assert whole(file_store) == before


def test_the_file_of_sqlite_gives_its_room_back(tmp_path, open_store):
    store = open_store(str(tmp_path / "file.db"))
    archive = Archive(store, tmp_path / "archive")
    sizes = []
    for turn in range(4):
        fill(store, 500, first=store.last_job_id() + 1, begin=T + turn * 500 * DAY)
        job = store.job(store.last_job_id())
        job.state, job.ended = State.CANCELLED, job.submitted
        store.commit(jobs=[job])
        archive.compact(POLICY, T + 10_000 * DAY)
        with store.reader() as connection:
            sizes.append(connection.exec_driver_sql("PRAGMA page_count").scalar())
            assert connection.exec_driver_sql("PRAGMA freelist_count").scalar() < 500
    assert sizes[-1] <= sizes[0] * 1.1 + 4


KILLED = """
import os, signal, sys
from pathlib import Path
from gpusched.scheduler.settings import ArchivePolicy
from gpusched.scheduler.store import archive as archives
from gpusched.scheduler.store.sql import SqlStore

archives.CHUNK = 5
url, folder, die_at, count, now = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5])

def step(name):
    global count
    count -= name == die_at
    if name == die_at and not count:
        print(name, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

archives.Archive(SqlStore(url), folder, on_step=step).compact(ArchivePolicy(after=30 * 86400.0), now)
print("whole")
"""


def test_a_process_killed_between_any_two_steps_loses_nothing_and_leaves_nothing_twice(
    made_url, open_store, start_python, tmp_path
):
    store = open_store(made_url)
    fill(store)
    before = whole(store)
    # Each run goes on where the one before was killed: first with the part of the jobs, then with the decisions' one.
    for die_at, count in (("declare", 1), ("delete", 1), ("delete", 3), ("done", 1), ("declare", 1), ("never", 1)):
        process = start_python(KILLED, made_url, tmp_path / "archive", die_at, count, NOW)
        said, complaints = process.communicate(timeout=60)
        assert said.strip() == (die_at if die_at != "never" else "whole"), complaints
        assert whole(store) == before, die_at
    archive = Archive(store, tmp_path / "archive")
    assert {part.state for part in archive.parts()} == {"moved"}
    assert len(archive.parts()) == 2
    assert archive.verify() == []
