"""The HTTP server: docs/api.md over the verbs of service.py, in one asyncio loop of its own thread."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import threading
from collections.abc import Callable

from aiohttp import web

from .. import __version__
from ..jobs.errors import GpuschedError, StoreError
from .api.connection import factory
from .api.errors import errors
from .api.gate import Gate, is_loopback
from .api.handlers import Api
from .api.traffic import traffic_limits
from .job_output import LogSource
from .limits import Traffic
from .service import Service
from .tls import Served
from .transport import RELEASE

FLUSH_EVERY = 5.0
"""Seconds between two times that refused requests are written to the audit trail."""

log = logging.getLogger("gpusched.server")


def make_app(api: Api, token: str, *, loopback: bool) -> web.Application:
    """The application, to be served by anything that serves aiohttp."""
    gate = Gate(api.service, token, loopback=loopback)
    traffic = Traffic(api.service.limits)
    app = web.Application(
        middlewares=[errors, gate.middleware(), traffic_limits(traffic)], client_max_size=traffic.limits.body or 1 << 40
    )
    for route in api.routes():
        # A GET route of aiohttp answers HEAD too; snapshots have a HEAD of their own.
        app.router.add_route(route.method, route.path, route.handler)
    app.on_response_prepare.append(_say_release)
    return app


async def _say_release(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers[RELEASE] = __version__
    response.headers["Server"] = "gpusched"
    # Whatever a job wrote into an answer, no browser takes it for a page.
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"


class Server:
    """Serves until `stop`. Requests are never held up by the scheduler's thread, only answered by it.

    Args:
        service: the verbs.
        source: where output is read.
        host: address to listen at; beyond loopback every request needs a token.
        port: 0 = any free one.
        token: the owner's; empty = a new one is made.
        tls: the certificate to serve; None = plain HTTP.
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
        tls: Served | None = None,
        shutdown: Callable[[], None] = lambda: None,
    ) -> None:
        self.token = token or secrets.token_urlsafe(24)
        self.host = host
        self._tls = tls
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
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

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
        assert runner.server is not None, "it is set up"
        secured = None if self._tls is None else self._tls.context
        connections = await self._loop.create_server(
            factory(runner.server), sock=self._socket, ssl=secured, backlog=512
        )
        keeper = asyncio.create_task(self._keep())
        self._ready.set()
        await self._stop.wait()
        keeper.cancel()
        connections.close()
        await runner.cleanup()
        await self._flush(last=True)

    async def _keep(self) -> None:
        """Every few seconds, write down what the gate has seen and look at the certificate."""
        while True:
            await asyncio.sleep(FLUSH_EVERY)
            await self._flush()
            await self._renew()

    async def _renew(self) -> None:
        """Serve a certificate that was replaced."""
        try:
            if self._tls is not None and await asyncio.to_thread(self._tls.reload):
                log.info("%s was read anew", self._tls.certificate)
        except GpuschedError as error:
            log.error("%s; the certificate before it is served on", error)  # noqa: TRY400 - it says what it has to

    async def _flush(self, *, last: bool = False) -> None:
        try:
            await asyncio.to_thread(self._api.service.access.flush, last=last)
        except StoreError as error:
            log.warning("refused requests and the last use of tokens wait to be written: %s", error)


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
