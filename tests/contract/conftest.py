"""Databases for the contract of stores: files of SQLite, and a real PostgreSQL that the session starts and stops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpusched
from gpusched.scheduler.store import MemoryStore
from gpusched.scheduler.store.sql import SqlStore

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=DATABASES)
def database_url(request, tmp_path):
    """The URL of a database that does not exist yet (SQLite) or is empty (PostgreSQL)."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/gpusched.db"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def open_store():
    """Open a store; all that a test opened are closed after it."""
    opened = []

    def opens(url, **options):
        opened.append(SqlStore(url, **options))
        return opened[-1]

    yield opens
    for store in opened:
        store.close()


@pytest.fixture(params=DATABASES)
def made_url(request, tmp_path):
    """The URL of a database with our tables in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/gpusched.db"
    return request.getfixturevalue("postgres").migrated_database()


@pytest.fixture
def sql_store(made_url, open_store):
    """A new SqlStore on each kind of database."""
    return open_store(made_url)


@pytest.fixture
def start_python():
    """Start a program, given as text, with arguments. All that a test started are gone after it."""
    started = []

    def starts(program, *arguments):
        environment = {**os.environ, "PYTHONPATH": str(Path(gpusched.__file__).parent.parent)}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment))
        return started[-1]

    yield starts
    for process in started:
        process.kill()
        process.communicate(timeout=60)


@pytest.fixture(params=["memory", *DATABASES])
def store(request):
    """A new store of each kind."""
    if request.param == "memory":
        return MemoryStore()
    opens = request.getfixturevalue("open_store")
    if request.param == "sqlite":
        return opens(f"sqlite:///{request.getfixturevalue('tmp_path')}/gpusched.db")
    return opens(request.getfixturevalue("postgres").migrated_database())
