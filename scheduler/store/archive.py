"""History that lies in Parquet files: how it gets there, and how it is read as if it never had left.

A part is written in three steps, and may be interrupted anywhere:

1. the rows of some long-ended jobs are read, and written to files: whole, synced, and known to nobody;
2. one short transaction says that the part is there (state `moving`). From now on its files count;
3. short transactions delete the rows from the tables; the last one says `moved`.

Before 2 a crash leaves files that the next part writes anew; after it, rows that are there twice, until the next run.
Who reads takes each job from the tables if it is there, else from the files: none is missing or seen twice.
Only the leader writes: each transaction asks for the lease.

The latest job, event and decision always stay in the tables, so that numbers go on rising.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Double,
    Integer,
    Table,
    Text,
    cast,
    delete,
    func,
    insert,
    select,
    text,
    update,
)  # fmt: skip

from ...jobs.errors import ConflictError, NotFoundError, StoreError
from ..settings import ArchivePolicy
from . import parquet
from .bulk import insert_bulk, table_of
from .reading_room import ReadingRoom
from .sql import SqlStore
from .tables import ArchiveRow, AttemptRow, DecisionRow, EventRow, JobLabelRow, JobRow, JobSecretRow

log = logging.getLogger("gpusched.archive")

PART = 5_000
"""Jobs of one part."""
LINES = 20_000
"""Decisions, and lines about the cluster, of one part."""
CHUNK = 200
"""Jobs whose rows are deleted in one transaction, so that a commit of the engine never waits long for its turn."""
PAUSE = 0.02
"""Seconds between two transactions, in which others may have theirs."""
PARTS = 200
"""Parts that one run writes at most."""

MOVING, MOVED, RESTORING = "moving", "moved", "restoring"
MODELS = {
    "jobs": JobRow,
    "job_labels": JobLabelRow,
    "attempts": AttemptRow,
    "events": EventRow,
    "decisions": DecisionRow,
}
"""The tables of which parts have rows, in the order in which they are put back."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part as the table `archives` has it; see there. `files`: table -> (path, bytes, SHA-256)."""

    number: int
    state: str
    made: float
    first: float
    last: float
    first_job: int
    last_job: int
    rows: dict[str, int]
    files: dict[str, tuple[Path, int, str]]

    def files_by_table(self) -> list[tuple[Path, str]]:
        """(path, table) of each file."""
        return [(path, table) for table, (path, _, _) in self.files.items()]


