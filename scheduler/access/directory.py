"""A copy of users and tokens in memory, never older than a second when it is asked."""

from __future__ import annotations

import asyncio
import time

from ...jobs.errors import NotAllowedError
from ..store.people import People, people_version, read_people
from ..store.sql import SqlStore
from .model import Caller, Role, Token
from .tokens import id_of, matches

FRESH = 1.0
"""Seconds after which the copy is compared with the database again: so long a token that was revoked through another
control plane still works here."""

LOGIN = "ask an admin for a token, then `gpusched login`; on the control plane's own machine its owner needs none"


class UnknownCallerError(NotAllowedError):
    """There is no token, or one that is not good (any more)."""


class Directory:
    """Who holds which token.

    Args:
        store: where users and tokens are kept. Any control plane on it may change them.
    """

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self._lock: asyncio.Lock | None = None
        self._checked = float("-inf")
        self.people = People()

    def reload(self) -> None:
        """Compare with the database, and read it anew if it is another.

        Raises:
            StoreError: it cannot be read.
        """
        begun = time.monotonic()
        with self._store.reader() as connection:
            if people_version(connection) != self.people.version:
                self.people = read_people(connection)
        self._checked = begun

    async def refresh(self) -> None:
        """Have a copy that is fresh. An older one is not used: it may still have what was revoked.

        Raises:
            StoreError: the database cannot be read.
        """
        if time.monotonic() - self._checked < FRESH:
            return
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if time.monotonic() - self._checked >= FRESH:
                await asyncio.to_thread(self.reload)

    def groups_of(self, name: str) -> tuple[Role, tuple[str, ...]]:
        """Role and groups of a user by name, as of the last refresh; who is not known is a user without groups."""
        user = self.people.users.get(name)
        return (Role.USER, ()) if user is None else (user.role, user.groups)

    async def caller(self, text: str, now: float, address: str) -> Caller:
        """Who showed this token.

        Args:
            text: the token.
            now: UTC seconds.
            address: where from.

        Raises:
            UnknownCallerError: it is not good; why is said only to who has the whole token.
            StoreError: the database cannot be read.
        """
        name = id_of(text)
        if name:
            await self.refresh()
        token = self.people.tokens.get(name)
        if not matches(text, None if token is None else token.digest) or token is None:
            raise UnknownCallerError("the token is not the control plane's", hint=LOGIN)
        return self._good(token, now, address)

    def _good(self, token: Token, now: float, address: str) -> Caller:
        user = self.people.users.get(token.user)
        if token.revoked is not None:
            raise UnknownCallerError(f"token {token.id} was revoked", hint=LOGIN)
        if token.expires is not None and token.expires <= now:
            raise UnknownCallerError(f"token {token.id} has expired", hint=LOGIN)
        if user is None or user.disabled:
            raise UnknownCallerError(f"user {token.user} is disabled", hint="ask an admin; running jobs go on")
        role = user.role if token.role is None or token.role.covers(user.role) else token.role
        return Caller(user.name, role, user.groups, token.id, address, token.expires)

    def still(self, caller: Caller, now: float) -> bool:
        """Whether who was let in would be let in again: asked while a long answer goes out."""
        token = self.people.tokens.get(caller.token)
        if token is None or token.revoked is not None or (token.expires is not None and token.expires <= now):
            return False
        user = self.people.users.get(token.user)
        return user is not None and not user.disabled
