"""Who a request is from, whether they may, and its line of the audit trail: what every route passes through.

Beyond loopback everything takes a token. On loopback so does every change; a question without one is answered if the
process that asks is of the control plane's own user, which the kernel tells: on a laptop nothing has to be set up, and
on a shared machine the others see nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ...jobs.errors import GpuschedError, StoreError
from ..access.asking import ASKING, Asking, current, short
from ..access.directory import LOGIN, UnknownCallerError
from ..access.model import NO_TOKEN, OWNER_TOKEN, Caller, Role
from ..access.peers import is_ours, uid_of_peer
from ..access.permissions import Rule, require, rule_of
from ..service import Service

QUESTIONS = frozenset({"GET", "HEAD"})
"""Methods that change nothing."""
_THINGS = {"name": "node", "queue": "queue", "user": "user", "token": "token", "sha256": "snapshot"}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Gate:
    """The middleware.

    Args:
        service: the verbs; its `access` knows users and tokens.
        token: the owner's: of whoever can read the control plane's state directory.
        loopback: whether only this machine can reach the server.
    """

    def __init__(self, service: Service, token: str, *, loopback: bool) -> None:
        self._service = service
        self._access = service.access
        self._token = token.encode()
        self._loopback = loopback

    def middleware(self) -> Middleware:
        """As aiohttp takes it."""

        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._pass(request, handler)

        return gate

    async def _pass(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        route = request.match_info.route.resource
        rule = rule_of(request.method, "" if route is None else route.canonical)
        try:
            caller = await self._caller(request)
        except UnknownCallerError as error:
            if route is not None:
                self._refused(request, rule, error)
            raise
        if request.match_info.http_exception is not None:
            return await handler(request)  # no such route: which ones there are is for those who are let in
        asking = Asking(caller, rule, _target(request))
        mark = ASKING.set(asking)
        try:
            require(rule, caller, what=asking.target)
            await self._look_at_job(request, asking)
            answer = await handler(request)
            if request.method not in QUESTIONS:
                await self._access.note()
        except (GpuschedError, web.HTTPException) as error:
            if request.method not in QUESTIONS:
                outcome = error.code if isinstance(error, GpuschedError) else str(error.status)
                self._access.refused(asking.line(outcome=outcome))
            raise
        finally:
            ASKING.reset(mark)
        return answer

    async def _look_at_job(self, request: web.Request, asking: Asking) -> None:
        """Whose the job is that it is about. From here on the request is about that very job, by its id."""
        reference = request.match_info.get("ref")
        if reference is None or (asking.rule.others is None and request.method in QUESTIONS):
            return
        find = self._service.find if request.method in QUESTIONS else self._service.meant
        job = await find(reference, request.query.get("user"))
        asking.target = f"job {job.id}"
        require(asking.rule, asking.caller, owner=job.user, what=asking.target)
        request.match_info["ref"] = str(job.id)

    # Who --------------------------------------------------------------------------------------------------------------

    async def _caller(self, request: web.Request) -> Caller:
        given = request.headers.get("Authorization", "")
        scheme, _, token = given.partition(" ")
        token = token.strip()
        if not token.isascii():
            raise UnknownCallerError("the token is not one of ours", hint=LOGIN)
        address = request.remote or ""
        if given:
            if scheme.lower() != "bearer":
                raise UnknownCallerError("the Authorization header is not `Bearer TOKEN`", hint=LOGIN)
            if hmac.compare_digest(token.encode(), self._token):
                return Caller(self._access.owner, Role.ADMIN, (), OWNER_TOKEN, address)
            return await self._access.caller(token, address)
        if request.method not in QUESTIONS or not self._loopback:
            raise UnknownCallerError(f"{request.method} {short(request.path)} needs a token", hint=LOGIN)
        # A web page could have a browser ask, under a name of its own or for itself.
        if not is_loopback(_origin(request)) or request.headers.get("Sec-Fetch-Site") == "cross-site":
            raise UnknownCallerError("a page of another site may not ask without a token", hint=LOGIN)
        if not is_loopback((request.url.host or "").lower()):
            raise UnknownCallerError(
                f"{short(request.url.host or '')} is not an address of this machine's own", hint=LOGIN
            )
        if not await self._of_owner(request):
            raise UnknownCallerError("this control plane is another user's: it takes a token", hint=LOGIN)
        return Caller(self._access.owner, Role.ADMIN, (), NO_TOKEN, address)

    async def _of_owner(self, request: web.Request) -> bool:
        """Whether the process that asks is of our own user. Asked once a connection."""
        transport = request.transport
        if transport is None:
            return False
        here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        if not here or not there:
            return False
        return is_ours(await asyncio.to_thread(uid_of_peer, here[:2], there[:2]))

    def _refused(self, request: web.Request, rule: Rule, error: UnknownCallerError) -> None:
        """A line for who could not be told: changes, and tokens that are not good."""
        if request.method in QUESTIONS and "Authorization" not in request.headers:
            return
        nobody = Asking(Caller("", Role.VIEWER, (), "", request.remote or ""), rule, _target(request))
        self._access.refused({**nobody.line(outcome=error.code), "role": ""})


def _origin(request: web.Request) -> str:
    """The host of the page that has a browser ask; no page counts as one of this machine's."""
    try:
        return urlsplit(request.headers.get("Origin", "http://localhost")).hostname or ""
    except ValueError:
        return ""


async def still_allowed(service: Service) -> None:
    """That a long answer still goes to somebody who would be let in.

    Raises:
        UnknownCallerError: the token was revoked or has ended, or its user is disabled.
    """
    asking = current()
    if asking.caller.token in {OWNER_TOKEN, NO_TOKEN}:
        return
    directory = service.access.directory
    try:
        await directory.refresh()
    except StoreError:
        return  # nobody can be refused meanwhile either; the next piece asks again
    if not directory.still(asking.caller, service.now()):
        raise UnknownCallerError("the token is not good any more", hint=LOGIN)


def _target(request: web.Request) -> str:
    found = request.match_info
    return next((f"{thing} {short(found[key])}" for key, thing in _THINGS.items() if key in found), "")
