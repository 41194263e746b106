"""Workdirs as they were at submit: packed the same way every time, named by content, kept while a job needs them."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import stat
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from ..jobs.errors import GpuschedError, StoreError
from ..jobs.units import format_size

if TYPE_CHECKING:
    from .store.snapshots import SharedSnapshots

IGNORE_FILE = ".gpuschedignore"
ALWAYS_IGNORED = (".git/", "__pycache__/", ".venv/", ".mypy_cache/", ".ruff_cache/", ".pytest_cache/", "*.pyc")
LIMIT = 512 << 20
"""Bytes of files that a snapshot may hold: code goes into a workdir, data lies on shared storage."""
MOST_FILES = 100_000

ANNOTATION = "gpusched/snapshot"
"""The annotation of a job that names its snapshot by its SHA-256."""


class SnapshotError(GpuschedError):
    """A snapshot that arrives is not what it is called."""

    code = "invalid_snapshot"


class WorkdirError(GpuschedError):
    """The folder that a job names cannot be copied: the file of the job, or the folder, has to be mended."""

    code = "invalid_workdir"
    exit_code = 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A packed workdir: its file, the SHA-256 of that, its size in bytes, and how many files are in it."""

    path: Path
    sha256: str
    size: int
    files: int


def pack(workdir: str | Path, into: Path, *, limit: int = LIMIT) -> Snapshot:
    """Pack a workdir into a file in the directory `into`; equal contents give equal bytes.

    Left out: what `.gpuschedignore` in the workdir names (the patterns of .gitignore, `!` included), `.git`, caches and
    virtual environments. Symbolic links that stay inside are kept as links; one that leads out, or nowhere, is an
    error, because on the node it would lead elsewhere. Owners and times are not kept; modes are.

    Raises:
        WorkdirError: it is not there, is too large, or a link leads out of it; the message names the file.
        GpuschedError: it cannot be read, or changes while it is read.
    """
    root = Path(workdir).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise WorkdirError(f"workdir {root} {what}", hint="nothing was queued; check `workdir`")
    root = root.resolve()
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        entries = _entries(root, limit)
        with tempfile.NamedTemporaryFile(dir=into, prefix=".packing-", suffix=".tar.gz", delete=False) as file:
            path = Path(file.name)
            try:
                _write(root, entries, cast("BinaryIO", file))
            except BaseException:
                path.unlink()
                raise
    except OSError as error:
        where = error.filename or root
        raise GpuschedError(
            f"workdir {root}: cannot read {where}: {error.strerror or error}",
            hint=f"nothing was queued; mend it, or leave it out with {IGNORE_FILE}",
        ) from error
    digest = hashlib.sha256()
    with path.open("rb") as packed:
        while block := packed.read(1 << 20):
            digest.update(block)
    final = into / f"{digest.hexdigest()}.tar.gz"
    path.replace(final)
    return Snapshot(final, digest.hexdigest(), final.stat().st_size, len(entries))


def _entries(root: Path, limit: int) -> list[str]:
    """What goes in, as sorted paths below the root; folders end in a slash."""
    ignored = Ignore.read(root)
    found: list[str] = []
    total = 0
    for path, entry in _walk(root, ignored):
        if len(found) == MOST_FILES:
            raise WorkdirError(
                f"workdir {root} holds more than {MOST_FILES:,} files", hint=f"leave data out with {IGNORE_FILE}"
            )
        if entry.is_symlink():
            _check_link(root, path)
        elif entry.is_file():
            total += entry.stat().st_size
            if total > limit:
                raise WorkdirError(
                    f"workdir {root} holds more than {format_size(limit)}; the limit was passed at {path}",
                    hint=f"keep data on shared storage, and leave it out with {IGNORE_FILE}",
                )
        found.append(path)
    return sorted(found)


def _walk(root: Path, ignored: Ignore) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path below the root, entry) of all that is not ignored: folders, files and links; sockets and pipes are not."""
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                path = f"{folder}{entry.name}"
                is_folder = entry.is_dir(follow_symlinks=False)
                if ignored.matches(path, folder=is_folder):
                    continue
                if is_folder:
                    folders.append(f"{path}/")
                    yield f"{path}/", entry
                elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                    yield path, entry


def _check_link(root: Path, path: str) -> None:
    link = root / path
    target = Path(os.readlink(link))  # noqa: PTH115 - text is wanted, whatever is in it
    # Unlike Path.resolve, this takes links that lead in a circle.
    inside = not target.is_absolute() and Path(os.path.realpath(link)).is_relative_to(root)
    if not inside or not link.exists():
        raise WorkdirError(
            f"workdir {root}: the link {path} leads to {target}, which is {'outside' if not inside else 'not there'}",
            hint=f"nothing was queued; copy what it leads to, or leave the link out with {IGNORE_FILE}",
        )


def _write(root: Path, entries: list[str], file: BinaryIO) -> None:
    # The time in gzip's header would make equal contents differ.
    with (
        gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="", compresslevel=6) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in entries:
            _add(tar, root, path)


def _add(tar: tarfile.TarFile, root: Path, path: str) -> None:
    source = root / path
    info = tarfile.TarInfo(path.rstrip("/"))
    found = source.lstat()
    if stat.S_ISLNK(found.st_mode):
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, os.readlink(source), 0o777  # noqa: PTH115 - as above
        tar.addfile(info)
    elif stat.S_ISDIR(found.st_mode):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    else:
        info.mode = 0o755 if found.st_mode & 0o111 else 0o644
        with source.open("rb") as content:
            info.size = os.fstat(content.fileno()).st_size
            try:
                tar.addfile(info, content)
            except OSError as error:
                if error.errno is not None:
                    raise
                raise GpuschedError(f"workdir {root}: {path} changed while it was read", hint="submit again") from error


class Ignore:
    """Patterns as in .gitignore; the last one that fits decides.

    `*` stops at a slash, `**` does not; a slash inside or in front ties a pattern to the root, one at the end makes it
    one for folders only; `!` takes a file back in.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules: list[tuple[tuple[str, ...], bool, bool]] = []  # (parts, folders only, ignored)
        for line in lines:
            pattern = line.rstrip("\r\n").rstrip()
            if not pattern or pattern.startswith("#"):
                continue
            keep = pattern.startswith("!")
            pattern = pattern.removeprefix("!").removeprefix("\\")
            folders = pattern.endswith("/")
            pattern = pattern.rstrip("/")
            tied = "/" in pattern
            parts = tuple(pattern.removeprefix("/").split("/"))
            self._rules.append((parts if tied else ("**", *parts), folders, not keep))

    @classmethod
    def read(cls, root: Path) -> Ignore:
        """Those of the workdir after our own."""
        file = root / IGNORE_FILE
        lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
        return cls([*ALWAYS_IGNORED, *lines])

    def matches(self, path: str, *, folder: bool) -> bool:
        """Whether a path below the root is left out."""
        parts = path.split("/")
        for pattern, folders, ignored in reversed(self._rules):
            if (folder or not folders) and _fits(parts, pattern):
                return ignored
        return False


