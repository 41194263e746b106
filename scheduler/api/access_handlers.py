"""The routes of users, tokens and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from ...jobs.units import UnitError, parse_duration
from ..access.asking import current
from ..access.model import Role
from ..access.verbs import FIRST_EXPIRY, Access, check_owner
from ..desk import RequestError
from ..views import JSON
from . import asked
from .answers import as_json
from .routes import Parameter, Route

NEVER = "never"
_LONGEST = 10 * 365 * 86400.0
MOST_LINES = 10_000


class AccessApi:
    """The handlers."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def routes(self) -> list[Route]:
        """What there is."""
        roles = f"one of {', '.join(Role)}"
        user = {200: "name, role, groups, disabled, tokens, created, changed"}
        token = {200: "id, user, state, role, note, created, expires, revoked, last_used, last_from"}
        trail = [
            Parameter("user", "string", "who asked"),
            Parameter("verb", "string", "for what"),
            Parameter("outcome", "string", "done, or the code of the error"),
            Parameter("since", "string", "from when on"),
            Parameter("before", "integer", "only lines before this number"),
            Parameter("limit", "integer", "at most so many; 1000 if not said"),
        ]
        return [
            Route("GET", "/v1/whoami", self.whoami, "Who the control plane takes you for.",
                  gives={200: "user, role, groups, token, expires"}),
            Route("GET", "/v1/users", self.users, "Who was let in."),
            Route("POST", "/v1/users", self.add_user, "Let somebody in.",
                  takes={"name": "unlike any other", "role": roles, "groups": "list of names"},
                  gives={201: user[200]}),
            Route("POST", "/v1/users/{user}", self.change_user, "Change what somebody may do.",
                  takes={"role": roles, "groups": "list of names", "disabled": "let them in no more"}, gives=user),
            Route("DELETE", "/v1/users/{user}", self.remove_user, "Forget somebody and their tokens."),
            Route("GET", "/v1/tokens", self.tokens, "What is known of tokens; not what they are.",
                  [Parameter("user", "string", "whose; yours if not said"),
                   Parameter("all", "boolean", "everybody's")]),
            Route("POST", "/v1/tokens", self.create_token, "Make a token, which this answer alone shows.",
                  takes={"user": "whose; yours if not said", "note": "what it is for",
                         "expires": "a duration such as 90d, or never", "role": f"no more than this; {roles}"},
                  gives={201: f"token, {token[200]}"}),
            Route("POST", "/v1/tokens/{token}/revoke", self.revoke_token, "Refuse a token from now on.", takes={},
                  gives=token),
            Route("GET", "/v1/audit", self.audit, "Who asked for what change, the newest first.", trail,
                  gives={200: "lines: seq, time, user, role, token, from, verb, on, outcome; count of refusals alike"}),
        ]  # fmt: skip

    async def whoami(self, _request: web.Request) -> web.Response:
        """Who asks."""
        return as_json(await self.access.whoami())

    async def users(self, _request: web.Request) -> web.Response:
        """Everybody."""
        return as_json({"users": await self.access.users()})

    async def add_user(self, request: web.Request) -> web.Response:
        """Let in."""
        body = _body(await request.read(), {"name", "role", "groups"})
        name = _text(body, "name")
        if name is None:
            raise RequestError("name is missing")
        found = await self.access.add_user(name, _role(body) or Role.USER, _groups(body) or ())
        return as_json({"user": found}, status=201)

    async def change_user(self, request: web.Request) -> web.Response:
        """Change."""
        body = _body(await request.read(), {"role", "groups", "disabled"})
        disabled = body.get("disabled")
        if not isinstance(disabled, bool | None):
            raise RequestError("disabled must be true or false")
        name = request.match_info["user"]
        found = await self.access.change_user(name, role=_role(body), groups=_groups(body), disabled=disabled)
        return as_json({"user": found})

    async def remove_user(self, request: web.Request) -> web.Response:
        """Forget."""
        name = request.match_info["user"]
        await self.access.remove_user(name)
        return as_json({"removed": name})

    async def tokens(self, request: web.Request) -> web.Response:
        """List."""
        if asked.flag(request.query, "all"):
            check_owner("", "everybody's")
            return as_json({"tokens": await self.access.tokens(None)})
        user = request.query.get("user") or current().caller.user
        check_owner(user, "tokens")
        return as_json({"tokens": await self.access.tokens(user)})

    async def create_token(self, request: web.Request) -> web.Response:
        """Make."""
        body = _body(await request.read(), {"user", "note", "expires", "role"})
        user = _text(body, "user") or current().caller.user
        check_owner(user, f"for {user}")
        note = _text(body, "note") or ""
        if len(note) > 200:  # noqa: PLR2004 - a note is a line
            raise RequestError("note is longer than 200 letters")
        found = await self.access.create_token(user, note=note, lasts=_lasts(_text(body, "expires")), role=_role(body))
        return web.json_response({"token": found}, status=201, headers={"Cache-Control": "no-store"})

    async def revoke_token(self, request: web.Request) -> web.Response:
        """Refuse."""
        token = request.match_info["token"]
        check_owner(await self.access.token_owner(token), f"token {token}")
        return as_json({"token": await self.access.revoke_token(token)})

    async def audit(self, request: web.Request) -> web.Response:
        """The trail."""
        query = request.query
        lines = await self.access.audit(
            user=query.get("user", ""),
            verb=query.get("verb", ""),
            outcome=query.get("outcome", ""),
            since=asked.time(query, "since"),
            before=asked.whole(query, "before"),
            limit=min(asked.whole(query, "limit", 1000, least=1) or 1, MOST_LINES),
        )
        return as_json({"lines": lines})


def _body(text: bytes, known: set[str]) -> JSON:
    body = asked.body(text)
    unknown = body.keys() - known
    if unknown:
        raise RequestError(f"unknown keys: {', '.join(sorted(unknown))}", hint=f"known: {', '.join(sorted(known))}")
    return body


def _text(body: Mapping[str, Any], key: str) -> str | None:
    value = body.get(key)
    if not isinstance(value, str | None):
        raise RequestError(f"{key} must be a text")
    return value


def _role(body: Mapping[str, Any]) -> Role | None:
    word = _text(body, "role")
    if word is None:
        return None
    try:
        return Role(word)
    except ValueError:
        raise RequestError(f"there is no role {word!r}", hint=f"one of {', '.join(Role)}") from None


def _groups(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    groups = body.get("groups")
    if groups is None:
        return None
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise RequestError("groups must be a list of names")
    return tuple(dict.fromkeys(groups))


def _lasts(words: str | None) -> float | None:
    if words is None:
        return FIRST_EXPIRY
    if words == NEVER:
        return None
    try:
        seconds = parse_duration(words)
    except UnitError as error:
        raise RequestError(f"expires={words!r} is no duration: {error}", hint="such as 90d, or never") from None
    if not 0 < seconds <= _LONGEST:
        raise RequestError(f"expires={words!r} is out of range", hint="up to 3650d, or never")
    return seconds
