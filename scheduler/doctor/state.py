"""What the control plane keeps: its folder and its database."""

from __future__ import annotations

import os
import stat
from importlib import resources
from pathlib import Path

from ...jobs.errors import StoreError
from .check import Check, fail, ok, warn
from .probe import Probe

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs"}
)
NETWORK_FUSE = ("sshfs", "glusterfs", "s3fs", "gcsfuse", "ceph", "juicefs", "goofys", "rclone", "mountpoint-s3")
FLEETING = frozenset({"tmpfs", "ramfs"})


def folder(probe: Probe) -> Check:
    """Whether we may write there and nobody else may read: the database holds the jobs' secrets."""
    path = probe.state_dir
    if not path.exists():
        above = probe.existing(path)
        if os.access(above, os.W_OK | os.X_OK):
            return ok("state-dir", f"{path} is not there yet and will be made")
        return fail(
            "state-dir",
            f"{path} is not there, and {above} is not ours to write to",
            why="the control plane cannot start",
            fix=f"make it: sudo install -d -m 700 -o $USER {path}, or choose another one",
        )
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        return fail("state-dir", f"{path} is a file", why="the control plane cannot start", fix=f"move {path} away")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return fail(
            "state-dir",
            f"{path} belongs to uid {found.st_uid} and is not ours to write to (mode {mode:03o})",
            why="the control plane cannot start",
            fix=f"sudo chown -R $USER {path}",
        )
    if mode & 0o077:
        return warn(
            "state-dir",
            f"{path} is open to other users (mode {mode:03o})",
            why="it holds the secrets of jobs, and who can write there can put jobs into the queue as anybody",
            fix=f"chmod 700 {path}",
        )
    return ok("state-dir", f"{path}, mode {mode:03o}")


def file_system(probe: Probe) -> Check:
    """The kind of file system below the state folder: SQLite's write-ahead log needs a local one."""
    path = probe.existing(probe.state_dir).resolve()
    kind = _kind(probe.mounts, path)
    found = f"{path} is on {kind or 'a file system that is not listed'}"
    if kind in NETWORK or (kind.startswith("fuse") and any(word in kind for word in NETWORK_FUSE)):
        if _server(probe.database_url):
            return ok("state-file-system", f"{found}; the database is a server's")
        return fail(
            "state-file-system",
            found,
            why="SQLite's write-ahead log needs shared memory and locks that network file systems lack: data is lost",
            fix="put the state folder on a local disk, or set GPUSCHED_DATABASE_URL to a PostgreSQL",
        )
    if kind in FLEETING:
        return warn(
            "state-file-system",
            found,
            why="it is memory: the queue is gone after a reboot",
            fix="put the state folder on a disk",
        )
    return ok("state-file-system", found)


def _server(url: str) -> bool:
    return url.startswith("postgres")


def _kind(mounts: Path, path: Path) -> str:
    """Type of the file system that `path` lies on, from mountinfo (proc_pid_mountinfo(5)); empty = not found."""
    best, kind = -1, ""
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")  # a space is written as \040
        # Of mounts on one point the last one is on top.
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), right.split()[0]
    return kind


def database(probe: Probe) -> Check:
    """Whether the database answers, is ours, and of a release that this program understands. Changes nothing."""
    from sqlalchemy import create_engine, exc, inspect, text  # noqa: PLC0415 - slow to import

    from ..store.database import database_url  # noqa: PLC0415 - the same
    from ..store.errors import called, sqlite_path, store_error  # noqa: PLC0415 - the same

    try:
        url = database_url(probe.database_url or str(probe.state_dir / "gpusched.db"))
    except StoreError as error:
        return _no_database(error)
    path = sqlite_path(url)
    if path is not None and not path.exists():
        return ok("database", f"{path} is not there yet and will be made")
    if path is not None:
        # A reader that may not write, so that looking at a foreign file does not change it.
        engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true", connect_args={"timeout": 2.0})
    else:
        engine = create_engine(url, connect_args={"connect_timeout": 3})
    try:
        with engine.connect() as connection:
            tables = set(inspect(connection).get_table_names())
            stamped = "alembic_version" in tables
            revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if stamped else None
    except exc.DBAPIError as error:
        return _no_database(store_error(url, error, 2.0))
    finally:
        engine.dispose()
    return _schema(called(url), tables, revision)


def _schema(name: str, tables: set[str], revision: str | None) -> Check:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - slow to import

    with resources.as_file(resources.files(__package__.rpartition(".")[0]) / "migrations") as folder:
        steps = ScriptDirectory(str(folder))
        head = steps.get_current_head()
        known = {step.revision for step in steps.walk_revisions()}
    if not tables:
        return ok("database", f"{name} is empty; its tables will be made")
    if revision is None:
        return fail(
            "database",
            f"{name} holds other tables ({', '.join(sorted(tables)[:3])}), and is not gpusched's",
            why="the control plane refuses to write into somebody else's database",
            fix="set GPUSCHED_DATABASE_URL to a database of its own",
        )
    if revision not in known:
        return fail(
            "database",
            f"{name} has schema {revision}; this program knows schemas up to {head}",
            why="a newer gpusched wrote it, and this one would not understand its jobs",
            fix="upgrade gpusched here, or restore the backup made before the upgrade",
        )
    older = "" if revision == head else f"; it will be brought to {head} at the next start"
    return ok("database", f"{name}, schema {revision}{older}")


def _no_database(error: StoreError) -> Check:
    return fail(
        "database",
        error.message,
        why="without it nothing can be submitted, and no job starts",
        fix=error.hint or "check GPUSCHED_DATABASE_URL and that the database runs",
    )
