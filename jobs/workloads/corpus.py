"""Text to learn from that every Python has with it: what the standard library says about itself.

A passage is a docstring, or a block of comments, of a module of the standard library, cut to pieces of `PASSAGE_WORDS`.
Its class is the family of modules that it was written for: networking, concurrency and so on.

Training and validation share no source file, and a validation passage that mostly repeats training passages is left
out, since modules copy sentences from each other. So the accuracy is that on modules never seen, which is harder and
more honest than a split by passage.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from .errors import WorkloadError

FAMILIES = {
    "networking": (
        "email ftplib http imaplib ipaddress mailbox mimetypes netrc poplib smtplib socket socketserver ssl urllib "
        "webbrowser wsgiref xmlrpc"
    ),
    "concurrency": (
        "_threading_local _weakrefset asyncio concurrent contextlib multiprocessing queue sched selectors signal "
        "subprocess threading weakref"
    ),
    "numbers and dates": (
        "_pydatetime _pydecimal _strptime bisect calendar colorsys datetime decimal fractions heapq locale numbers "
        "random statistics zoneinfo"
    ),
    "language": (
        "_py_abc abc ast code codeop compileall copyreg dataclasses dis enum functools importlib inspect linecache "
        "modulefinder opcode pkgutil py_compile pydoc symtable tabnanny token tokenize types typing zipimport"
    ),
    "testing and debugging": (
        "bdb cProfile doctest logging pdb profile pstats timeit trace traceback tracemalloc unittest warnings"
    ),
    "files": (
        "_compression _pyio bz2 dbm filecmp fileinput fnmatch genericpath glob gzip io lzma ntpath os pathlib pickle "
        "pickletools posixpath shelve shutil stat tarfile tempfile zipapp zipfile"
    ),
}
"""Family -> its modules. Some exist in some versions of Python only; those that are missing are passed over."""

PASSAGE_WORDS = (12, 47)
"""A passage has no fewer and no more words than this."""
VALIDATION_SHARE = 0.22
"""At most this share of a family's passages is held out."""
BIG_FILE = 0.25
"""A file with more than this share of its family is for training: held out, it would stand for the whole family."""
PHRASE_WORDS = 5
"""Passages are compared by their runs of so many words."""

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


