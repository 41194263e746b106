"""The HTTP server: docs/api.md over the verbs of service.py, in one asyncio loop of its own thread."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Callable

from aiohttp import web

from ..jobs.errors import GpuschedError
from .api.errors import errors, guard, is_loopback
from .api.handlers import Api
from .job_output import LogSource
from .service import Service

MOST_BODY = 64 << 20
"""Bytes of a request's body; snapshots have a limit of their own."""


def make_app(api: Api, token: str, *, loopback: bool) -> web.Application:
    """The application, to be served by anything that serves aiohttp."""
    app = web.Application(middlewares=[errors, guard(token, loopback=loopback)], client_max_size=MOST_BODY)
    for route in api.routes():
        # A GET route of aiohttp answers HEAD too; snapshots have a HEAD of their own.
        app.router.add_route(route.method, route.path, route.handler)
    return app


class Server:
    """Serves until `stop`. Requests are never held up by the scheduler's thread, only answered by it.

    Args:
        service: the verbs.
        source: where output is read.
        host: address to listen at; beyond loopback every request needs the token.
        port: 0 = any free one.
        token: empty = a new one is made.
        shutdown: called when somebody asks the control plane to stop.
    """

    def __init__(
        self,
        service: Service,
        source: LogSource,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str = "",
        shutdown: Callable[[], None] = lambda: None,
    ) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self.host = host
        self._api = Api(service, source, shutdown)
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers, as seen from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - any address means this one too
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def start(self) -> None:
        """Begin to serve; returns when it answers."""
        self._thread.start()
        self._ready.wait()

    def stop(self, within: float = 5.0) -> None:
        """End; requests that are going on are cut off after a moment."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(within)
        self._socket.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(self) -> None:
        app = make_app(self._api, self.token, loopback=is_loopback(self.host))
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host.strip("[]"), port))
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise GpuschedError(
            f"cannot listen at {host}:{port}: {error.strerror or error}", hint="choose another --port, or 0 for any"
        ) from error
    return sock
