"""The verbs on users, tokens and the trail, and who a caller is."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from ...jobs.errors import ConflictError, NotFoundError, StoreError
from ...jobs.events import Event, Kind
from ..controller import Controller
from ..desk import Desk, RequestError
from ..store.audit import audit_lines
from ..store.people import (
    add_token,
    list_tokens,
    list_users,
    note_use,
    put_user,
    remove_user,
    revoke_token,
    token_counts,
)
from ..store.sql import SqlStore
from ..views import JSON, iso
from .asking import ASKING, current
from .directory import Directory
from .model import Caller, Role, Token, User
from .permissions import require
from .refusals import Refusals
from .tokens import new_token

log = logging.getLogger("gpusched.access")

USE_EVERY = 30.0
"""Seconds between two times that the last use of tokens is written down."""
FIRST_EXPIRY = 90 * 86400.0
"""Seconds that a token is good for if nothing else is said."""
_NAME = re.compile(r"(?![0-9]+\Z)[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Access(Desk):
    """Users, tokens, trail.

    Args:
        controller: the loop. store: the database.
        owner: whose control plane this is: an admin by the token in its state directory, whatever the table says.
    """

    def __init__(self, controller: Controller, store: SqlStore, owner: str) -> None:
        super().__init__(controller, store)
        self.owner = owner
        self.directory = Directory(store)
        self._lock = threading.Lock()
        self._refusals = Refusals(time.monotonic())
        self._uses: dict[str, tuple[float, str]] = {}
        self._uses_written = time.monotonic()

    # Who --------------------------------------------------------------------------------------------------------------

    async def caller(self, token: str, address: str) -> Caller:
        """Who showed a token that is not the owner's. Raises UnknownCallerError, StoreError."""
        now = self.now()
        found = await self.directory.caller(token, now, address)
        self._uses[found.token] = (now, address)
        return found

    async def whoami(self) -> JSON:
        """Who asks."""
        caller = current().caller
        return {
            "user": caller.user,
            "role": caller.role.value,
            "groups": list(caller.groups),
            "token": caller.token,
            "expires": iso(caller.until),
        }

    # Users ------------------------------------------------------------------------------------------------------------

    async def users(self) -> list[JSON]:
        """Everybody, by name."""
        now = self.now()
        found, counts = await self.read(lambda connection: (list_users(connection), token_counts(connection, now)))
        return [user_view(user, counts.get(user.name, 0)) for user in found]

    async def add_user(self, name: str, role: Role, groups: tuple[str, ...]) -> JSON:
        """Let somebody in.

        Raises:
            RequestError: a name that is none.
            ConflictError: there is such a user already.
        """
        _check_name(name, "user")
        for group in groups:
            _check_name(group, "group")
        now = self.now()
        user = User(name, role, groups, created=now, changed=now)

        def write(connection: Connection) -> None:
            if any(other.name == name for other in list_users(connection)):
                raise ConflictError(
                    f"there is a user {name} already", hint=f"`gpusched users role {name} ROLE` changes what they may"
                )
            put_user(connection, user)

        await self._write(write, f"user {name} as {role}")
        return user_view(user, 0)

    async def change_user(
        self,
        name: str,
        *,
        role: Role | None = None,
        groups: tuple[str, ...] | None = None,
        disabled: bool | None = None,
    ) -> JSON:
        """Give a user another role or other groups, or let them in no more (or again). At once.

        Raises:
            NotFoundError: there is no such user.
        """
        for group in groups or ():
            _check_name(group, "group")
        changes: dict[str, Any] = {"role": role, "groups": groups, "disabled": disabled}
        changes = {key: value for key, value in changes.items() if value is not None}
        now, changed = self.now(), []

        def write(connection: Connection) -> None:
            user = next((other for other in list_users(connection) if other.name == name), None)
            if user is None:
                raise NotFoundError(f"there is no user {name!r}", hint="`gpusched users list` shows them")
            user = replace(user, changed=now, **changes)
            put_user(connection, user)
            changed.append((user, token_counts(connection, now).get(name, 0)))

        words = [f"role {role}"] * (role is not None)
        words += [f"groups {','.join(groups or ()) or 'none'}"] * (groups is not None)
        words += ["disabled" if disabled else "enabled"] * (disabled is not None)
        await self._write(write, f"user {name}: {', '.join(words)}")
        return user_view(*changed[0])

    async def remove_user(self, name: str) -> None:
        """Forget a user and their tokens. Their jobs stay as they are.

        Raises:
            NotFoundError: there is no such user.
        """
        await self._write(lambda connection: remove_user(connection, name), f"user {name}")

    # Tokens -----------------------------------------------------------------------------------------------------------

    async def tokens(self, user: str | None) -> list[JSON]:
        """Tokens of one user, or of all: what is known of them, which is not what they are."""
        now = self.now()
        return [token_view(found, now) for found in await self.read(lambda connection: list_tokens(connection, user))]

    async def create_token(
        self, user: str, *, note: str = "", lasts: float | None = FIRST_EXPIRY, role: Role | None = None
    ) -> JSON:
        """Make a token, which the answer shows this one time.

        Args:
            user: whose.
            note: what it is for.
            lasts: seconds; None = until it is revoked. One that a token makes does not outlive that token, unless an
                admin's.
            role: it carries no more than this; None = all that its user may.

        The owner becomes an admin of the table with their first one: for other machines than the control plane's.

        Raises:
            NotFoundError: there is no such user.
        """
        caller, now = current().caller, self.now()
        expires = None if lasts is None else now + lasts
        if not caller.role.covers(Role.ADMIN) and caller.until is not None:
            expires = caller.until if expires is None else min(expires, caller.until)
        if not caller.role.covers(Role.ADMIN) and (role is None or not caller.role.covers(role)):
            role = caller.role  # a token that was made to carry less cannot make one that carries more
        made = new_token()
        token = Token(made.id, user, made.digest, role, note, now, expires)

        def write(connection: Connection) -> None:
            known = any(other.name == user for other in list_users(connection))
            if not known and user == self.owner:
                put_user(connection, User(user, Role.ADMIN, created=now, changed=now))
            elif not known:
                raise NotFoundError(
                    f"there is no user {user!r}", hint=f"an admin's `gpusched users add {user}` adds them"
                )
            add_token(connection, token)

        await self._write(write, f"token {made.id} of {user}")
        return {**token_view(token, now), "token": made.text}

    async def token_owner(self, token: str) -> str:
        """Whose a token is.

        Raises:
            NotFoundError: there is no such token.
        """
        found = await self.read(lambda connection: [one for one in list_tokens(connection) if one.id == token])
        if not found:
            raise NotFoundError(f"there is no token {token!r}", hint="`gpusched token list` shows them")
        return found[0].user

    async def revoke_token(self, token: str) -> JSON:
        """Refuse a token from now on.

        Raises:
            NotFoundError: there is no such token.
        """
        now = self.now()
        owner = await self.token_owner(token)
        await self._write(lambda connection: revoke_token(connection, token, now), f"token {token} of {owner}")
        return next(one for one in await self.tokens(owner) if one["id"] == token)

    async def _write(self, write: Callable[[Connection], None], target: str) -> None:
        """In the loop's thread, so that only who holds the lease does; with its line of the trail, or not at all."""
        asking, store = ASKING.get(), self.store

        def change(_engine: object) -> None:
            with store.writer() as connection:
                write(connection)
                if asking is not None:
                    store.append(connection, [asking.event(self.now(), target)])
            self.directory.reload()

        await asyncio.wrap_future(self._inbox.question(change))

    # The trail --------------------------------------------------------------------------------------------------------

    async def audit(
        self,
        *,
        user: str = "",
        verb: str = "",
        outcome: str = "",
        since: float | None = None,
        before: int | None = None,
        limit: int = 1000,
    ) -> list[JSON]:
        """Lines of the trail, the newest first."""
        found = await self.read(
            lambda connection: audit_lines(
                connection, user=user, verb=verb, outcome=outcome, since=since, before=before, limit=limit
            )
        )
        return [{"seq": line.seq, "time": iso(line.time), **(line.data or {})} for line in found]

    async def note(self) -> None:
        """Write down what is being asked for, where nothing that it changes is written."""
        asking = ASKING.get()
        if asking is not None and not asking.settled:
            await asyncio.wrap_future(self._inbox.note(asking.event(self.now())))

    def refused(self, line: dict[str, Any]) -> None:
        """Something was asked for and not done. Written soon, together with others that say the same."""
        with self._lock:
            self._refusals.add(line, self.now())

    def flush(self, *, last: bool = False) -> None:
        """Write down refusals and the last use of tokens, as far as they are due. Called in a thread of its own.

        Raises:
            StoreError: it cannot be written now; the next turn tries again.
        """
        if not self.controller.figures.leader:
            return
        now = time.monotonic()
        with self._lock:
            lines = self._refusals.due(now)
        uses: dict[str, tuple[float, str]] = {}
        if last or now - self._uses_written >= USE_EVERY:
            uses, self._uses = self._uses, {}
            self._uses_written = now
        if not lines and not uses:
            return
        try:
            with self.store.writer() as connection:
                self.store.append(connection, [Event(when, Kind.AUDIT, 0, 0, line) for when, line in lines])
                note_use(connection, [(token, *use) for token, use in uses.items()])
        except StoreError:
            with self._lock:
                for when, line in lines:
                    self._refusals.add(line, when, line.pop("count"))
            raise


def check_owner(owner: str, what: str) -> None:
    """That the caller may do what is being asked for with something of `owner`'s. Raises ForbiddenError."""
    asking = ASKING.get()
    if asking is not None:
        require(asking.rule, asking.caller, owner=owner, what=what)


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{name!r} is no name of a {what}", hint="letters, digits and . _ -, up to 63 of them, such as ann"
        )


def user_view(user: User, tokens: int) -> JSON:
    """A user."""
    return {
        "name": user.name,
        "role": user.role.value,
        "groups": list(user.groups),
        "disabled": user.disabled,
        "tokens": tokens,
        "created": iso(user.created),
        "changed": iso(user.changed),
    }


def token_view(token: Token, now: float) -> JSON:
    """A token without what it is."""
    expired = token.expires is not None and token.expires <= now
    return {
        "id": token.id,
        "user": token.user,
        "state": "revoked" if token.revoked is not None else "expired" if expired else "good",
        "role": None if token.role is None else token.role.value,
        "note": token.note,
        "created": iso(token.created),
        "expires": iso(token.expires),
        "revoked": iso(token.revoked),
        "last_used": iso(token.last_used),
        "last_from": token.last_from,
    }
