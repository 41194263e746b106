"""Archived rows laid out in tables like those of the store, so that the same questions can be asked of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, delete, pool

from ...jobs.errors import StoreError
from . import parquet
from .bulk import table_of
from .tables import AttemptRow, Base, EventRow, JobLabelRow, JobRow


class ReadingRoom:
    """Makes a SQLite file of what is asked for, and clears it away. It takes disk, not memory."""

    @contextmanager
    def holding(
        self,
        files: Sequence[tuple[Path, str]],
        *,
        jobs: frozenset[int] | None = None,
        without: frozenset[int] = frozenset(),
    ) -> Iterator[Connection]:
        """A connection to a database with the rows of these files, and nothing else.

        Args:
            files: (path, table).
            jobs: rows of these only; None = of all.
            without: jobs to leave out.

        Raises:
            StoreError: a file is not here, or cannot be read.
        """
        missing = next((path for path, _ in files if not path.is_file()), None)
        if missing is not None:
            raise StoreError(
                f"this is archived, and its file {missing} is not here",
                hint="mount the archive folder, or put the file back; `gpusched journal verify` names all that lack",
            )
        with tempfile.TemporaryDirectory(prefix="gpusched-archive-") as folder:
            path = f"{folder}/room.db"
            engine = create_engine(f"sqlite+pysqlite:///{path}", poolclass=pool.NullPool)
            try:
                Base.metadata.create_all(engine)
                parquet.run(parquet.Read(path, [(str(file), table) for file, table in files], jobs))
                with engine.connect() as connection:
                    if without:
                        _leave_out(connection, sorted(without))
                    yield connection
            finally:
                engine.dispose()


def _leave_out(connection: Connection, jobs: Sequence[int]) -> None:
    for at in range(0, len(jobs), 5000):
        some = jobs[at : at + 5000]
        for model in (JobLabelRow, AttemptRow, EventRow):
            connection.execute(delete(table_of(model)).where(table_of(model).c.job.in_(some)))
        connection.execute(delete(table_of(JobRow)).where(table_of(JobRow).c.id.in_(some)))