class Archive:
    """The archive of a store. One thread writes to it, any reads.

    Args:
        store: the database.
        folder: where new parts are written. Control planes that share the database share it.
        on_step: called before each step, with its name: for who watches.
    """

    def __init__(self, store: SqlStore, folder: Path, *, on_step: Callable[[str], None] = lambda _step: None) -> None:
        self.store = store
        self.folder = folder
        self._step = on_step
        self._busy = threading.Lock()
        self.room = ReadingRoom()

    # Look ---------------------------------------------------------------------------------------------------------

    def parts(self, connection: Connection | None = None) -> list[Part]:
        """Every part, the oldest first."""
        if connection is None:
            with self.store.reader() as own:
                return self.parts(own)
        rows = connection.execute(select(table_of(ArchiveRow)).order_by(ArchiveRow.number)).all()
        return [_part(row) for row in rows]

    def verify(self) -> list[str]:
        """What is wrong with the files, in words; nothing = every file is there and as it was written."""
        faults, good = [], []
        for part in self.parts():
            for table, (path, size, digest) in part.files.items():
                if not path.is_file():
                    faults.append(f"part {part.number}: {path} is not there")
                elif path.stat().st_size != size or parquet.sha256(path) != digest:
                    faults.append(f"part {part.number}: {path} is not as it was written")
                else:
                    good.append((part, table, path))
        found = parquet.run_all([parquet.Keys(str(path), _KEYS[table]) for _, table, path in good])
        for (part, table, path), keys in zip(good, found, strict=True):
            if len(keys) != part.rows[table]:
                faults.append(f"part {part.number}: {path} has {len(keys)} rows, not {part.rows[table]}")
        return faults

    # Move out -----------------------------------------------------------------------------------------------------

    def compact(self, policy: ArchivePolicy, now: float, *, stop: Callable[[], bool] = lambda: False) -> int:
        """Move what has ended long ago into files; how many rows went. It may be interrupted anywhere and called again.

        Args:
            policy: what is long ago.
            now: UTC seconds.
            stop: asked between two steps; True = go on another time.

        Raises:
            StoreError: the database or the files cannot be written, or another control plane leads.
            ConflictError: it is going on already.
        """
        if not self._busy.acquire(blocking=False):
            raise ConflictError("the history is being archived already", hint="`gpusched journal list` shows how far")
        try:
            moved = sum(self._let_go(part, stop) for part in self.parts() if part.state == MOVING)
            for _ in range(PARTS):
                if stop():
                    break
                part = self._write(policy, now)
                if part is None:
                    break
                moved += self._let_go(part, stop)
            if moved:
                self._give_back(stop)
        finally:
            self._busy.release()
        return moved

    def _write(self, policy: ArchivePolicy, now: float) -> Part | None:
        """Steps 1 and 2 of one part; None = nothing is old enough."""
        self._step("read")
        with self.store.reader() as connection:
            rows, span = _old(connection, policy, now)
            number = (connection.scalar(select(func.max(ArchiveRow.number))) or 0) + 1
        if not rows:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreError(f"cannot make the archive folder {self.folder}: {error.strerror or error}") from error
        self._step("write")
        names = {table: f"part-{number:06}-{table}.parquet" for table in rows}
        written = parquet.run_all(
            [
                parquet.Write(
                    str(self.folder / names[table]),
                    [(column.name, _kind(column)) for column in table_of(MODELS[table]).columns],
                    found,
                )
                for table, found in rows.items()
            ]
        )
        files = {table: (names[table], *about) for table, about in zip(rows, written, strict=True)}
        self._step("declare")
        ids = [row[0] for row in rows.get("jobs", ())]
        values = {
            "number": number,
            "state": MOVING,
            "made": now,
            "folder": str(self.folder.absolute()),
            "first": span[0],
            "last": span[1],
            "first_job": min(ids, default=0),
            "last_job": max(ids, default=0),
            "rows": {table: len(found) for table, found in rows.items()},
            "files": files,
        }
        with self.store.writer() as connection:
            connection.execute(insert(table_of(ArchiveRow)).values(values))
        log.info("part %d of the history is in files: %s", number, values["rows"])
        return next(part for part in self.parts() if part.number == number)

    def _let_go(self, part: Part, stop: Callable[[], bool]) -> int:
        """Step 3: the tables let go of what the files have. How many rows."""
        gone = 0
        files = part.files
        if "jobs" in files:
            wanted = [(name, _KEYS[name]) for name in ("jobs", "events") if name in files]
            ids, *seqs = parquet.run_all([parquet.Keys(str(files[name][0]), key) for name, key in wanted])
            last = max(seqs[0], default=0) if seqs else 0
            for at in range(0, len(ids), CHUNK):
                if stop():
                    return gone
                gone += self._delete(_rows_of(ids[at : at + CHUNK], last))
        else:
            for table, model in (("events", EventRow), ("decisions", DecisionRow)):
                seqs = parquet.run(parquet.Keys(str(files[table][0]), "seq")) if table in files else []
                for at in range(0, len(seqs), 5 * CHUNK):
                    if stop():
                        return gone
                    gone += self._delete([(table_of(model), table_of(model).c.seq.in_(seqs[at : at + 5 * CHUNK]))])
        self._step("done")
        with self.store.writer() as connection:
            connection.execute(update(table_of(ArchiveRow)).where(ArchiveRow.number == part.number).values(state=MOVED))
        return gone

    def _delete(self, conditions: Sequence[tuple[Table, ColumnElement[bool]]]) -> int:
        self._step("delete")
        with self.store.writer() as connection:
            gone = sum(connection.execute(delete(table).where(condition)).rowcount for table, condition in conditions)
        time.sleep(PAUSE)
        return gone

    def _give_back(self, stop: Callable[[], bool]) -> None:
        """What SQLite's file needs no more goes back to the disk, in short steps; PostgreSQL does so itself."""
        if not self.store.database.sqlite:
            return
        with self.store.reader() as connection:
            shrinks = connection.execute(text("PRAGMA auto_vacuum")).scalar() == 2  # noqa: PLR2004 - incremental
        while shrinks and not stop():
            self._step("shrink")
            with self.store.writer() as connection:
                raw: Any = connection.connection.driver_connection
                raw.execute("PRAGMA incremental_vacuum(500)").fetchall()  # a page a row
                left = connection.execute(text("PRAGMA freelist_count")).scalar() or 0
            time.sleep(PAUSE)
            if left < 500:  # noqa: PLR2004 - as many as one step frees
                return

    # Put back -----------------------------------------------------------------------------------------------------

    def restore(self, number: int) -> int:
        """Put a part's rows back into the tables; how many. Its files stay, and count no more.

        Raises:
            NotFoundError: there is no such part.
            StoreError: its files cannot be read, or the database cannot be written.
        """
        part = next((part for part in self.parts() if part.number == number), None)
        if part is None:
            raise NotFoundError(f"there is no part {number}", hint="`gpusched journal list` lists them")
        with self._busy:
            self._mark(number, RESTORING)
            count = 0
            with self.room.holding(part.files_by_table()) as connection:
                for name, model in MODELS.items():
                    if name in part.files:
                        rows = connection.execute(select(*_raw(table_of(model)))).all()
                        count += self._put(model, [tuple(row) for row in rows])
            with self.store.writer() as connection:
                connection.execute(delete(table_of(ArchiveRow)).where(ArchiveRow.number == number))
        return count

    def _mark(self, number: int, state: str) -> None:
        with self.store.writer() as connection:
            connection.execute(update(table_of(ArchiveRow)).where(ArchiveRow.number == number).values(state=state))

    def _put(self, model: Any, rows: Sequence[tuple[Any, ...]]) -> int:  # noqa: ANN401 - one of MODELS
        bulk = insert_bulk(
            self.store.database.writer.dialect, model, [column.name for column in table_of(model).columns], change=()
        )
        for at in range(0, len(rows), 5 * CHUNK):
            self._step("put back")
            with self.store.writer() as connection:
                bulk.run(connection, rows[at : at + 5 * CHUNK])
            time.sleep(PAUSE)
        return len(rows)

    # Read ---------------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> int | None:
        """The number of an archived job by its number, ULID or name, or how one begins; None = there is none.

        Raises:
            NotFoundError: more than one job begins so.
        """
        parts = [part for part in self.parts() if "jobs" in part.files]
        if reference.isascii() and reference.isdigit() and len(reference) < 20:  # noqa: PLR2004 - digits of what a database takes
            number = int(reference)
            return number if self._parts_of(number, parts) else None
        if not parts or reference.startswith("@"):
            return None
        found = parquet.run(parquet.Find([str(part.files["jobs"][0]) for part in parts], reference))
        if not found:
            return None
        number, well = found[0]
        same = [one for one, how in found if how == well]
        if well >= 2 and len(same) > 1:  # noqa: PLR2004 - by how it begins only
            raise NotFoundError(
                f"{reference!r} can mean more than one archived job: {', '.join(map(str, same[:3]))}",
                hint="give its number",
            )
        return int(number)

    def _parts_of(self, job: int, parts: Sequence[Part]) -> list[Part]:
        near = [part for part in parts if part.first_job <= job <= part.last_job]
        ids = parquet.run_all([parquet.Keys(str(part.files["jobs"][0]), "id") for part in near])
        return [part for part, there in zip(near, ids, strict=True) if job in set(there)]

    @contextmanager
    def reading(self, job: int) -> Iterator[Connection]:
        """The rows of one archived job, for the functions of queries.py.

        Raises:
            NotFoundError: it is not archived.
            StoreError: its files are not here.
        """
        parts = self._parts_of(job, [part for part in self.parts() if "jobs" in part.files])
        if not parts:
            raise NotFoundError(f"there is no job {job}", hint="`gpusched ps -a` lists all jobs")
        with self.room.holding(parts[-1].files_by_table(), jobs=frozenset({job})) as connection:
            yield connection

    @contextmanager
    def reading_since(self, since: float, until: float | None = None) -> Iterator[list[Connection]]:
        """The tables, and beside them what the files have of jobs that ended since then: one moment of both.

        A job that is in both (a part is just being moved) is in the first alone.
        """
        with self.store.reader() as connection:
            parts = [
                part
                for part in self.parts(connection)
                if "jobs" in part.files and part.last >= since and (until is None or part.first <= until)
            ]
            if not parts:
                yield [connection]
                return
            ids = table_of(JobRow).c.id
            both: set[int] = set()
            for part in parts:
                if part.state != MOVED:
                    both |= set(connection.scalars(select(ids).where(ids.between(part.first_job, part.last_job))))
            files = [pair for part in parts for pair in part.files_by_table()]
            with self.room.holding(files, without=frozenset(both)) as room:
                yield [connection, room]


