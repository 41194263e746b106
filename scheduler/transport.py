"""HTTP with a control plane, by the standard library: one request, JSON or a stream of lines, and its errors."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlencode, urlsplit

from .. import __version__
from ..jobs import errors
from ..jobs.errors import GpuschedError, NotAllowedError, NotFoundError, Problem, SpecError, UnreachableError

JSON = dict[str, Any]

RELEASE = "Gpusched-Version"
"""The header in which each side says which release it is."""
START_HINT = "start it with `gpusched up`; `gpusched submit` and `gpusched run` start it by themselves"
_ERRORS: dict[str, type[GpuschedError]] = {
    kind.code: kind
    for kind in (
        GpuschedError,
        errors.TraceError,
        NotFoundError,
        errors.InfeasibleError,
        NotAllowedError,
        UnreachableError,
        errors.ConflictError,
        errors.StoreError,
        errors.PlanError,
    )
}
_NOT_WRITTEN = frozenset({errors.StandbyError.code, "lease_lost"})
"""Codes of an answer after which the same may be asked of another control plane: here nothing was done."""
FOLLOW = 20.0
"""Seconds that a new leader is waited for: a lease runs out in 6, and jobs are taken up at once."""
_BY_STATUS = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError, 409: errors.ConflictError}
_OK = range(200, 300)
_MISUNDERSTOOD = frozenset({"bad_request", "not_found", "error", errors.SpecError.code})
"""Codes of an answer that may mean that the two are of different releases."""
_PAUSE = 0.2
"""Seconds between two servers that are tried."""
_BLOCK = 1 << 16


PATIENCE = 60.0
"""Seconds for which a request is repeated that a busy control plane turned away."""
UNSURE = 20.0
"""Seconds for which a submission is repeated to whose first sending there was no answer."""


class _NobodyError(UnreachableError):
    """There was no connection, so nothing was asked."""


class Transport:
    """Requests to one server, or to whichever of several leads. Each has a connection of its own: threads may share it.

    A request that did nothing, because nobody listens or the control plane stands by, is made again where another may
    lead: at the URL that the answer names, or at the next one given. One that may have been carried out never is.

    Args:
        url: `http://HOST:PORT`, or `HOST:PORT`; several with commas between them.
        token: sent with every request; empty = none.
        timeout: seconds without a byte after which the server counts as unreachable.
        ca: file of the authorities that may sign a server's certificate; empty = the system's.
        pinned: the file is the server's very certificate.

    Attributes:
        patience: seconds for which a busy control plane is asked again, when it said that it may be.
        say: told in words what is being waited for.
    """

    def __init__(self, url: str, token: str, timeout: float, *, ca: str = "", pinned: bool = False) -> None:
        given = [one.strip() for one in url.split(",") if one.strip()] or [url]
        self._urls = [one if "://" in one else f"http://{one}" for one in given]
        self._secure = all(one.startswith("https:") for one in self._urls)
        self.url = self._urls[0]
        self.timeout = timeout
        self._token = token
        self._ca, self._pinned = ca, pinned
        self.patience = PATIENCE
        self.say: Callable[[str], None] = lambda _words: None

    @cached_property
    def _context(self) -> ssl.SSLContext:
        from .tls import client_context  # noqa: PLC0415 - for https alone

        return client_context(self._ca, pinned=self._pinned)

    def call(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        *,
        query: Sequence[tuple[str, str]] = (),
        timeout: float | None = None,
        key: str = "",
    ) -> Any:  # noqa: ANN401 - JSON
        """Send and take JSON. Raises what the server says is wrong, or UnreachableError.

        A busy server is asked again, for as long as `patience` says. With a `key`, which the server knows the request
        by, it is sent again too if no answer came: then it may have been carried out, and is not a second time.
        """
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        headers = {"Idempotency-Key": key} if key else {}
        begun, pause, sent = time.monotonic(), 0.25, False
        while True:
            try:
                with self.request(method, path, data, query=query, headers=headers, timeout=timeout) as response:
                    return self._json(self._read(response))
            except errors.BusyError as error:
                wait = error.retry_after
                if time.monotonic() + wait > begun + self.patience:
                    raise
                self.say(f"the control plane is busy; trying again in {wait:.0f} s")
            except UnreachableError as error:
                sent = sent or not isinstance(error, _NobodyError)
                if not key or not sent or time.monotonic() + pause > begun + UNSURE:
                    raise
                wait, pause = pause, min(2 * pause, 4.0)
                self.say("no answer came; asking again: it is not queued twice")
            time.sleep(wait)

    @contextmanager
    def request(
        self,
        method: str,
        path: str,
        body: Any = None,  # noqa: ANN401 - bytes or an open file, as http.client takes them
        *,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """One request and its response, the body of which is still to be read. Raises as `call` does."""
        sent = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            RELEASE: __version__,
            **(headers or {}),
        }
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        target = path + (f"?{urlencode(query)}" if query else "")
        end = time.monotonic() + FOLLOW
        while True:
            try:
                connection, response = self._try(method, target, body, sent, timeout or self.timeout)
                break
            except GpuschedError as error:
                if not isinstance(error, _NobodyError) and error.code not in _NOT_WRITTEN:
                    raise
                if not self._turn(getattr(error, "leader", "")) or time.monotonic() > end:
                    raise
                if hasattr(body, "seek"):
                    body.seek(0)
        try:
            yield response
        finally:
            connection.close()

    def _try(
        self,
        method: str,
        target: str,
        body: Any,  # noqa: ANN401 - bytes or an open file, as http.client takes them
        headers: Mapping[str, str],
        timeout: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask one server. The connection is open if it returns."""
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        connection = (
            http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=self._context)
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=timeout)
        )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise self._unreachable(error, _NobodyError) from error
        try:
            connection.request(method, parts.path.rstrip("/") + target, body, dict(headers))
            response = connection.getresponse()
            refused = None if response.status in _OK else self._error(response.status, self._read(response))
            _name_versions(refused, response.headers.get(RELEASE, ""))
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        except GpuschedError:
            connection.close()
            raise
        if refused is not None:
            connection.close()
            raise refused
        return connection, response

    def _turn(self, leader: str) -> bool:
        """Go on with the server that is said to lead, else with the next one. False = there is no other."""
        if leader and leader not in self._urls and (leader.startswith("https:") or not self._secure):
            self._urls.append(leader)  # in clear text only where we spoke so already
        if len(self._urls) == 1:
            return False
        at = self._urls.index(self.url)
        if leader in self._urls and leader != self.url:
            self.url = leader
        else:
            self.url = self._urls[(at + 1) % len(self._urls)]
        time.sleep(_PAUSE)
        return True

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error

    def lines(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """A stream line by line, as it comes. Raises UnreachableError if it is cut.

        Not by the response's own `readline`, which takes a stream that was cut for one that ended.
        """
        rest = b""
        while True:
            try:
                data = response.read1(_BLOCK)
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, http.client.IncompleteRead):
                    raise self.cut() from error
                raise self._unreachable(error) from error
            if not data:
                break
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def values(self, response: http.client.HTTPResponse) -> Iterator[JSON]:
        """A stream of JSON lines. Raises as `lines` does."""
        for line in self.lines(response):
            if line.strip():
                yield self._json(line)

    def cut(self) -> UnreachableError:
        """What is raised when a stream ends before its time."""
        return UnreachableError(f"the connection to {self.url} was cut", hint=START_HINT)

    def _json(self, data: bytes) -> Any:  # noqa: ANN401 - JSON
        try:
            return json.loads(data)
        except ValueError:
            raise self._foreign() from None

    def _unreachable(self, error: Exception, kind: type[UnreachableError] = UnreachableError) -> UnreachableError:
        if isinstance(error, TimeoutError):
            return kind(f"the control plane at {self.url} does not answer in time", hint="it may be busy: try again")
        if isinstance(error, ssl.SSLError):
            from .tls import why_not  # noqa: PLC0415 - for https alone

            why, hint = why_not(error, self.url)
            return kind(f"the control plane at {self.url} cannot be spoken to: {why}", hint=hint)
        if isinstance(error, ConnectionResetError | http.client.BadStatusLine) and self._speaks_tls():
            return kind(
                f"the control plane at {self.url} speaks HTTPS", hint=f"write https{self.url.removeprefix('http')}"
            )
        if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
            return self._foreign()
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return kind(f"the control plane at {self.url} does not answer: {why}", hint=START_HINT)

    def _speaks_tls(self) -> bool:
        from .tls import speaks_tls  # noqa: PLC0415 - for a rare mistake

        parts = urlsplit(self.url)
        return parts.scheme == "http" and speaks_tls(parts.hostname or "", parts.port or 80)

    def _foreign(self) -> UnreachableError:
        return UnreachableError(
            f"what answers at {self.url} is no gpusched control plane",
            hint="check the address: `gpusched config view --show-origin`",
        )

    def _error(self, status: int, data: bytes) -> GpuschedError:
        try:
            said = json.loads(data)["error"]
        except (ValueError, KeyError, TypeError):
            kind = _BY_STATUS.get(status)
            if kind is None:
                return self._foreign()
            return kind(f"{self.url} answers {status} {http.client.responses.get(status, '')}".rstrip())
        return error_of(said, status)