class CorpusError(WorkloadError):
    """This Python cannot show the text of its standard library."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text.

    Attributes:
        text: its words, in lower case, with one space between.
        label: index of its family in `FAMILIES`; -1 = not known.
        source: the file it comes from, such as `email/header.py`.
    """

    text: str
    label: int = -1
    source: str = ""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Passages to train on, and passages from other files to validate on."""

    training: list[Passage]
    validation: list[Passage]


def words(text: str) -> list[str]:
    """The words of a text in lower case; names are split: `get_HTTPReply2` gives get, http, reply, 2."""
    return [word.lower() for word in _WORD.findall(text)]


def load(limit: int | None = None) -> Corpus:
    """Read the corpus of the Python that runs this. The same Python version gives the same corpus.

    Args:
        limit: at most so many passages of each family in training, and a quarter of it in validation; None = all.

    Raises:
        CorpusError: the source files are not there.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    training: list[list[Passage]] = []
    validation: list[list[Passage]] = []
    met: set[str] = set()
    for label, family in enumerate(FAMILIES):
        passages = [passage for passage in _family(library, label, family) if not _again(passage.text, met)]
        held_out = _held_out(passages)
        training.append([passage for passage in passages if passage.source not in held_out])
        validation.append([passage for passage in passages if passage.source in held_out])
    # What was copied from any file of any family counts, before `limit` makes the choice smaller.
    phrases = {phrase for passage in chain.from_iterable(training) for phrase in _phrases(passage.text)}
    validation = [[passage for passage in family if not _mostly(passage.text, phrases)] for family in validation]
    for name, learned, asked in zip(FAMILIES, training, validation, strict=True):
        if not learned or not asked:
            raise CorpusError(
                f"{library} has too little source text of the family `{name}`: install the standard library's .py files"
            )
    quarter = None if limit is None else max(limit // 4, 1)
    return Corpus(
        [passage for family in training for passage in family[:limit]],
        [passage for family in validation for passage in family[:quarter]],
    )


def _family(library: Path, label: int, family: str) -> Iterator[Passage]:
    for module in FAMILIES[family].split():
        package = library / module
        for path in sorted(package.rglob("*.py")) if package.is_dir() else [library / f"{module}.py"]:
            source = path.relative_to(library)
            if path.is_file() and not {"test", "tests"}.intersection(source.parts):
                for text in _texts(path.read_text(encoding="utf-8")):
                    yield from (Passage(piece, label, source.as_posix()) for piece in _pieces(text))


def _texts(code: str) -> Iterator[str]:
    """The docstrings and the blocks of comments of a source file."""
    for node in _documented(ast.parse(code)):
        yield ast.get_docstring(node, clean=False) or ""
    lines = (line.strip() for line in code.splitlines())
    for is_comment, block in groupby(lines, lambda line: line.startswith("#")):
        if is_comment:
            yield "\n".join(block)


def _documented(node: ast.AST) -> Iterator[_Documented]:
    """The module, classes and functions at a node and below. Statements only: `ast.walk` takes twice as long."""
    if isinstance(node, _Documented):
        yield node
    for part in ("body", "orelse", "handlers", "finalbody"):
        for child in getattr(node, part, ()):
            if hasattr(child, "body"):
                yield from _documented(child)


def _pieces(text: str) -> Iterator[str]:
    fewest, most = PASSAGE_WORDS
    found = words(text)
    for start in range(0, len(found), most):
        piece = found[start : start + most]
        if len(piece) >= fewest:
            yield " ".join(piece)


def _again(text: str, met: set[str]) -> bool:
    """Whether a text was met before; it is now."""
    if text in met:
        return True
    met.add(text)
    return False


def _held_out(passages: Sequence[Passage]) -> set[str]:
    """The files of one family that are kept for validation, chosen by the hash of their names."""
    sizes = Counter(passage.source for passage in passages)
    room = VALIDATION_SHARE * len(passages)
    chosen = set()
    for source in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[source] <= min(room, BIG_FILE * len(passages)):
            chosen.add(source)
            room -= sizes[source]
    return chosen


def _phrases(text: str) -> Iterator[tuple[str, ...]]:
    found = text.split()
    return zip(*(found[start:] for start in range(PHRASE_WORDS)), strict=False)


def _mostly(text: str, phrases: set[tuple[str, ...]]) -> bool:
    """Whether at least half of a text's phrases are among those given."""
    own = list(_phrases(text))
    return 2 * sum(phrase in phrases for phrase in own) >= len(own)


class Vocabulary:
    """Numbers for words. 0 fills up short passages, 1 is any unknown word, 2 opens every passage ([CLS])."""

    PAD, UNKNOWN, CLS = 0, 1, 2

    def __init__(self, known: Sequence[str]) -> None:
        self.words = list(known)
        self._number = {word: number for number, word in enumerate(self.words, start=3)}

    @classmethod
    def of(cls, passages: Sequence[Passage], size: int = 6000) -> Vocabulary:
        """The words that occur at least twice in the passages, the most frequent first, at most `size` of them."""
        counts = Counter(word for passage in passages for word in passage.text.split())
        # Ties are broken by the word itself: the numbering must not depend on the order of a hash table.
        frequent = sorted((-count, word) for word, count in counts.items() if count > 1)
        return cls([word for _, word in frequent[:size]])

    def __len__(self) -> int:
        return len(self.words) + 3

    def encode(self, text: str) -> list[int]:
        """A passage as `PASSAGE_WORDS[1] + 1` numbers: [CLS], its words, padding."""
        room = PASSAGE_WORDS[1]
        numbers = [self._number.get(word, self.UNKNOWN) for word in text.split()[:room]]
        return [self.CLS, *numbers, *[self.PAD] * (room - len(numbers))]