def _part(row: Any) -> Part:  # noqa: ANN401 - a row of archives
    folder = Path(row.folder)
    files = {table: (folder / name, size, digest) for table, (name, size, digest) in row.files.items()}
    return Part(
        row.number, row.state, row.made, row.first, row.last, row.first_job, row.last_job, dict(row.rows), files
    )


_KEYS = {"jobs": "id", "job_labels": "job", "attempts": "job", "events": "seq", "decisions": "seq"}


def _kind(column: Any) -> str:  # noqa: ANN401 - a column of ours
    if isinstance(column.type, Boolean):
        return "truth"
    if isinstance(column.type, Integer | BigInteger):
        return "int"
    return "float" if isinstance(column.type, Double) else "text"


def _raw(table: Table) -> list[ColumnElement[Any]]:
    """Columns as they lie in the table: JSON as its text."""
    return [
        cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column for column in table.columns
    ]


def _old(
    connection: Connection, policy: ArchivePolicy, now: float
) -> tuple[dict[str, list[tuple[Any, ...]]], tuple[float, float]]:
    """(rows by table, first and last time) of the next part: of jobs, else of the journal of the cluster."""
    cut = _cut(connection, policy, now)
    if cut is None:
        return {}, (0.0, 0.0)
    jobs, parents = table_of(JobRow), table_of(JobRow).alias("parents")
    last_job = connection.scalar(select(func.max(jobs.c.id))) or 0
    latest = connection.scalar(select(EventRow.job).order_by(EventRow.seq.desc()).limit(1)) or 0
    # A task goes when its array has ended long ago.
    whole = select(parents.c.id).where(parents.c.id == jobs.c.array_id, parents.c.ended < cut).exists()
    ids = list(
        connection.scalars(
            select(jobs.c.id)
            .where(
                jobs.c.ended < cut,
                jobs.c.active.is_(False),
                jobs.c.id.not_in([last_job, latest]),
                jobs.c.array_id.is_(None) | (jobs.c.array_id == jobs.c.id) | whole,
            )
            .order_by(jobs.c.ended, jobs.c.id)
            .limit(PART)
        )
    )
    if ids:
        found = {name: _of_jobs(connection, name, ids) for name in MODELS if name != "decisions"}
        columns = list(jobs.c.keys())
        first = min(row[columns.index("submitted")] for row in found["jobs"])
        last = max(row[columns.index("ended")] for row in found["jobs"])
        return {name: rows for name, rows in found.items() if rows}, (first, last)
    if policy.after is None:
        return {}, (0.0, 0.0)
    lines: dict[str, list[tuple[Any, ...]]] = {}
    for name, model, also in (("events", EventRow, [EventRow.job == 0]), ("decisions", DecisionRow, [])):
        table = table_of(model)
        newest = connection.scalar(select(func.max(table.c.seq))) or 0
        query = select(*_raw(table)).where(table.c.time < now - policy.after, table.c.seq < newest, *also)
        rows = [tuple(row) for row in connection.execute(query.order_by(table.c.seq).limit(LINES))]
        if rows:
            lines[name] = rows
    times = [row[1] for rows in lines.values() for row in rows]
    return lines, (min(times, default=0.0), max(times, default=0.0))


