"""Readers and the writer side by side: neither waits for the other."""

from __future__ import annotations

import threading

import pytest

from gpusched.jobs.errors import StoreError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape
from gpusched.scheduler.store import queries


def submit(store, number):
    job = Job(number, Shape(gpus=1), float(number))
    store.commit(jobs=[job], events=[Event(job.submitted, Kind.SUBMITTED, number, 0, job)])


def test_a_reader_sees_one_moment_while_the_writer_goes_on(sql_store):
    submit(sql_store, 1)
    with sql_store.reader() as connection:
        assert queries.count_jobs(connection, queries.JobFilter()) == 1
        submit(sql_store, 2)  # returns: the open reader holds nothing that a commit needs
        assert queries.count_jobs(connection, queries.JobFilter()) == 1
        with sql_store.reader() as later:
            assert queries.count_jobs(later, queries.JobFilter()) == 2


def test_readers_do_not_wait_for_an_open_transaction(sql_store):
    submit(sql_store, 1)
    with sql_store.database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET name = 'half-written'")
        assert sql_store.job(1).name == ""
    assert sql_store.job(1).name == "half-written"


def test_a_reader_cannot_write(sql_store):
    submit(sql_store, 1)
    with pytest.raises(StoreError, match="not allowed to write"), sql_store.reader() as connection:
        connection.exec_driver_sql("UPDATE jobs SET name = 'x'")
    assert sql_store.job(1).name == ""


def test_many_threads_read_whole_commits_while_one_writes(sql_store):
    stop, failures, looks = threading.Event(), [], []

    def look():
        try:
            while not stop.is_set():
                with sql_store.reader() as connection:
                    jobs = queries.count_jobs(connection, queries.JobFilter())
                    events = len(queries.job_events(connection))
                assert jobs == events
                looks.append(jobs)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    number = 0
    while number < 60 or (len(looks) < 20 and not failures):
        number += 1
        submit(sql_store, number)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert sql_store.last_job_id() == number
