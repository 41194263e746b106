"""Who asks: users, their roles, their tokens, and the caller that a request turns out to be from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do. Each role may do all that the ones before it may."""

    VIEWER = "viewer"
    USER = "user"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """From 0 up."""
        return _ORDER.index(self)

    def covers(self, other: Role) -> bool:
        """Whether it may do all that `other` may."""
        return self.rank >= other.rank


_ORDER = (Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN)

ROLES = {
    Role.VIEWER: "sees jobs, queues, nodes and figures; changes nothing",
    Role.USER: "submits jobs, and changes its own",
    Role.OPERATOR: "changes everybody's jobs and the nodes, submits for others, reads every job's output",
    Role.ADMIN: "configures queues, policy, users and tokens, reads the audit trail, stops the control plane",
}
"""What each role is for, in words."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom an administrator let in.

    Attributes:
        groups: for the queues' access lists.
        disabled: every token of theirs is refused; what they submitted goes on.
        created, changed: UTC seconds.
    """

    name: str
    role: Role
    groups: tuple[str, ...] = ()
    disabled: bool = False
    created: float = 0.0
    changed: float = 0.0


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept: without what it is.

    Attributes:
        id: part of the token, and what it is called by. user: whose it is.
        digest: SHA-256 of the whole token, in hexadecimal digits.
        role: it carries no more than this; None = all that its user may.
        note: what it is for, in its owner's words.
        created, expires, revoked, last_used: UTC seconds; None = never. last_from: address.
    """

    id: str
    user: str
    digest: str
    role: Role | None = None
    note: str = ""
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None
    last_used: float | None = None
    last_from: str = ""


OWNER_TOKEN = "owner"  # noqa: S105 - what the token is called, not what it is
"""What the audit trail calls the token in the state directory of the control plane."""
NO_TOKEN = "none"  # noqa: S105 - the same
"""What it calls a reader on loopback who showed none."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request is from.

    Attributes:
        token: id of the token that was shown, OWNER_TOKEN or NO_TOKEN. address: where from; empty = not known.
        until: when that token ends; None = never.
    """

    user: str
    role: Role
    groups: tuple[str, ...] = ()
    token: str = OWNER_TOKEN
    address: str = ""
    until: float | None = None