def _name_versions(error: GpuschedError | None, release: str) -> None:
    """A control plane that does not understand us may be of another release: say so."""
    if error is None or error.code not in _MISUNDERSTOOD or release == __version__:
        return
    said = f"this is gpusched {__version__}, the control plane's is {release or '0.1.0 or older'}"
    error.hint = f"{error.hint} ({said})" if error.hint else said


def error_of(said: JSON, status: int = 500) -> GpuschedError:
    """The error that an answer's `error` object stands for."""
    code, message, hint = str(said.get("code", "error")), str(said.get("message", "")), str(said.get("hint", ""))
    if code == SpecError.code:
        names = ("file", "line", "column", "key", "message", "hint")
        problems = [Problem(*(problem[name] for name in names)) for problem in said.get("problems", [])]
        return SpecError(problems or [Problem("job", 0, 0, "", message)], hint=hint)
    if code == errors.StandbyError.code:
        return errors.StandbyError(message, hint=hint, leader=str(said.get("leader") or ""))
    if code == errors.BusyError.code or status == 429:  # noqa: PLR2004 - Too Many Requests
        after = said.get("retry_after")
        return errors.BusyError(message, hint=hint, retry_after=after if isinstance(after, int | float) else 5.0)
    error = (_ERRORS.get(code) or _BY_STATUS.get(status, GpuschedError))(message, hint=hint)
    error.code = code
    return error