def _cut(connection: Connection, policy: ArchivePolicy, now: float) -> float | None:
    """What ended before this time goes; None = nothing does."""
    cut = None if policy.after is None else now - policy.after
    if policy.keep is not None:
        ended = table_of(JobRow).c.ended
        beyond = connection.scalar(
            select(ended).where(ended.is_not(None)).order_by(ended.desc()).offset(policy.keep).limit(1)
        )
        if beyond is not None:
            cut = max(beyond + 1e-6, cut or 0.0)
    return cut


def _of_jobs(connection: Connection, name: str, ids: Sequence[int]) -> list[tuple[Any, ...]]:
    table = table_of(MODELS[name])
    key = table.c.id if name == "jobs" else table.c.job
    order = {"events": [table.c.get("seq")], "jobs": [table.c.get("id")]}.get(name, list(table.primary_key.columns))
    rows: list[tuple[Any, ...]] = []
    for at in range(0, len(ids), 1000):
        query = select(*_raw(table)).where(key.in_(ids[at : at + 1000])).order_by(*order)
        rows += [tuple(row) for row in connection.execute(query)]
    return rows


def _rows_of(ids: Sequence[int], last: int) -> list[tuple[Table, ColumnElement[bool]]]:
    """All that the tables have of these jobs."""
    events, jobs = table_of(EventRow), table_of(JobRow)
    others = [table_of(model) for model in (JobLabelRow, AttemptRow, JobSecretRow)]
    return [
        (events, events.c.job.in_(ids) & (events.c.seq <= last)),
        *[(table, table.c.job.in_(ids)) for table in others],
        (jobs, jobs.c.id.in_(ids)),
    ]
