"""Every error that a user can cause or see, as one small tree.

    GpuschedError              exit 1
    ├── SpecError              exit 4   a job file, queue file or option is wrong; carries every problem at once
    ├── TraceError             exit 4   a trace or cluster file is wrong; names file and row
    ├── NotFoundError          exit 3
    ├── InfeasibleError        exit 5   never on this cluster (not: "not now")
    ├── NotAllowedError        exit 6
    ├── UnreachableError       exit 7   the control plane does not answer
    │   └── StandbyError                it stands by; says which one leads
    ├── BusyError              exit 7   it answers that it can take no more just now, and when to ask again
    ├── ConflictError          exit 8   the state it is in does not allow this
    ├── CertificateError       exit 1   a stored proof of a bound is not one, or proves something else
    ├── StoreError             exit 1   the database is locked, foreign, newer than us or full
    └── PlanError              exit 1   a policy returned a plan that breaks a rule; the plan is refused

Programmer errors are assertions, and stay on.
"""

from __future__ import annotations

from dataclasses import dataclass


class GpuschedError(Exception):
    """Base of the tree. `message` is for a person; `hint` says what to do; `code` is a stable token for machines."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in a file: where it is and how to mend it. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        key = f" {self.key}:" if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}:{key} {self.message}{hint}"


class SpecError(GpuschedError):
    """A document that a user wrote is wrong. Carries every problem found, in file order."""

    code = "invalid_spec"
    exit_code = 4

    def __init__(self, problems: list[Problem], *, hint: str = "") -> None:
        super().__init__("\n".join(map(str, problems)), hint=hint)
        self.problems = problems


class TraceError(GpuschedError):
    """A trace or cluster file cannot be read; the message names the file, the row and the column."""

    code = "invalid_trace"
    exit_code = 4


class NotFoundError(GpuschedError):
    """No such job, queue or node."""

    code = "not_found"
    exit_code = 3


class InfeasibleError(GpuschedError):
    """The job can never run on this cluster, however long it waits."""

    code = "infeasible"
    exit_code = 5


class NotAllowedError(GpuschedError):
    """The caller is not known, or may not do this."""

    code = "not_allowed"
    exit_code = 6


class UnreachableError(GpuschedError):
    """The control plane does not answer."""

    code = "unreachable"
    exit_code = 7


class StandbyError(UnreachableError):
    """The control plane that was asked stands by, and another one leads. Nothing was done.

    Args:
        leader: URL of the one that leads; empty = not known.
    """

    code = "lease_held"

    def __init__(self, message: str, *, hint: str = "", leader: str = "") -> None:
        super().__init__(message, hint=hint)
        self.leader = leader


class BusyError(GpuschedError):
    """A limit that guards the control plane's memory is reached. Nothing was done; `retry_after` says when to try.

    Args:
        retry_after: seconds, as the control plane expects it from how fast it has worked off what waits.
    """

    code = "busy"
    exit_code = 7

    def __init__(self, message: str, *, hint: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ConflictError(GpuschedError):
    """The state that the job or the server is in does not allow this."""

    code = "conflict"
    exit_code = 8


class CertificateError(GpuschedError):
    """A price certificate cannot be read, is about another trace, or does not prove what it claims."""

    code = "certificate"


class StoreError(GpuschedError):
    """The database cannot be used: locked, foreign, newer than this program, or its disk is full."""

    code = "store"


class PolicyError(GpuschedError):
    """An option of a policy is unknown, of the wrong type or out of range."""

    code = "invalid_policy"


class PlanError(GpuschedError):
    """A policy returned a plan that breaks a rule. The plan is refused as a whole."""

    code = "invalid_plan"
