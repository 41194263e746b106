"""What an administrator sets of a control plane: the file `settings.yaml` in its state directory, read at its start.

    limits:
      waiting_per_user: 50000
    archive:
      after: 30d

Every key may be left out. docs/load.md says what each is for, docs/retries.md what those of `poison` are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..jobs.errors import Problem, SpecError
from .poison import Rule as PoisonRule

if TYPE_CHECKING:
    from ..jobs.yaml_marks import Node

FILE = "settings.yaml"
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken in before the answer is 429 and a time to ask again. 0 = no limit.

    Attributes:
        requests_per_second, burst: of one user (beyond a burst), by a token bucket.
        requests: that are being answered at once, of all users; streams do not count.
        bytes: of bodies that are being taken in at once, of all users.
        body: bytes of one body (more is a 413: no waiting helps).
        inbox: changes (submitted jobs, cancels, ...) that wait to be written.
        waiting, waiting_per_user, waiting_per_queue: jobs that wait for a start, tasks of arrays included.
        array: tasks of one array (more is a 400).
        streams, streams_per_user: open streams: events, followed output, waits.
        stall: seconds that a stream's reader may leave what was sent to it unread; then it is cut off.
    """

    requests_per_second: int = 5_000
    burst: int = 20_000
    requests: int = 4_000
    bytes: int = 512 << 20
    body: int = 64 << 20
    inbox: int = 100_000
    waiting: int = 2_000_000
    waiting_per_user: int = 500_000
    waiting_per_queue: int = 1_000_000
    array: int = 1_000_000
    streams: int = 10_000
    streams_per_user: int = 4_000
    stall: float = 60.0


@dataclass(frozen=True, slots=True)
class ArchivePolicy:
    """When ended jobs leave the database for Parquet files.

    Attributes:
        after: seconds after a job's end; None = never.
        keep: jobs that have ended and stay in the database at most, the latest; more leave early. None = any number.
        folder: where the files lie; empty = `archive` in the state directory. Two control planes share it.
        every: seconds from one look to the next.
    """

    after: float | None = 30 * DAY
    keep: int | None = 1_000_000
    folder: str = ""
    every: float = 600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it."""

    limits: Limits = Limits()
    archive: ArchivePolicy = ArchivePolicy()
    poison: PoisonRule = field(default_factory=PoisonRule)


def read_settings(folder: Path) -> Settings:
    """The settings of a state directory; the defaults where it has no such file.

    Raises:
        SpecError: the file cannot be read, or a key or value of it cannot be; with every problem.
    """
    path = folder / FILE
    if not path.exists():
        return Settings()
    from ..jobs.yaml_faults import MAX_BYTES, YamlError, decode  # noqa: PLC0415 - YAML is slow to load, few have a file
    from ..jobs.yaml_marks import documents  # noqa: PLC0415 - the same

    problems: list[Problem] = []
    found: dict[str, dict[str, Any]] = {}
    file = str(path)
    try:
        with path.open("rb") as source:
            text = decode(source.read(MAX_BYTES + 1), file)
        for document in documents(text, file, problems):
            _read(document, file, problems, found)
    except YamlError as error:
        problems.append(error.problem)
    except OSError as error:
        problems.append(Problem(file, 0, 0, "", f"cannot be read: {error.strerror or error}"))
    if problems:
        raise SpecError(problems)
    return Settings(
        Limits(**found.get("limits", {})),
        ArchivePolicy(**found.get("archive", {})),
        PoisonRule(**found.get("poison", {})),
    )


def _count(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 0:
        raise ValueError(text)
    return number


def _size(text: str) -> int:
    from ..jobs.units import parse_size  # noqa: PLC0415 - for a file alone

    return int(parse_size(text))


def _duration(text: str) -> float:
    from ..jobs.units import parse_duration  # noqa: PLC0415 - for a file alone

    return parse_duration(text)


def _share(text: str) -> float:
    share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def _or_never(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text.lower() in {"never", "none", "all"} else read(text)


_READ: Mapping[str, Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "limits": {
        **{one.name: (_count, "a whole number; 0 = no limit") for one in fields(Limits)},
        "bytes": (_size, "a size such as 512MiB"),
        "body": (_size, "a size such as 64MiB"),
        "stall": (_duration, "a duration such as 60s"),
    },
    "archive": {
        "after": (_or_never(_duration), "a duration such as 30d, or never"),
        "keep": (_or_never(_count), "a whole number, or all"),
        "folder": (str, "a path"),
        "every": (_duration, "a duration such as 10m"),
    },
    "poison": {
        "jobs": (_count, "a whole number; 0 = never"),
        "window": (_duration, "a duration such as 1h"),
        "share": (_share, "a share of the nodes such as 25%"),
    },
}


def _read(document: Node, file: str, problems: list[Problem], found: dict[str, dict[str, Any]]) -> None:
    """Add what a document says."""
    if document.kind != "map":
        if document.kind != "scalar" or document.scalar is not None:
            problems.append(
                Problem(file, document.line, document.column, "", f"must be one of {', '.join(_READ)}, with keys below")
            )
        return
    for part, (name, values) in document.pairs.items():
        known = _READ.get(part)
        if known is None or values.kind != "map":
            what = "unknown key" if known is None else "must have keys of its own"
            problems.append(Problem(file, name.line, name.column, part[:80], what, f"the keys are {', '.join(_READ)}"))
            continue
        for key, (place, value) in values.pairs.items():
            where = (file, place.line, place.column, f"{part}.{key}"[:80])
            if key not in known:
                problems.append(Problem(*where, "unknown key", f"the keys are {', '.join(known)}"))
                continue
            read, hint = known[key]
            try:
                if value.kind != "scalar":
                    raise ValueError(key)  # noqa: TRY301 - told below
                found.setdefault(part, {})[key] = read(value.text.strip())
            except ValueError:
                problems.append(Problem(*where, f"cannot be {value.text[:80]!r}", hint))
