"""A trace file as text: gzip read directly, damage named, memory bounded whatever the file holds."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ..errors import TraceError

_BLOCK = 1 << 18
MAX_LINE = 1 << 20
"""Characters of the longest line that is read; a longer one is no line of a trace."""

_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"BZh": ("bzip2", "unpack it with bunzip2, or pack it with gzip"),
    b"\xfd7zXZ": ("xz", "unpack it with xz -d, or pack it with gzip"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unpack it with zstd -d, or pack it with gzip"),
    b"PK\x03\x04": ("zip", "unzip it first"),
    b"PAR1": ("Parquet", "convert it to CSV"),
    b"SQLite format 3": ("an SQLite database", "export it to CSV"),
}


class Source:
    """One trace file, opened, to be read once from front to end.

    Attributes:
        name: the file as the user named it; `-` is standard input.
        head: the first characters, for telling formats apart; reading starts before them all the same.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open `path`.

        Raises:
            TraceError: it is missing, unreadable, empty, damaged, or no text.
        """
        self.name = os.fspath(path)
        self._read = 0
        self._raw = self._open()
        self._blocks = self._decoded()
        try:
            self.head = next(self._blocks, "")
        except BaseException:
            self.close()
            raise
        if not self.head.strip():
            self.close()
            raise TraceError(f"{self.name}: is empty", hint="give a trace with a header line and at least one job")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._raw is not sys.stdin.buffer:
            self._raw.close()

    def blocks(self) -> Iterator[str]:
        """The text in pieces of any length, cut anywhere."""
        yield self.head
        yield from self._blocks

    def lines(self) -> Iterator[str]:
        """The lines, each with its line feed."""
        rest = ""
        for block in self.blocks():
            text = rest + block
            cut = text.rfind("\n") + 1
            rest = text[cut:]
            if len(rest) > MAX_LINE:
                raise TraceError(
                    f"{self.name}, row {self._read + 1}: the line is longer than {MAX_LINE:,} characters",
                    hint="a trace has one job a line",
                )
            yield from io.StringIO(text[:cut], newline="\n")
        if rest:
            yield rest

    def _open(self) -> BinaryIO:
        if self.name == "-":
            return sys.stdin.buffer
        try:
            raw: BinaryIO = Path(self.name).open("rb")  # noqa: SIM115 - closed by close()
            magic = raw.read(16)
            raw.seek(0)
        except FileNotFoundError as error:
            raise TraceError(f"{self.name}: no such file", hint="check the path") from error
        except IsADirectoryError as error:
            raise TraceError(f"{self.name}: is a folder", hint="name one file in it") from error
        except (OSError, ValueError) as error:
            raise TraceError(f"{self.name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
        for start, (kind, hint) in _FOREIGN.items():
            if magic.startswith(start):
                raw.close()
                raise TraceError(f"{self.name}: is {kind}, which is not read", hint=hint)
        return raw

    def _decoded(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        stream: io.BufferedIOBase | BinaryIO = self._raw
        try:
            first = self._raw.read(_BLOCK)
            if first[:2] == _GZIP:
                stream = gzip.GzipFile(fileobj=_Joined(first, self._raw))
                first = stream.read(_BLOCK)
            data = first
            while data:
                text = decoder.decode(data)
                if "\0" in text:
                    raise self._no_text(self._read + text[: text.index("\0")].count("\n") + 1)
                yield text
                self._read += text.count("\n")
                data = stream.read(_BLOCK)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise self._no_text(self._read + error.object[: error.start].count(b"\n") + 1) from error
        except EOFError as error:
            raise TraceError(
                f"{self.name}: the compressed data stops in the middle, after row {self._read:,}",
                hint="the file was cut off: copy or download it again",
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise TraceError(
                f"{self.name}: the compressed data is damaged after row {self._read:,}: {error}",
                hint="copy or download it again",
            ) from error
        except OSError as error:
            raise TraceError(f"{self.name}: cannot be read: {error.strerror or error}") from error

    def _no_text(self, row: int) -> TraceError:
        return TraceError(
            f"{self.name}, row {row}: is not text (UTF-8)", hint="give a CSV, JSON or SWF file, or gzip of one"
        )


class _Joined(io.RawIOBase):
    """Bytes already taken from a stream, and then the stream: a pipe cannot be wound back."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first = first
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._first:
            taken, self._first = (self._first, b"") if size < 0 else (self._first[:size], self._first[size:])
            return taken
        return self._rest.read(size)
