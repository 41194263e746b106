"""Databases that cannot be used: one clear message, and nothing lost or changed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from gpusched.jobs.errors import StoreError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape
from gpusched.scheduler.store.sql import SqlStore


def refusal(url, **options):
    """The message of the StoreError that opening gives."""
    with pytest.raises(StoreError) as caught:
        SqlStore(str(url), **options)
    assert caught.value.hint
    assert "Traceback" not in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://host/db", "does not speak mysql"),
        ("sqlite://", "would forget every job"),
        ("sqlite:///:memory:", "would forget every job"),
        ("postgresql://host:port/db", "cannot be read"),
    ],
)
def test_a_url_that_will_not_do_is_refused_with_an_example(url, words):
    assert words in refusal(url)


def test_a_password_is_not_in_the_message():
    message = refusal("postgresql://ada:hunter2@127.0.0.1:1/nowhere?connect_timeout=2")
    assert "does not answer" in message
    assert "hunter2" not in message


@pytest.mark.postgres
def test_a_database_that_is_not_there_is_named(postgres):
    assert '"nowhere" does not exist' in refusal(postgres.url("nowhere"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
@pytest.mark.postgres
def test_each_way_to_write_a_postgresql_url_works(postgres, open_store, scheme):
    url = postgres.new_database().replace("postgresql", scheme, 1)
    assert open_store(url).last_job_id() == 0


def test_a_bare_path_works_and_its_folder_is_made_for_its_owner_only(tmp_path, open_store):
    path = tmp_path / "state" / "gpusched" / "jobs.db"
    assert open_store(str(path)).last_job_id() == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes, more than sixteen letters")
    assert refusal(path) == f"{path} is not a SQLite database"
    assert path.read_text() == "my notes, more than sixteen letters"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_refused(tmp_path):
    assert "cannot open the database" in refusal(tmp_path)


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "recipes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()
    before = path.read_bytes()
    assert refusal(path) == f"{path} is a database of another program; gpusched does not write to it"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_program_with_tables_named_like_ours_is_refused(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE meta (key TEXT, value TEXT); CREATE TABLE alembic_version (version_num TEXT);"
            "INSERT INTO meta VALUES ('application', 'cookbook'); INSERT INTO alembic_version VALUES ('0001')"
        )
    assert "is a database of another program" in refusal(path)


@pytest.mark.postgres
def test_a_postgresql_database_of_another_program_is_refused(postgres):
    url = postgres.new_database()
    import psycopg  # noqa: PLC0415 - only tests that need PostgreSQL need it

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        assert "is a database of another program" in refusal(url)
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (1,)


def test_a_damaged_database_is_named(tmp_path, open_store):
    path = tmp_path / "gpusched.db"
    open_store(str(path)).close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(len(path.read_bytes()) - 100))
    assert "damaged" in refusal(path)


def test_a_database_of_a_newer_version_is_refused(made_url, open_store):
    store = open_store(made_url)
    with store.database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert "was written by a newer gpusched (schema 9999; this one knows up to" in refusal(made_url)


def test_a_locked_database_is_told_with_the_process_that_has_it(tmp_path, open_store, start_python):
    path = tmp_path / "gpusched.db"
    store = open_store(str(path), busy_timeout=0.2)
    locker = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("free", flush=True)
"""
    process = start_python(locker, path)
    assert process.stdout.readline() == "locked\n"
    with pytest.raises(StoreError) as caught:
        store.commit(events=[Event(0.0, Kind.HELD, 1)])
    assert caught.value.message == (
        f"the database {path} is locked: another program has kept it for more than 0.2 s; "
        f"it is open in pid {process.pid} ({Path(f'/proc/{process.pid}/comm').read_text().strip()})"
    )
    assert store.events() == []  # reading goes on
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "free\n"
    store.commit(events=[Event(0.0, Kind.HELD, 1)])
    assert len(store.events()) == 1


def test_a_lock_that_is_released_in_time_is_waited_for(tmp_path, open_store, start_python):
    path = tmp_path / "gpusched.db"
    store = open_store(str(path), busy_timeout=30)
    locker = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
