"""The one table of who may ask for what: each route of the API with the role that it takes.

The server asks it for every request, the OpenAPI document and docs/access.md repeat it, and tests walk over it. A route
without a line here is an administrator's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ...jobs.errors import NotAllowedError
from .model import Caller, Role


class Rule(NamedTuple):
    """What a route takes.

    Attributes:
        verb: what the audit trail calls it.
        least: the role that it takes.
        others: the role that it takes where it is about something that is another user's; None = the same.
    """

    verb: str
    least: Role
    others: Role | None = None

    def allows(self, role: Role, *, own: bool = True) -> bool:
        """Whether somebody of this role may, with what is their own or somebody else's."""
        return role.covers(self.needed(own=own))

    def needed(self, *, own: bool = True) -> Role:
        """The role that it takes."""
        if own or self.others is None or self.least.covers(self.others):
            return self.least
        return self.others


_VIEWER, _USER, _OPERATOR, _ADMIN = Role.VIEWER, Role.USER, Role.OPERATOR, Role.ADMIN

PERMISSIONS: Mapping[str, Rule] = MappingProxyType(
    {
        "POST /v1/jobs": Rule("submit", _USER),
        "GET /v1/jobs": Rule("ps", _VIEWER),
        "GET /v1/jobs/{ref}": Rule("describe", _VIEWER),
        "GET /v1/jobs/{ref}/events": Rule("events", _VIEWER),
        "GET /v1/jobs/{ref}/explain": Rule("explain", _VIEWER),
        "GET /v1/jobs/{ref}/logs": Rule("logs", _VIEWER, others=_OPERATOR),
        "GET /v1/jobs/{ref}/wait": Rule("wait", _VIEWER),
        "POST /v1/jobs/{ref}/cancel": Rule("cancel", _USER, others=_OPERATOR),
        "POST /v1/jobs/{ref}/hold": Rule("hold", _USER, others=_OPERATOR),
        "POST /v1/jobs/{ref}/release": Rule("release", _USER, others=_OPERATOR),
        "POST /v1/jobs/{ref}/requeue": Rule("requeue", _USER, others=_OPERATOR),
        "PUT /v1/snapshots/{sha256}": Rule("upload", _USER),
        "HEAD /v1/snapshots/{sha256}": Rule("upload", _USER),
        "GET /v1/events": Rule("watch", _VIEWER),
        "GET /v1/nodes": Rule("nodes", _VIEWER),
        "GET /v1/nodes/{name}": Rule("nodes", _VIEWER),
        "POST /v1/nodes/{name}/cordon": Rule("cordon", _OPERATOR),
        "POST /v1/nodes/{name}/drain": Rule("drain", _OPERATOR),
        "POST /v1/nodes/{name}/resume": Rule("resume", _OPERATOR),
        "GET /v1/maintenance": Rule("maintenance list", _VIEWER),
        "POST /v1/maintenance": Rule("maintenance add", _OPERATOR),
        "POST /v1/maintenance/{window}/cancel": Rule("maintenance cancel", _OPERATOR),
        "POST /v1/policy": Rule("policy use", _ADMIN),
        "GET /v1/queues": Rule("queues list", _VIEWER),
        "GET /v1/queues/{queue}": Rule("queues show", _VIEWER),
        "POST /v1/queues": Rule("queues apply", _ADMIN),
        "GET /v1/queue-file": Rule("queues export", _VIEWER),
        "GET /v1/queue-versions": Rule("queues history", _VIEWER),
        "POST /v1/queue-versions/rollback": Rule("queues rollback", _ADMIN),
        "GET /v1/secrets": Rule("secrets keys", _ADMIN),
        "POST /v1/secrets/rotate-key": Rule("secrets rotate-key", _ADMIN),
        "GET /v1/archive": Rule("journal list", _VIEWER),
        "POST /v1/archive": Rule("journal archive", _ADMIN),
        "POST /v1/archive/verify": Rule("journal verify", _OPERATOR),
        "POST /v1/archive/{part}/restore": Rule("journal restore", _ADMIN),
        "GET /v1/usage": Rule("report", _VIEWER),
        "GET /v1/top": Rule("top", _VIEWER),
        "GET /v1/export": Rule("export", _VIEWER),
        "GET /v1/status": Rule("status", _VIEWER),
        "POST /v1/shutdown": Rule("down", _ADMIN),
        "GET /v1/openapi.json": Rule("openapi", _VIEWER),
        "GET /v1/whoami": Rule("whoami", _VIEWER),
        "GET /v1/users": Rule("users list", _ADMIN),
        "POST /v1/users": Rule("users add", _ADMIN),
        "POST /v1/users/{user}": Rule("users change", _ADMIN),
        "DELETE /v1/users/{user}": Rule("users remove", _ADMIN),
        "GET /v1/tokens": Rule("token list", _VIEWER, others=_ADMIN),
        "POST /v1/tokens": Rule("token create", _VIEWER, others=_ADMIN),
        "POST /v1/tokens/{token}/revoke": Rule("token revoke", _VIEWER, others=_ADMIN),
        "GET /v1/audit": Rule("audit", _ADMIN),
    }
)
"""`METHOD path` as routes.py has it -> what it takes."""


def rule_of(method: str, path: str) -> Rule:
    """The rule of a route; one that the table forgot is an administrator's."""
    return PERMISSIONS.get(f"{method} {path}") or Rule(f"{method} {path}", _ADMIN)


class ForbiddenError(NotAllowedError):
    """The caller is known, and may not do this."""


def require(rule: Rule, caller: Caller, *, owner: str | None = None, what: str = "") -> None:
    """Let a caller pass, or say what it takes.

    Args:
        rule: what is asked for.
        caller: who asks.
        owner: whose the thing is that it is about; None = nobody's, or not known yet.
        what: that thing in words.

    Raises:
        ForbiddenError: the role is not enough.
    """
    own = owner is None or owner == caller.user
    if rule.allows(caller.role, own=own):
        return
    needed = rule.needed(own=own)
    of = "" if own else f": it is {owner}'s"
    about = f" {what}" if what else ""
    raise ForbiddenError(
        f"{caller.user} (role {caller.role}) may not `{rule.verb}`{about}{of}; it takes role {needed}",
        hint=f"ask an admin for it: `gpusched users role {caller.user} {needed}`",
    )
