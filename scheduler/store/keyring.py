"""The keys that seal jobs' secrets, and what sealing is: AES-256-GCM, bound to the job and the name.

A key file holds one key a line, 32 bytes in URL-safe base64, lines that begin with # left aside. The first key seals;
the others open what they sealed before, so that keys can be changed while jobs wait.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from ...jobs.errors import GpuschedError, StoreError

KEY_FILE = "secret.key"
"""Name of the file that a control plane makes for itself, in its state directory."""
KEY_VARIABLE = "GPUSCHED_SECRET_KEY"
FILE_VARIABLE = "GPUSCHED_SECRET_KEY_FILE"

_BYTES = 32
_NONCE = 12
_COMMENT = "# Keys of gpusched that seal the secrets of jobs. The first one seals; the others open what they sealed.\n"


class KeyFileError(StoreError):
    """A key cannot be read, or is no key."""


class SealError(GpuschedError):
    """A sealed secret cannot be opened: its key is not here, or it was sealed for another job or changed since."""

    code = "sealed"


def new_key() -> str:
    """A key, as a key file has it."""
    return base64.urlsafe_b64encode(os.urandom(_BYTES)).decode()


def key_id(key: bytes) -> str:
    """What a key is called wherever it is not shown: 16 hexadecimal digits of its hash."""
    return hashlib.sha256(b"gpusched key id\0" + key).hexdigest()[:16]


class Keyring:
    """The keys of one control plane. From any thread.

    Args:
        file: the key file; None = the keys are given and cannot be changed here.
        given: keys as text, separated by white space or commas; the first one seals.
        make: whether a file that is not there is made with the first secret.
    """

    def __init__(self, file: Path | None, given: str = "", *, make: bool = False) -> None:
        self.file = file
        self._make = make
        self._lock = threading.Lock()
        self._seen = (0, 0)
        self._keys: dict[str, bytes] | None = None if file else _parse(given.replace(",", "\n"), KEY_VARIABLE)

    @classmethod
    def find(cls, state: Path, environ: Mapping[str, str]) -> Self:
        """Those that the environment names, by value or by file; else the state directory's own.

        Raises:
            KeyFileError: they are there and are no keys, or others may read their file.
        """
        if given := environ.get(KEY_VARIABLE, "").strip():
            return cls(None, given)
        named = environ.get(FILE_VARIABLE, "").strip()
        found = cls(Path(named).expanduser()) if named else cls(state / KEY_FILE, make=True)
        found.known()
        return found

    def known(self) -> tuple[str, ...]:
        """Ids of the keys, the one that seals first. Empty = none was needed yet.

        Raises:
            KeyFileError: the file cannot be read, holds something else, or others may read it.
        """
        with self._lock:
            return tuple(self._load())

    def ready(self) -> None:
        """Have a key to seal with, made if this is the first secret.

        Raises:
            KeyFileError: there is none, and none can be made.
        """
        with self._lock:
            _ = self._load() or self._first()

    def seal(self, job: str, name: str, value: str) -> tuple[str, bytes]:
        """A value that only these keys open, and only as the secret of this job and name.

        Args:
            job: the job's ULID.
            name: of the variable.
            value: the secret.

        Returns:
            (id of the key, what is to be stored).

        Raises:
            KeyFileError: there is no key, and none can be made.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - most control planes start without a secret

        with self._lock:
            keys = self._load() or self._first()
        chosen, key = next(iter(keys.items()))
        nonce = os.urandom(_NONCE)
        return chosen, nonce + AESGCM(key).encrypt(
            nonce, value.encode("utf-8", "surrogatepass"), _bound(chosen, job, name)
        )

    def open(self, chosen: str, job: str, name: str, sealed: bytes) -> str:
        """The value.

        Raises:
            SealError: the key is not here, or this was not sealed with it for this job and name.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

        with self._lock:
            key = self._load().get(chosen)
        if key is None:
            raise SealError(f"secret {name} is sealed with the key {chosen}, which is not in {self.name}")
        try:
            return (
                AESGCM(key)
                .decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(chosen, job, name))
                .decode("utf-8", "surrogatepass")
            )
        except (InvalidTag, ValueError):
            raise SealError(f"secret {name} was changed in the database, or is another job's") from None

    @property
    def name(self) -> str:
        """Where the keys are, in words."""
        return str(self.file) if self.file else KEY_VARIABLE

    def rotate(self) -> str:
        """Put a new key before the others, in the file too. Its id.

        Raises:
            KeyFileError: the keys were given by value, or the file cannot be written.
        """
        if self.file is None:
            raise KeyFileError(
                f"the keys are those of {KEY_VARIABLE}, which only who starts the control plane can change",
                hint="set it to `NEW,OLD` and restart; `gpusched secrets new-key` makes one",
            )
        with self._lock:
            added = new_key()
            return next(iter(self._write([added, *map(_text, self._load().values())])))

    def forget(self, ids: set[str]) -> None:
        """Take these keys out of the file; what they sealed can never be opened again.

        Raises:
            KeyFileError: the file cannot be written.
        """
        with self._lock:
            kept = [_text(key) for name, key in self._load().items() if name not in ids]
            self._write(kept)

    # Call with the lock held ------------------------------------------------------------------------------------------

    def _load(self) -> dict[str, bytes]:
        """The keys as the file has them now: another control plane may have changed it. If it went away, as it was."""
        if self.file is not None:
            try:
                found = self.file.stat()
                seen = (found.st_mtime_ns, found.st_ino)
            except OSError:
                seen = (0, 0)
            if self._keys is None or (seen != self._seen and seen[1]):
                self._keys, self._seen = _read(self.file, missing=self._make), seen
        assert self._keys is not None
        return self._keys

    def _first(self) -> dict[str, bytes]:
        """The first key of a state directory; whoever comes first makes it, and all use that one."""
        assert self.file is not None
        self._write([new_key()], first=True)
        return self._load()

    def _write(self, keys: list[str], *, first: bool = False) -> dict[str, bytes]:
        """The file, whole or not at all, for its owner's eyes only, on disk before any of its keys is used."""
        file = self.file
        assert file is not None
        draft = file.with_name(f".{file.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as new:
                new.write(_COMMENT + "\n".join(keys) + "\n")
                new.flush()
                os.fsync(new.fileno())
            if first:
                with contextlib.suppress(FileExistsError):
                    os.link(draft, file)
            else:
                draft.replace(file)
            folder = os.open(file.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        except OSError as error:
            raise KeyFileError(f"cannot write the key file {file}: {error.strerror or error}") from error
        finally:
            draft.unlink(missing_ok=True)
        self._seen = (0, 0)
        return self._load()


def _bound(key: str, job: str, name: str) -> bytes:
    """What a sealed value belongs to: moved to another row it does not open."""
    return f"gpusched secret 1\0{key}\0{job}\0{name}".encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


def _read(file: Path, *, missing: bool) -> dict[str, bytes]:
    try:
        with file.open("rb") as source:
            mode = os.fstat(source.fileno()).st_mode
            words = source.read(1 << 16)
    except FileNotFoundError as error:
        if missing:
            return {}
        raise KeyFileError(
            f"there is no key file {file}", hint="`gpusched secrets new-key > FILE` makes one"
        ) from error
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {file}: {error.strerror or error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(
            f"others may read the key file {file} (mode {stat.S_IMODE(mode):04o})",
            hint=f"chmod 600 {file}; if others have read it: `gpusched secrets rotate-key`",
        )
    return _parse(words.decode("ascii", "replace"), str(file))


def _parse(words: str, where: str) -> dict[str, bytes]:
    """Keys by their ids. No message repeats what was read: it may be a key with a slip in it."""
    found: dict[str, bytes] = {}
    for number, line in enumerate(words.splitlines(), 1):
        if line.startswith("#"):
            continue
        for word in line.split():
            try:
                key = base64.b64decode(word.encode(), altchars=b"-_", validate=True)
            except (ValueError, binascii.Error):
                key = b""
            if len(key) != _BYTES:
                raise KeyFileError(
                    f"{where}, line {number}: that is no key", hint="32 bytes in base64; `gpusched secrets new-key`"
                )
            found[key_id(key)] = key
    if not found:
        raise KeyFileError(f"{where} holds no key", hint="`gpusched secrets new-key` makes one")
    return found