time.sleep(0.3)
connection.execute("ROLLBACK")
"""
    process = start_python(locker, path)
    assert process.stdout.readline() == "locked\n"
    store.commit(events=[Event(0.0, Kind.HELD, 1)])
    assert len(store.events()) == 1


def test_a_folder_without_the_right_to_write_is_told():
    folder = Path(tempfile.mkdtemp(prefix="gpusched-closed-"))  # where another user gets to, unlike tmp_path
    try:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                if os.geteuid() == 0:
                    os.setgid(65534)
                    os.setuid(65534)
                else:
                    folder.chmod(0o500)
                SqlStore(str(folder / "gpusched.db"))
            except StoreError as error:
                code = 0 if "cannot open the database" in error.message and "may you write" in error.hint else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        folder.chmod(0o700)
        folder.rmdir()


FILLER = """
import sys
from gpusched.jobs.errors import StoreError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape
from gpusched.scheduler.store.sql import SqlStore

store = SqlStore(sys.argv[1])
limit = int(sys.argv[2])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
done = 0
try:
    while True:
        jobs = [Job(done + i + 1, Shape(gpus=1), 0.0, name="x" * 200) for i in range(200)]
        store.commit(jobs=jobs, events=[Event(0.0, Kind.SUBMITTED, job.id, 0, job) for job in jobs])
        done += 200
except StoreError as error:
    print(done)
    print(error.message)
    print(len(store.unfinished()), len(store.events()))
"""


def test_a_full_disk_is_told_and_nothing_is_half_written(start_python):
    """On a file system of 4 MB, where the test may mount one."""
    folder = Path(tempfile.mkdtemp(prefix="gpusched-full-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "gpusched-test", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"may not mount a small file system: {mounted.stderr.decode().strip()}")
    try:
        path = folder / "gpusched.db"
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        said, complaints = start_python(FILLER, path, 0).communicate(timeout=120)
        done, message, left = said.splitlines() or [complaints] * 3
        assert message == f"disk full: cannot write to {path}"
        assert int(done) > 0
        assert left == f"{done} {done}"
        ballast.unlink()
        store = SqlStore(str(path))
        try:
            job = Job(int(done) + 1, Shape(gpus=1), 0.0)
            store.commit(jobs=[job], events=[Event(0.0, Kind.SUBMITTED, job.id, 0, job)])
            assert len(store.unfinished()) == len(store.events()) == int(done) + 1
        finally:
            store.close()
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def test_a_file_that_may_not_grow_is_told_and_nothing_is_half_written(tmp_path, open_store, start_python):
    path = tmp_path / "gpusched.db"
    said, complaints = start_python(FILLER, path, 2 << 20).communicate(timeout=120)
    done, message, left = said.splitlines() or [complaints] * 3
    assert f"cannot write to {path}" in message
    assert int(done) > 0
    assert left == f"{done} {done}"
    assert len(open_store(str(path)).unfinished()) == int(done)


@pytest.mark.postgres
def test_when_postgresql_goes_away_it_is_told_and_when_it_is_back_work_goes_on(postgres, open_store):
    store = open_store(postgres.migrated_database())
    store.commit(events=[Event(0.0, Kind.HELD, 1)])
    with store.reader() as connection:
        sessions = connection.exec_driver_sql("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
        others = [pid for (pid,) in sessions if pid != connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()]
        for pid in others:
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")
    store.commit(events=[Event(1.0, Kind.HELD, 1)])  # on a new connection
    assert len(store.events()) == 2


@pytest.mark.postgres
def test_a_transaction_in_which_postgresql_goes_away_is_as_if_it_never_was(postgres, open_store):
    store = open_store(postgres.migrated_database())
    store.commit(events=[Event(0.0, Kind.HELD, 1)])

    def loses_its_connection():
        with store.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM events")
            me = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            with store.reader() as other:
                other.exec_driver_sql(f"SELECT pg_terminate_backend({me})")
            connection.exec_driver_sql("DELETE FROM events")

    with pytest.raises(StoreError, match=r"does not answer|SQLSTATE 57P01"):
        loses_its_connection()
    assert len(store.events()) == 1
    store.commit(events=[Event(1.0, Kind.HELD, 1)])


def test_interrupting_a_commit_leaves_nothing_of_it(sql_store):
    class Interrupting:
        """An iterable of jobs during which the user presses Ctrl-C."""

        def __iter__(self):
            yield Job(1, Shape(gpus=1), 0.0)
            os.kill(os.getpid(), signal.SIGINT)
            yield Job(2, Shape(gpus=1), 0.0)

    with pytest.raises(KeyboardInterrupt):
        sql_store.commit(jobs=Interrupting())
    assert sql_store.last_job_id() == 0
