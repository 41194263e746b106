"""Parquet files, written and read in a process of their own: Arrow takes more memory than all else here together.

    python -m gpusched.scheduler.store.parquet

It takes a pickled list of `Task`s of its parent's on standard input and answers in JSON on standard output.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...jobs.errors import StoreError

Column = tuple[str, str]
"""Name and type: int, float, text or truth."""


@dataclass(frozen=True, slots=True)
class Write:
    """Write one file: whole or not at all, and on disk when it is answered. Answer: [bytes, SHA-256]."""

    path: str
    columns: Sequence[Column]
    rows: Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Read:
    """Add the rows of files to the tables of a SQLite file. `files`: (path, table). Answer: rows read."""

    database: str
    files: Sequence[tuple[str, str]]
    jobs: frozenset[int] | None = None  # these only; None = all


@dataclass(frozen=True, slots=True)
class Find:
    """The numbers of jobs whose ULID or name is, or begins, so, the best first. Answer: [[number, how well], ...]."""

    paths: Sequence[str]
    reference: str


@dataclass(frozen=True, slots=True)
class Keys:
    """One column of whole numbers of one file. Answer: its values."""

    path: str
    column: str


Task = Write | Read | Find | Keys


def run(task: Task) -> Any:  # noqa: ANN401 - JSON
    """Have it done in a process of its own. Raises as `run_all` does."""
    return run_all([task])[0]


def run_all(tasks: Sequence[Task], within: float = 600.0) -> list[Any]:
    """Have all done in one process of its own, in this order; their answers.

    Raises:
        StoreError: a file cannot be written or read.
    """
    if not tasks:
        return []
    paths = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", __name__],
            input=pickle.dumps(list(tasks)),
            capture_output=True,
            check=False,
            timeout=within,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"Parquet files cannot be worked on: {error}") from error
    if done.returncode == 0:
        answers: list[Any] = json.loads(done.stdout)
        return answers
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    raise StoreError(f"Parquet files cannot be worked on: {said[-1] if said else f'exit {done.returncode}'}")


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# In the process of its own -------------------------------------------------------------------------------------------


def _write(task: Write) -> list[Any]:
    import pyarrow as pa  # noqa: PLC0415 - see the module
    import pyarrow.parquet as pq  # noqa: PLC0415 - the same

    types = {"int": pa.int64(), "float": pa.float64(), "text": pa.string(), "truth": pa.bool_()}
    values = list(zip(*task.rows, strict=True)) or [()] * len(task.columns)
    schema = pa.schema([(name, types[kind]) for name, kind in task.columns])
    arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
    path = Path(task.path)
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    digest = sha256(new)
    new.replace(path)
    sync_folder(path.parent)
    return [path.stat().st_size, digest]


def _read(task: Read) -> int:
    import pyarrow.parquet as pq  # noqa: PLC0415 - see the module

    count = 0
    with contextlib.closing(sqlite3.connect(task.database)) as database:
        database.execute("PRAGMA synchronous=OFF")  # it is a copy
        for path, table in task.files:
            key = "id" if table == "jobs" else "job"
            known = {row[1] for row in database.execute(f'PRAGMA table_info("{table}")')}
            with pq.ParquetFile(path) as file:
                names = [name for name in file.schema_arrow.names if name in known]
                columns = ", ".join(f'"{name}"' for name in names)
                marks = ", ".join("?" * len(names))
                insert = f'INSERT OR REPLACE INTO "{table}" ({columns}) VALUES ({marks})'  # noqa: S608 - our own names
                for batch in file.iter_batches(10_000, columns=names):
                    rows = zip(*[column.to_pylist() for column in batch.columns], strict=True)
                    if task.jobs is not None and key in names:
                        at = names.index(key)
                        rows = (row for row in rows if row[at] in task.jobs)  # type: ignore[assignment] # both iterate over rows
                    count += database.executemany(insert, rows).rowcount
        database.commit()
    return count


def _find(task: Find) -> list[list[int]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - see the module

    found: list[list[int]] = []
    upper = task.reference.upper()
    for path in task.paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(50_000, columns=["id", "uid", "name"]):
                for number, uid, name in zip(*[column.to_pylist() for column in batch.columns], strict=True):
                    well = (
                        0 if uid == upper
                        else 1 if name == task.reference
                        else 2 if uid.startswith(upper)
                        else 3 if name.startswith(task.reference)
                        else 4
                    )  # fmt: skip
                    if well < 4:  # noqa: PLR2004 - not at all
                        found.append([number, well])
    found.sort(key=lambda one: (one[1], -one[0]))
    return found[:10]


def _keys(task: Keys) -> list[int]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - see the module

    values: list[int] = pq.read_table(task.path, columns=[task.column]).column(0).to_pylist()
    return values


def main() -> int:
    """Do the tasks on standard input."""
    tasks = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - our own parent's
    # Run as a program, this module's classes have another name than those that the parent pickled.
    work: dict[str, Callable[[Any], Any]] = {"Write": _write, "Read": _read, "Find": _find, "Keys": _keys}
    try:
        answer = [work[type(task).__name__](task) for task in tasks]
    except Exception as error:  # noqa: BLE001 - told to the parent in one line
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        return 1
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
