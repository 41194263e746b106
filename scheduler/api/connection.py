"""A connection to the server before any request on it is understood.

How many there may be, how long one may be silent, and what is answered to what is no HTTP at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import socket
import struct
from collections.abc import Callable

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong

SILENT_WITHIN = 30.0
"""Seconds from the opening of a connection, or from the last answer on it, until the next headers are here."""
BODY_WITHIN = 30.0
"""Seconds that a body may take whatever its size; beyond that it has to come at SLOWEST."""
SLOWEST = 64 << 10
"""Bytes of a body a second."""
UNREAD_WITHIN = 60.0
"""Seconds after which is cut off who has read nothing more of an answer."""
KERNEL_KEEPS = 256 << 10
"""Bytes of an answer that the kernel takes before its reader does."""
MOST_CONNECTIONS = 8192
KEPT_FILES = 256
"""File descriptors that connections leave to the database, to snapshots and to the gateway."""

log = logging.getLogger("gpusched.server")


def most_connections() -> int:
    """Connections for which there are file descriptors, after this process was given as many as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + KEPT_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(min(MOST_CONNECTIONS, soft - KEPT_FILES), 16)


def problem(code: str, message: str, hint: str = "") -> bytes:
    """An error object, for answers that no route gives."""
    return json.dumps({"error": {"code": code, "message": message, "hint": hint}}).encode()


class Connection(web.RequestHandler):
    """One connection. Refuses itself when there are too many; answers in JSON whatever comes in."""

    __slots__ = ("_clock", "_left", "_unread", "_watch", "most")

    def __init__(
        self, manager: web.Server, most: int, loop: asyncio.AbstractEventLoop, silent: float, unread: float
    ) -> None:
        # The timer runs from the opening of the connection, and anew from each answer.
        super().__init__(manager, loop=loop, access_log=None, keepalive_timeout=silent, lingering_time=2.0)  # type: ignore[arg-type]  # None turns the log off
        self.most = most
        self._clock = loop
        self._unread = unread
        self._watch: asyncio.TimerHandle | None = None
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or say that there is no room."""
        manager = self._manager
        if manager is not None and len(manager.connections) >= self.most and isinstance(transport, asyncio.Transport):
            body = problem("busy", f"{self.most:,} connections are open", "ask again in a moment")
            head = f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: {len(body)}\r\n"
            transport.write(f"{head}Content-Type: application/json\r\nConnection: close\r\n\r\n".encode() + body)
            transport.close()
            return
        super().connection_made(transport)
        # So that what is not read shows here, rather than fill megabytes of the kernel's.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_KEEPS)

    def pause_writing(self) -> None:
        """More waits to be read than is kept for anybody: from now on it has to become less."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It was read."""
        super().resume_writing()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def force_close(self) -> None:
        """Close, and do not wait long for the last of it to be read."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self._clock.call_later(self._unread, _cut, self.transport)
        super().force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _watch_reader(self) -> None:
        transport = self.transport
        if transport is None:
            return
        left = transport.get_write_buffer_size()
        if self._watch is not None and left >= self._left:
            _cut(transport)
            return
        self._left = left
        self._watch = self._clock.call_later(self._unread, self._watch_reader)

    def log_exception(self, *args: object, **kw: object) -> None:
        """Faults of ours are logged; a body that is damaged was answered, and is none."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's words repeat what came in, whatever that is
    ) -> web.StreamResponse:
        """What came in is no request, or a fault of ours was found too late for the middleware."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer was sent already")
        if status >= 500:  # noqa: PLR2004 - the server's own
            log.error("a request from %s failed", request.remote, exc_info=exc)
            body = problem("error", "the control plane failed", "its log says more")
        elif isinstance(exc, LineTooLong):
            status, body = 431, problem("too_large", "the URL or a header is longer than 8 KiB")
        elif "Too many headers" in str(exc):
            status, body = 431, problem("too_large", "there are more than 128 headers")
        elif isinstance(exc, BadHttpMethod):
            body = problem("bad_request", "that is no HTTP request, or of a method that nobody knows")
        else:
            body = problem("bad_request", f"that is no good HTTP request: {_reason(exc)}")
        headers = {"Server": "gpusched", "X-Content-Type-Options": "nosniff"}
        response = web.Response(status=status, body=body, content_type="application/json", headers=headers)
        response.force_close()
        return response


def _cut(transport: asyncio.Transport) -> None:
    """End a connection at once: neither we nor the kernel keep what was not read."""
    one = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it ended by itself
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _reason(error: BaseException | None) -> str:
    """What is wrong with a request, without a part of it."""
    words = str(getattr(error, "message", "") or "malformed").splitlines()[0]
    return words.split(":")[0].strip()[:100]


def factory(
    server: web.Server, *, silent: float = SILENT_WITHIN, unread: float = UNREAD_WITHIN
) -> Callable[[], asyncio.Protocol]:
    """Makes the protocol of each connection."""
    loop, most = asyncio.get_running_loop(), most_connections()
    return lambda: Connection(server, most, loop, silent, unread)


async def piece(content: StreamReader) -> bytes:
    """The next part of a body that is not kept in memory; empty at its end.

    Raises:
        web.HTTPRequestTimeout: none comes.
    """
    try:
        async with asyncio.timeout(BODY_WITHIN):
            return await content.readany()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


async def take_body(request: web.Request) -> None:
    """Read a body, so that whoever sends it slowly holds up nobody but themselves, and not for long.

    Raises:
        web.HTTPRequestTimeout: it does not come.
    """
    try:
        async with asyncio.timeout(BODY_WITHIN + (request.content_length or 0) / SLOWEST):
            await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
