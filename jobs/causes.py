"""Why an attempt ended without success: the causes, their words, and the tokens by which retry rules name them.

The details of a FINISHED or VANISHED event say `cause` (one of `Cause`), `which` (its kind, as SIGSEGV or nccl),
`cause_detail` (in words), `failed_rank` and `node` (the first rank that failed, and where), `patterns` (names of the
built-in patterns that its log shows) and `matched` (which of the user's own, by their place in `log_patterns`). They
are found where the log lies, see cluster/ray/endings.py. What a backend leaves out is filled in from the exit code.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from .events import Kind


class Cause(StrEnum):
    """Why an attempt ended."""

    EXIT = "exit"  # a rank ended with a code of its own
    SIGNAL = "signal"  # a signal that gpusched did not send
    OOM = "oom"  # the node ran out of memory, or the job out of what it may have
    GPU_OOM = "gpu_oom"  # a GPU ran out of memory
    PATTERN = "pattern"  # the log says what it was; a built-in pattern, or one of the user's
    START = "start"  # it never came to its command, or the command is not there
    NODE_LOST = "node_lost"  # the node went away
    LOST = "lost"  # what watched it went away, and the node did not

    __hash__ = str.__hash__


STARTS: Mapping[str, str] = {
    "node": "the node could not start it",
    "setup": "its setup failed",
    "command": "its command cannot be run",
    "workdir": "its workdir is missing",
}
"""Kinds of start failure. The first is the platform's own, the others are the job's."""

PATTERNS: Mapping[str, str] = {
    "xid": "the driver reported an Xid error",
    "ecc": "a GPU has an uncorrectable memory error",
    "gpu_lost": "a GPU went away or does not answer",
    "nccl": "NCCL failed",
    "cuda": "a CUDA call failed",
    "disk_full": "a disk is full",
    "io": "a disk or a file system failed",
    "shm": "shared memory ran out",
    "network": "a connection failed",
}
"""Names of the built-in patterns, and what they say. cluster/ray/endings.py has their texts."""

POINTS_AT_NODE = frozenset(
    {"start:node", "pattern:xid", "pattern:ecc", "pattern:gpu_lost", "pattern:disk_full", "pattern:io"}
)
"""Causes that are more likely the node's than the job's."""

MAY_POINT_AT_NODE = frozenset(
    {"start", "signal", "gpu_oom", "pattern:cuda", "pattern:nccl", "pattern:shm", *POINTS_AT_NODE}
)
"""Causes that are the node's if the same job does its work elsewhere; others may be chance of the job's own."""

LOG = "log:/"
"""How a pattern of the user's begins; it ends with a slash."""


class Named(Protocol):
    """What names causes: a rule, or what is retried where no rule does."""

    @property
    def on(self) -> Sequence[str]:
        """Tokens of causes."""
        ...


class Rules(Named, Protocol):
    """A job's whole `retry`."""

    @property
    def rules(self) -> Sequence[Named]:
        """What is done by cause."""
        ...


class End(NamedTuple):
    """What is known of an end that was no success.

    Attributes:
        cause: the most specific token, such as `exit:3`, `oom` or `pattern:nccl`.
        tokens: all by which a rule may name it.
        detail: in words.
    """

    cause: str
    tokens: frozenset[str]
    detail: str


def log_patterns(rule: Rules | None) -> tuple[str, ...]:
    """The user's own patterns of a `retry`, without their slashes, in the order in which `matched` counts them."""
    if rule is None:
        return ()
    named = [token for one in (rule, *rule.rules) for token in one.on if token.startswith(LOG)]
    return tuple(token[len(LOG) : -1] for token in dict.fromkeys(named))


def signal_name(number: int) -> str:
    """SIGSEGV for 11; empty = there is no such signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def end_of(kind: Kind, data: Mapping[str, Any] | None, rule: Rules | None = None) -> End:
    """What a FINISHED with a code that is not 0, or a VANISHED, says of its cause."""
    told = data or {}
    found = {"failure"} if kind is Kind.FINISHED else {"lost"}
    code = told.get("exit_code")
    number = told.get("signal") or (code - 128 if isinstance(code, int) and code > 128 else 0)  # noqa: PLR2004 - as shells have it
    name = signal_name(number) if number else ""
    if kind is Kind.FINISHED:
        found.add(f"exit:{code}")
        if name:
            found |= {"signal", f"signal:{name}"}
    cause, which = _named(kind, told, name)
    found.add(cause)
    if which:
        found.add(f"{cause}:{which}")
    patterns = [one for one in told.get("patterns") or () if one in PATTERNS]
    found |= {f"pattern:{one}" for one in patterns}
    if patterns:
        found.add("pattern")
    own = log_patterns(rule)
    matches = [f"{LOG}{own[at]}/" for at in told.get("matched") or () if isinstance(at, int) and 0 <= at < len(own)]
    found.update(matches)
    detail = str(told.get("cause_detail") or "") or _words(cause, which, told)
    if matches and cause in {Cause.EXIT, Cause.SIGNAL}:
        cause, which, detail = Cause.PATTERN.value, "", f"its log matches {matches[0]}"
        found.add(cause)
    return End(f"{cause}:{which}" if which else cause, frozenset(found), detail)


def _named(kind: Kind, told: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The cause and its kind, as told or by the exit code."""
    cause, which = str(told.get("cause") or ""), str(told.get("which") or "")
    if cause not in _NAMES:
        cause = Cause.LOST.value if kind is Kind.VANISHED else Cause.SIGNAL.value if name else Cause.EXIT.value
    if cause == Cause.EXIT:
        return cause, which or str(told.get("exit_code"))
    return cause, which or (name if cause == Cause.SIGNAL else "")


_NAMES = frozenset(cause.value for cause in Cause)

_KNOWN: Mapping[str, str] = {
    Cause.OOM: "out of memory",
    Cause.GPU_OOM: "out of GPU memory",
    Cause.NODE_LOST: "its node is gone",
    Cause.LOST: "what watched it is gone",
}


def _words(cause: str, which: str, told: Mapping[str, Any]) -> str:
    """A cause in words, where nobody who saw the log has said more."""
    if cause == Cause.EXIT:
        return f"exit code {which}"
    if cause == Cause.SIGNAL:
        return f"ended by {which or 'a signal'}"
    if cause == Cause.PATTERN:
        return PATTERNS.get(which, "its log shows one of the job's own patterns")
    said = str(told.get("message") or "")
    return said or (STARTS.get(which, "it could not be started") if cause == Cause.START else _KNOWN[cause])
