"""Whatever comes in over HTTP is answered with an error of its own: never a 500, never a wait, never much memory."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
from contextlib import closing, contextmanager

import pytest
from live_kit import spec_text

from gpusched.scheduler.api import connection

LONG = b"9" * 400


class Raw:
    """A connection on which anything may be said."""

    def __init__(self, plane, *, read: int | None = None) -> None:
        self.socket = socket.socket()
        if read is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", plane.server.port))
        self.head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {plane.server.token}\r\n".encode()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> bytes:
        """Everything until the other side closes."""
        said = b""
        try:
            while data := self.socket.recv(1 << 16):
                said += data
        except ConnectionResetError:
            pass  # it was closed with more of ours on its way
        return said

    def answer(self) -> tuple[int, dict, bytes]:
        """(status, error object or other JSON, head) of an answer after which it closes."""
        head, _, body = self.read().partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body), head

    def close(self) -> None:
        self.socket.close()


@contextmanager
def raw(plane, **options):
    with closing(Raw(plane, **options)) as made:
        yield made


def ask(plane, method: bytes, path: bytes, body: bytes = b"", *headers: bytes):
    """One request of raw bytes, and its answer."""
    with raw(plane) as line:
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        rest = b"".join(header + b"\r\n" for header in headers)
        line.send(
            b"%s %s HTTP/1.1\r\n%s%s%sConnection: close\r\n\r\n%s" % (method, path, line.head, length, rest, body)
        )
        return line.answer()


def spec(text: str) -> bytes:
    return json.dumps({"jobs": [{"spec": text}]}).encode()


HOSTILE = {
    "a path upwards": (404, b"GET", b"/v1/jobs/../../etc/passwd"),
    "a path upwards, escaped": (404, b"GET", b"/v1/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
    "a snapshot upwards": (422, b"PUT", b"/v1/snapshots/..%2f..%2fetc%2fpasswd", b"x"),
    "a snapshot that is none": (422, b"PUT", b"/v1/snapshots/" + b"0" * 64, b"x"),
    "a zero byte": (404, b"GET", b"/v1/jobs/%00"),
    "a path that is no text": (404, b"GET", b"/v1/jobs/%ff%fe"),
    "a job of 400 digits": (404, b"GET", b"/v1/jobs/" + LONG),
    "the last but very many": (404, b"GET", b"/v1/jobs/@~" + LONG),
    "a header in a node's name": (404, b"POST", b"/v1/nodes/%0d%0aSet-Cookie:x/cordon", b"{}"),
    "another method": (405, b"DELETE", b"/v1/jobs"),
    "TRACE": (405, b"TRACE", b"/v1/jobs"),
    "a method that nobody knows": (400, b"BREW", b"/v1/jobs"),
    "no JSON": (400, b"POST", b"/v1/jobs", b"jobs=1", b"Content-Type: application/x-www-form-urlencoded"),
    "JSON that is no object": (400, b"POST", b"/v1/jobs", b"[]"),
    "deep lists": (400, b"POST", b"/v1/jobs", b"[" * 200_000),
    "deep objects": (400, b"POST", b"/v1/jobs", b'{"jobs":' * 50_000),
    "deep lists in a spec": (400, b"POST", b"/v1/jobs", spec("[" * 100_000)),
    "not a number": (400, b"POST", b"/v1/queue-versions/rollback", b'{"version": NaN}'),
    "infinity in a spec": (400, b"POST", b"/v1/jobs", spec('{"run":"a","priority":Infinity}')),
    "400 digits": (400, b"POST", b"/v1/queue-versions/rollback", b'{"version": %s}' % LONG),
    "9,000 digits": (400, b"POST", b"/v1/queue-versions/rollback", b'{"version": %s}' % (b"9" * 9000)),
    "400 digits in a spec": (400, b"POST", b"/v1/jobs", spec('{"run":"a","max_duration":%s}' % ("9" * 400))),
    "no UTF-8": (400, b"POST", b"/v1/jobs", b'{"jobs": "\xff\xfe"}'),
    "a lone surrogate": (400, b"POST", b"/v1/jobs", spec('{"run":"a","name":"\\ud800"}')),
    "the same key twice": (400, b"POST", b"/v1/jobs", b'{"hold": true, "jobs": [], "jobs": []}'),
    "gzip that is none": (400, b"POST", b"/v1/jobs", b"none", b"Content-Encoding: gzip"),
    "an encoding that nobody knows": (400, b"POST", b"/v1/jobs", b"none", b"Content-Encoding: snappy"),
    "a number of 5,000 digits": (400, b"GET", b"/v1/jobs?limit=" + b"9" * 5000),
    "a time that no calendar has": (400, b"GET", b"/v1/usage?since=1e300"),
    "a time before all calendars": (400, b"GET", b"/v1/usage?until=0001-01-01T00:00:00%2B14:00"),
    "an event that cannot be": (400, b"GET", b"/v1/events?after=" + LONG),
    "a long header": (431, b"GET", b"/v1/status", b"", b"X: " + b"a" * 20_000),
    "many headers": (431, b"GET", b"/v1/status", b"", *[b"X%d: y" % number for number in range(2000)]),
    "a long URL": (431, b"GET", b"/v1/jobs/" + b"a" * 20_000),
}


@pytest.fixture(scope="module")
def hostile_plane(tmp_path_factory):
    from live_kit import Plane  # noqa: PLC0415 - beside the fixture's own

    plane = Plane(tmp_path_factory.mktemp("hostile") / "home")
    yield plane
    plane.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_is_answered_with_an_error_and_no_traceback(hostile_plane, name, caplog):
    wanted, *request = HOSTILE[name]
    status, said, head = ask(hostile_plane, *request)
    assert status == wanted, said
    assert said["error"]["code"]
    assert said["error"]["message"]
    assert "Traceback" not in caplog.text
    assert b"Set-Cookie" not in head
    assert b"aiohttp" not in head


def test_a_body_beyond_the_limit_is_refused_before_it_is_taken_in(hostile_plane):
    with raw(hostile_plane) as line:
        line.send(b"POST /v1/jobs HTTP/1.1\r\n%sContent-Length: 99999999999\r\n\r\n" % line.head)
        status, said, _ = line.answer()
    assert (status, said["error"]["code"]) == (413, "too_large")
    bomb = gzip.compress(b" " * (80 << 20))
    status, said, _ = ask(hostile_plane, b"POST", b"/v1/jobs", bomb, b"Content-Encoding: gzip")
    assert (status, said["error"]["message"]) == (413, "the request is larger than 64 MiB")


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /v1/jobs HTTP/1.1\r\nHEADContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1",
        b"POST /v1/jobs HTTP/1.1\r\nHEADContent-Length: 4\r\nContent-Length: 50\r\n\r\n{}  GET /v1/ HTTP/1.1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHEADContent-Length: -1\r\n\r\n",
        b"POST /v1/jobs HTTP/1.1\r\nHEADTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHEADX: a\r\n b\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nX Y: a\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_two_readers_could_read_differently_is_read_by_none(hostile_plane, request_, caplog):
    with raw(hostile_plane) as line:
        line.send(request_.replace(b"HEAD", line.head))
        said = line.read()
    assert said.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400")), said
    assert said.count(b"HTTP/1.") == 1
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"
    assert "Traceback" not in caplog.text


# Pages of other sites -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        b"Host: evil.example",
        b"Host: 127.0.0.1\r\nOrigin: https://evil.example",
        b"Host: 127.0.0.1\r\nOrigin: null",
        b"Host: 127.0.0.1\r\nOrigin: http://[",
        b"Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site",
        b"Host: localhost.evil.example",
    ],
)
def test_a_page_of_another_site_gets_no_answer_through_a_browser_on_this_machine(hostile_plane, headers):
    with raw(hostile_plane) as line:
        line.send(b"GET /v1/status HTTP/1.1\r\n%s\r\nConnection: close\r\n\r\n" % headers)
        status, said, head = line.answer()
    assert (status, said["error"]["code"]) == (401, "not_allowed")
    assert b"Access-Control" not in head


def test_a_change_takes_the_token_also_from_a_form_of_a_page(hostile_plane):
    body = b'{"jobs": []}'
    with raw(hostile_plane) as line:
        head = b"Host: 127.0.0.1\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        line.send(b"POST /v1/shutdown HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
        assert line.answer()[0] == 401
    assert not hostile_plane.stopped.is_set()


def test_no_answer_is_taken_for_a_page(hostile_plane):
    headers = hostile_plane.get("/v1/jobs").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Content-Type"].startswith("application/json")


# Slow ones ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch, plane_in):
    """A control plane that waits a second where others wait for many."""
    monkeypatch.setattr(connection, "BODY_WITHIN", 1.0)
    monkeypatch.setattr(connection.factory, "__kwdefaults__", {"silent": 1.0, "unread": 1.0})
    return plane_in()


@pytest.mark.parametrize("said", [b"", b"GET /v1/sta", b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: "])
def test_who_never_ends_a_request_is_cut_off(impatient, said):
    with raw(impatient) as line:
        line.send(said)
        begun = time.monotonic()
        line.read()
        assert time.monotonic() - begun < 8


def test_dribbling_does_not_buy_time(impatient):
    with raw(impatient) as line:
        line.send(b"GET /v1/status HTTP/1.1\r\nHost: a\r\nX: ")
        begun = time.monotonic()
        with pytest.raises(OSError, match=r".*"):  # noqa: PT012 - whichever write finds it out
            while time.monotonic() - begun < 15:
                line.send(b"a")
                line.socket.settimeout(0.1)
                try:
                    assert line.socket.recv(10) != b""
                except AssertionError:
                    raise ConnectionResetError from None
                except TimeoutError:
                    pass
        assert time.monotonic() - begun < 8


@pytest.mark.parametrize("path", [b"/v1/jobs", b"/v1/snapshots/" + b"0" * 64])
def test_a_body_that_does_not_come_is_not_waited_for(impatient, path):
    method = b"PUT" if b"snapshots" in path else b"POST"
    with raw(impatient) as line:
        line.send(b"%s %s HTTP/1.1\r\n%sContent-Length: 100\r\n\r\n{" % (method, path, line.head))
        begun = time.monotonic()
        head = line.read()
        assert head.startswith(b"HTTP/1.1 408")
        assert b'"error"' in head
        assert time.monotonic() - begun < 8
    folder = impatient.home / "snapshots"
    assert not folder.exists() or list(folder.iterdir()) == []


def test_who_leaves_an_answer_unread_is_cut_off(impatient):
    body = {"jobs": [{"spec": spec_text("x" * 2000)}] * 3000, "hold": True}
    assert impatient.post("/v1/jobs", body).status == 201
    with raw(impatient, read=4096) as line:
        line.send(b"GET /v1/jobs?limit=3000 HTTP/1.1\r\n%s\r\n" % line.head)
        end = time.monotonic() + 20
        while established(line.socket):
            assert time.monotonic() < end, "it is kept for who does not read"
            assert impatient.get("/v1/status").status == 200
            time.sleep(0.1)


def established(one: socket.socket) -> bool:
    """Whether the kernel still has a connection."""
    return struct.unpack("B", one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1))[0] == 1


def test_connections_that_say_nothing_leave_room_for_those_that_do(impatient):
    lines = [Raw(impatient) for _ in range(600)]
    try:
        begun = time.monotonic()
        assert impatient.get("/v1/status").status == 200
        assert impatient.wait(impatient.submit("true")["id"])["state"] == "SUCCEEDED"
        assert time.monotonic() - begun < 10
    finally:
        for line in lines:
            line.close()


def test_too_many_connections_are_told_so_and_room_comes_back(monkeypatch, plane_in):
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 20)
    plane = plane_in()
    lines = [Raw(plane) for _ in range(60)]
    refused = [line for line in lines if (line.socket.settimeout(0.2) or True) and answered(line)]
    assert len(refused) >= 40
    assert refused[0].answer()[1]["error"]["code"] == "busy"
    for line in lines:
        line.close()
    end = time.monotonic() + 10
    while plane.ask("GET", "/v1/status").status != 200:
        assert time.monotonic() < end


def answered(line: Raw) -> bool:
    try:
        return bool(line.socket.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
