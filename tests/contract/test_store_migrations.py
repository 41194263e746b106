"""Migrations and models say the same, an older file opens in this version, and an upgrade is whole or not at all."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from gpusched.jobs.errors import StoreError
from gpusched.jobs.events import Event, Kind
from gpusched.jobs.job import Job, Shape
from gpusched.scheduler import migrations
from gpusched.scheduler.store import queries
from gpusched.scheduler.store.database import Database
from gpusched.scheduler.store.sql import SqlStore
from gpusched.scheduler.store.tables import Base

OLD = Path(__file__).parent / "databases"


def test_the_migrations_make_what_the_models_say(sql_store):
    with sql_store.reader() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_revisions_that_the_program_names_are_those_of_the_scripts():
    scripts = ScriptDirectory(str(migrations.STEPS))
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == migrations.REVISIONS


def test_opening_again_changes_nothing(database_url, open_store):
    first = open_store(database_url)
    assert first.upgraded_from is None
    first.commit(events=[Event(1.0, Kind.HELD, 1)])
    second = open_store(database_url)
    assert second.upgraded_from == migrations.HEAD
    assert len(second.events()) == 1


def test_two_that_open_a_new_database_at_once_make_it_once(database_url, start_python):
    program = (
        "import sys; from gpusched.scheduler.store.sql import SqlStore; print(SqlStore(sys.argv[1]).last_job_id())"
    )
    both = [start_python(program, database_url) for _ in range(2)]
    for process in both:
        said, complaints = process.communicate(timeout=60)
        assert said == "0\n", complaints


def test_a_database_that_is_up_to_date_opens_without_alembic(made_url, open_store, start_python):
    open_store(made_url).close()
    program = """
import sys
from gpusched.scheduler.store.sql import SqlStore

SqlStore(sys.argv[1])
print("alembic" in sys.modules)
"""
    said, complaints = start_python(program, made_url).communicate(timeout=60)
    assert said == "False\n", complaints


@pytest.mark.parametrize("dump", sorted(OLD.glob("*.sql")), ids=lambda dump: dump.stem)
def test_a_file_of_an_older_release_opens_with_all_that_is_in_it(dump, tmp_path, open_store):
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump.read_text())
    store = open_store(str(path))
    assert store.upgraded_from == dump.stem
    assert [(job.id, job.name, job.state) for job in store.unfinished()] == [
        (2, "waits", "QUEUED"),
        (3, "runs", "RUNNING"),
    ]
    assert store.job(1).exit_code == 0
    assert store.job(3).spec.run == "python train.py"
    assert store.secrets(3) == {"TOKEN": "not-a-real-one"}
    assert [event.kind for _, event in store.events(3)] == ["submitted", "placed", "started"]
    (decision,) = [decision for _, decision in store.decisions()]
    assert decision.starts == (1, 3)
    assert [change.node.name for _, change in store.known_nodes()] == ["node-a"]
    with store.reader() as connection:
        (attempt,) = queries.job_attempts(connection, 3)
        assert attempt.ranks[0]["gpus"] == [0, 1]
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


STEP = """
import sqlalchemy as sa
from alembic import op

revision = "next"
down_revision = "HEAD"


def upgrade():
    op.add_column("jobs", sa.Column("colour", sa.Text(), server_default="blue", nullable=False))
    {then}
"""


@pytest.fixture
def next_release(tmp_path):
    """The steps as the next release might have them; `then` is what its step does last."""

    def made(then="pass"):
        steps = tmp_path / "steps"
        shutil.copytree(migrations.STEPS, steps, dirs_exist_ok=True)
        (steps / "versions" / "next.py").write_text(STEP.replace("HEAD", migrations.HEAD).format(then=then))
        return {"steps": steps, "known": (*migrations.REVISIONS, "next")}

    return made


@pytest.fixture
def filled(made_url, open_store):
    """A database of this release with a job in it, closed, and its URL."""
    store = open_store(made_url)
    job = Job(1, Shape(gpus=1), 0.0, name="kept")
    store.commit(jobs=[job], events=[Event(0.0, Kind.SUBMITTED, 1, 0, job)])
    store.close()
    return made_url


def test_an_upgrade_keeps_everything_and_leaves_a_copy_of_the_file_as_it_was(filled, next_release, open_store):
    database = Database(filled)
    assert migrations.migrate(database, **next_release()) == migrations.HEAD
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT name, colour FROM jobs").all() == [("kept", "blue")]
    database.close()
    if database.path is None:
        copy = f"{filled}&options=-csearch_path%3Dgpusched_schema_{migrations.HEAD}"
    else:
        copy = f"{database.path}.schema-{migrations.HEAD}"
        assert Path(copy).stat().st_mode & 0o777 == 0o600
    again = open_store(copy)
    assert again.upgraded_from == migrations.HEAD
    assert again.job(1).name == "kept"
    again.commit(jobs=[Job(2, Shape(gpus=1), 0.0, name="goes on")])


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(filled, next_release, open_store):
    database = Database(filled)
    with pytest.raises(RuntimeError, match="half-way"):
        migrations.migrate(database, **next_release(then="raise RuntimeError('half-way')"))
    with database.read() as connection:
        assert "colour" not in {column["name"] for column in inspect(connection).get_columns("jobs")}
    database.close()
    assert open_store(filled).job(1).name == "kept"


def test_a_database_that_was_upgraded_is_refused_by_the_older_program(filled, next_release):
    database = Database(filled)
    migrations.migrate(database, **next_release())
    database.close()
    with pytest.raises(StoreError, match="written by a newer gpusched"):
        SqlStore(filled)
