"""A folder of results in Parquet: written as runs finish, whole or not at all, and found again by the next sweep.

    FOLDER/runs.parquet       one row a run, of every sweep that was ever kept here
    FOLDER/parts/KEY.parquet  rows of a sweep that is going on, or was cut off: one file a run
    FOLDER/jobs/KEY.parquet   one row a job, with --per-job
    FOLDER/bounds/KEY.json    lower bounds of a trace on a cluster, with --bounds; KEY.certificate.json is their proof

Every file is written beside its place and moved there, so a crash leaves no half of one. When a sweep ends, and when
the next one begins, the parts are merged into `runs.parquet`; a run that is in both is the same run.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...jobs.errors import GpuschedError
from .floors import Floor
from .row import COUNTS, SCHEMA_VERSION, TEXTS, Columns, Row

_VERSION = b"gpusched.schema_version"


class Results:
    """Such a folder, locked for this process until it is closed.

    Args:
        folder: made if it is not there.

    Raises:
        GpuschedError: it cannot be written, holds something else, or another sweep writes to it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._parts = self.folder / "parts"
        self._jobs = self.folder / "jobs"
        self._whole = self.folder / "runs.parquet"
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            self._lock: IO[bytes] = (self.folder / ".lock").open("ab")
        except OSError as error:
            raise GpuschedError(
                f"{folder}: cannot be written: {error.strerror or error}", hint="--results takes a folder to write to"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise GpuschedError(
                f"{folder}: another sweep writes there", hint="wait for it, or name another folder"
            ) from error
        for path in self.folder.glob("*/.*.parquet.*"):
            path.unlink(missing_ok=True)  # half of a file that a killed sweep was writing; nobody else writes here now
        try:
            self._table = self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let another sweep write here."""
        self._lock.close()

    def rows(self, keys: Iterable[str]) -> dict[str, Row]:
        """The runs under these keys that are there, by key."""
        if self._table is None:
            return {}
        wanted = set(keys)
        places = [i for i, key in enumerate(self._table.column("key").to_pylist()) if key in wanted]
        return {row["key"]: row for row in self._table.take(pa.array(places, pa.int64())).to_pylist()}

    def has_jobs(self, key: str) -> bool:
        """Whether the jobs of a run are there."""
        return (self._jobs / f"{key}.parquet").exists()

    def keep(self, row: Row, jobs: Columns | None) -> None:
        """Write a run, its jobs first: a run that is there is there with its jobs.

        Raises:
            GpuschedError: the disk is full, or the like.
        """
        key = row["key"]
        if jobs is not None:
            self._write(self._jobs / f"{key}.parquet", _jobs_table(key, jobs))
        self._write(self._parts / f"{key}.parquet", _runs_table([row]))

    def floor(self, key: str) -> Floor | None:
        """Lower bounds that are there."""
        try:
            found = json.loads((self.folder / "bounds" / f"{key}.json").read_text("utf-8"))
        except FileNotFoundError:
            return None
        return Floor(found["jobs"], found["jct"], found["makespan"])

    def keep_floor(self, key: str, floor: Floor) -> None:
        """Write lower bounds, their proof first."""
        folder = self.folder / "bounds"
        if floor.certificate:
            self._place(folder / f"{key}.certificate.json", lambda path: path.write_text(floor.certificate, "utf-8"))
        text = json.dumps({"jobs": floor.jobs, "jct": floor.jct, "makespan": floor.makespan}) + "\n"
        self._place(folder / f"{key}.json", lambda path: path.write_text(text, "utf-8"))

    def merge(self) -> None:
        """Put the parts into `runs.parquet`."""
        self._table = self._read()

    def _read(self) -> pa.Table | None:
        """Everything that is there; the parts are merged on the way."""
        parts = sorted(self._parts.glob("*.parquet"))
        tables = [self._checked(path) for path in ([self._whole] if self._whole.exists() else []) + parts]
        if not tables:
            return None
        if not parts:
            return tables[0]
        table = pa.concat_tables(tables, promote_options="permissive").replace_schema_metadata(_metadata())
        places = list({key: i for i, key in enumerate(table.column("key").to_pylist())}.values())
        table = table.take(pa.array(sorted(places), pa.int64()))
        self._write(self._whole, table)
        for path in parts:
            path.unlink()
        return table

    def _checked(self, path: Path) -> pa.Table:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise GpuschedError(
                f"{path}: cannot be read: {str(error).splitlines()[0]}", hint="move it away; its runs are made again"
            ) from error
        version = (table.schema.metadata or {}).get(_VERSION, b"").decode()
        if version != str(SCHEMA_VERSION) or "key" not in table.column_names:
            said = (
                f"has the schema version {version}, this program writes {SCHEMA_VERSION}" if version else "is not ours"
            )
            raise GpuschedError(f"{path}: {said}", hint="name another folder for --results")
        return table

    def _write(self, path: Path, table: pa.Table) -> None:
        self._place(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))

    def _place(self, path: Path, write: Callable[[Path], object]) -> None:
        """Write a file beside its place, and move it there."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)
            write(temporary)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise GpuschedError(
                f"{path}: cannot be written: {error.strerror or error}",
                hint="the runs so far are kept; the same command goes on from there",
            ) from error


def _runs_table(rows: Sequence[Row]) -> pa.Table:
    """Rows of one form as a table. A figure that has no meaning in a run is null there."""
    arrays: dict[str, pa.Array] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        arrays[name] = pa.array(values, _type(name, values[0]))
    return pa.table(arrays).replace_schema_metadata(_metadata())


def _type(name: str, value: Any) -> pa.DataType | None:  # noqa: ANN401 - whatever a summary holds
    """The type of a column: always the same for the same name, whatever the first value is."""
    if name in TEXTS:
        return pa.string()
    if name in COUNTS:
        return pa.int64()
    if isinstance(value, list | tuple):
        return pa.list_(pa.string())
    if isinstance(value, str):
        return pa.string()
    return pa.bool_() if isinstance(value, bool) else pa.float64()


def _jobs_table(key: str, jobs: Columns) -> pa.Table:
    types = {"name": pa.string(), "user": pa.string(), "queue": pa.string(), "state": pa.string(),
             "job": pa.int64(), "attempts": pa.int64()}  # fmt: skip
    count = len(jobs["job"])
    arrays = {"key": pa.array([key] * count, pa.string())}
    arrays |= {name: pa.array(values, types.get(name, pa.float64())) for name, values in jobs.items()}
    return pa.table(arrays).replace_schema_metadata(_metadata())


def _metadata() -> dict[bytes, bytes]:
    return {_VERSION: str(SCHEMA_VERSION).encode()}