def _fits(parts: list[str], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern == ("**",):
        return bool(parts)
    if pattern[0] == "**":
        return any(_fits(parts[skip:], pattern[1:]) for skip in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


class SnapshotStore:
    """The snapshots that a control plane keeps, one file each, under their SHA-256.

    Args:
        folder: where to. It is made with the first snapshot.
        shared: the database, if control planes on other machines may have to go on with what this one was given.
    """

    def __init__(self, folder: Path, shared: SharedSnapshots | None = None) -> None:
        self._folder = folder
        self._shared = shared
        self._lock = threading.Lock()

    def path(self, sha256: str) -> Path:
        """Where a snapshot of this name lies, or would.

        Raises:
            SnapshotError: it is no SHA-256.
        """
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):  # noqa: PLR2004 - hexadecimal digits of 256 bits
            raise SnapshotError(f"{sha256[:80]!r} is no SHA-256")
        return self._folder / f"{sha256}.tar.gz"

    def has(self, sha256: str) -> bool:
        """Whether it is there; if so it is kept for another while."""
        path = self.path(sha256)
        if self._shared is not None and not self._shared.touch(sha256, time.time()):
            return False
        try:
            os.utime(path)
        except FileNotFoundError:
            return self._fetch(sha256)
        return True

    def follow(self) -> int:
        """Have on disk what other control planes put into the database, for a start that must not wait. How many came.

        Raises:
            StoreError: the database does not answer.
        """
        if self._shared is None:
            return 0
        here = {file.name.removesuffix(".tar.gz") for file in self._folder.glob("*.tar.gz")}
        return sum(self._fetch(name) for name in self._shared.names() - here)

    def _fetch(self, sha256: str) -> bool:
        if self._shared is None:
            return False
        with Incoming(self._made(sha256), sha256) as incoming:
            there = False
            for data in self._shared.get(sha256):
                there = True
                incoming.write(data)
            if there:
                incoming.commit()
        return there

    def _made(self, sha256: str) -> Path:
        final = self.path(sha256)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return final

    def receive(self, sha256: str) -> Incoming:
        """Take in a snapshot piece by piece."""
        return Incoming(self._made(sha256), sha256, self._shared)

    def collect(self, needed: Callable[[], set[str]], now: float, *, grace: float = 3600.0) -> int:
        """Delete snapshots that no job needs, unless they were touched within `grace` seconds. How many.

        Args:
            needed: SHA-256 of the snapshots of unfinished jobs; asked after the files were listed.
            now: UTC seconds.
            grace: seconds between an upload and its submission that are still safe.
        """
        if not self._folder.is_dir() and self._shared is None:
            return 0
        with self._lock:
            old = [file for file in self._folder.glob("*") if file.stat().st_mtime < now - grace]
            keep = needed()
            gone = [file for file in old if file.name.removesuffix(".tar.gz") not in keep]
            for file in gone:
                file.unlink(missing_ok=True)
            if self._shared is not None:
                self._shared.collect(keep, now - grace)
        return len(gone)


class Incoming:
    """A snapshot on its way in: `write` its bytes, then `commit`; as a context manager it leaves nothing half-done."""

    def __init__(self, final: Path, sha256: str, shared: SharedSnapshots | None = None) -> None:
        self._final, self._sha256, self._shared = final, sha256, shared
        self._digest = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=final.parent, prefix=".incoming-")
        self._file = os.fdopen(handle, "wb")
        self._path = Path(name)

    def write(self, data: bytes) -> None:
        """The next bytes.

        Raises:
            StoreError: they cannot be written.
        """
        self._digest.update(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise self._unwritable(error) from error

    def commit(self) -> None:
        """All is here.

        Raises:
            SnapshotError: it is not what its name says.
            StoreError: it cannot be written.
        """
        if self._digest.hexdigest() != self._sha256:
            raise SnapshotError(f"the snapshot arrived damaged: its SHA-256 is {self._digest.hexdigest()}")
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if self._shared is not None:
                self._shared.put(self._sha256, self._path, time.time())
            self._path.replace(self._final)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            f"cannot keep the snapshot in {self._final.parent}: {error.strerror or error}", hint="is the disk full?"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with contextlib.suppress(OSError):  # what could not be written goes with the file
            self._file.close()
        self._path.unlink(missing_ok=True)
