"""The middleware that refuses requests beyond the limits, before anything of them is read into memory."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from ..access.asking import ASKING
from ..limits import Traffic
from .connection import take_body
from .errors import TooLargeError

_STREAMED = "/v1/snapshots/"
"""Where bodies are not read as a whole."""
_HEADERS = 1 << 12
"""Bytes that a request stands for beside its body."""


def traffic_limits(traffic: Traffic) -> Middleware:
    """Middleware that lets in what there is room for. It comes after the one that knows the caller."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        asking = ASKING.get()
        user = (request.remote or "") if asking is None else asking.caller.user
        traffic.pace(user)
        if is_stream(request):
            with traffic.stream(user):
                return await handler(request)
        with traffic.request(_HEADERS + _size(request, traffic.limits.body)):
            if not request.path.startswith(_STREAMED):
                await take_body(request)
            return await handler(request)

    return check


def is_stream(request: web.Request) -> bool:
    """Whether a request stays open for as long as there may be something to say."""
    if request.method != "GET":
        return False
    path = request.path
    return path.endswith("/wait") or (path.endswith(("/logs", "/events")) and "follow" in request.query)


def _size(request: web.Request, most: int) -> int:
    """Bytes that a body will take in memory; one that does not say counts as the largest."""
    if request.path.startswith(_STREAMED):
        return 2 << 20  # it goes to disk as it comes
    length = request.content_length
    if length is None:
        return most if request.body_exists else 0
    if most and length > most:
        raise TooLargeError(f"the request is larger than {most >> 20} MiB", hint="submit in parts")
    return length


async def send(response: web.StreamResponse, data: bytes, stall: float) -> None:
    """Write to a stream. A reader that leaves what was sent unread for too long is cut off.

    Little is kept for it meanwhile: the next line is read from the journal when this one is on its way.

    Raises:
        ConnectionResetError: it was cut off, or went away.
    """
    try:
        await asyncio.wait_for(response.write(data), stall or None)
    except TimeoutError:
        raise ConnectionResetError("the reader of a stream did not read") from None
