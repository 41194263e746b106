"""HTTP with a control plane, by the standard library: one request, JSON or a stream of lines, and its errors."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..jobs import errors
from ..jobs.errors import GpuschedError, NotAllowedError, NotFoundError, Problem, SpecError, UnreachableError

JSON = dict[str, Any]

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
_BY_STATUS = {401: NotAllowedError, 403: NotAllowedError, 404: NotFoundError, 409: errors.ConflictError}
_OK = range(200, 300)
_BLOCK = 1 << 16


class Transport:
    """Requests to one server. Each has a connection of its own, so several threads may ask at once.

    Args:
        url: `http://HOST:PORT`, or `HOST:PORT`.
        token: sent with every request; empty = none.
        timeout: seconds without a byte after which the server counts as unreachable.
    """

    def __init__(self, url: str, token: str, timeout: float) -> None:
        self.url = url if "://" in url else f"http://{url}"
        self.timeout = timeout
        self._token = token
        parts = urlsplit(self.url)
        self._host, self._port, self._secure = parts.hostname or "", parts.port, parts.scheme == "https"
        self._base = parts.path.rstrip("/")

    def call(
        self,
        method: str,
        path: str,
        body: JSON | None = None,
        *,
        query: Sequence[tuple[str, str]] = (),
        timeout: float | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """Send and take JSON. Raises what the server says is wrong, or UnreachableError."""
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        with self.request(method, path, data, query=query, timeout=timeout) as response:
            return self._json(self._read(response))

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
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout or self.timeout)
        sent = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        target = f"{self._base}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            try:
                connection.request(method, target, body, sent)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
            if response.status not in _OK:
                raise self._error(response.status, self._read(response))
            yield response
        finally:
            connection.close()

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

    def _unreachable(self, error: Exception) -> UnreachableError:
        if isinstance(error, TimeoutError):
            return UnreachableError(
                f"the control plane at {self.url} does not answer in time", hint="it may be busy: try again"
            )
        if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
            return self._foreign()
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return UnreachableError(f"the control plane at {self.url} does not answer: {why}", hint=START_HINT)

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


def error_of(said: JSON, status: int = 500) -> GpuschedError:
    """The error that an answer's `error` object stands for."""
    code, message, hint = str(said.get("code", "error")), str(said.get("message", "")), str(said.get("hint", ""))
    if code == SpecError.code:
        names = ("file", "line", "column", "key", "message", "hint")
        problems = [Problem(*(problem[name] for name in names)) for problem in said.get("problems", [])]
        return SpecError(problems or [Problem("job", 0, 0, "", message)], hint=hint)
    error = (_ERRORS.get(code) or _BY_STATUS.get(status, GpuschedError))(message, hint=hint)
    error.code = code
    return error
