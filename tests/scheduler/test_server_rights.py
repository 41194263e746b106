"""Who may ask what, and what a malformed request is told."""

import http.client
import json
import re

import pytest
from live_kit import spec_text

from gpusched import __version__
from gpusched.scheduler.access.permissions import PERMISSIONS


def test_reads_on_loopback_need_no_token_and_writes_do(plane):
    assert plane.get("/v1/jobs", token="").status == 200
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text()}]}, token="")
    assert (reply.status, reply.json["error"]["code"]) == (401, "not_allowed")
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert plane.post("/v1/shutdown", token="").status == 401
    assert not plane.stopped.is_set()


def test_a_wrong_token_is_refused_even_for_reads(plane):
    reply = plane.get("/v1/jobs", token="wrong")  # noqa: S106 - it is wrong
    assert (reply.status, reply.json["error"]["message"]) == (401, "the token is not the control plane's")


def test_beyond_loopback_everything_needs_the_token(plane_in):
    plane = plane_in(host="0.0.0.0")  # noqa: S104 - what is tested
    for path in ("/v1/jobs", "/v1/status", "/v1/openapi.json"):
        reply = _ask(plane, "GET", path)
        assert reply.status == 401, path
    assert _ask(plane, "GET", "/v1/jobs", {"Authorization": f"Bearer {plane.server.token}"}).status == 200


def test_a_web_page_that_rebinds_its_name_to_loopback_reads_nothing(plane):
    reply = _ask(plane, "GET", "/v1/jobs", {"Host": "evil.example.com"})
    assert reply.status == 401
    assert _ask(plane, "GET", "/v1/jobs", {"Host": f"localhost:{plane.server.port}"}).status == 200


def _ask(plane, method, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", plane.server.port, timeout=10)
    connection.request(method, path, headers=headers or {})
    reply = connection.getresponse()
    reply.read()
    return reply


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is no JSON"),
        (b"[]", "the body is no JSON object"),
        (b'{"jobs": []}', "no jobs were given"),
        (b'{"jobs": [{}], "holt": true}', "unknown keys: holt"),
        (b'{"jobs": [{"spec": 7}]}', "jobs[0].spec must be the text of a resolved spec"),
        (b'{"jobs": [{"spec": "{}"}]}', "jobs[0].spec:"),
        (b'{"jobs": 3}', "jobs must be a list of objects"),
        (b'{"jobs": [{"spec": "x", "secrets": {"A": 1}}]}', "jobs[0].secrets must be an object of texts"),
        (b'{"documents": [{}]}', "documents: each needs `text`"),
        (b'{"jobs": [{"spec": "x"}], "hold": 1}', "hold must be true or false"),
        (b"[" * 100_000, "the body is no JSON"),
    ],
)
def test_a_malformed_submission_is_told_what_is_wrong(plane, body, words):
    reply = plane.post("/v1/jobs", body)
    assert reply.status == 400, reply.body
    assert reply.json["error"]["message"].startswith(words)
    assert plane.get("/v1/jobs?all=1").json["jobs"] == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("jobs?state=SLEEPING", "there is no state SLEEPING"),
        ("jobs?limit=many", "limit=many is no whole number"),
        ("jobs?limit=0", "limit=0 is out of range"),
        ("jobs?since=yesterday", "since=yesterday is no time"),
        ("jobs?sort=colour", "sort=colour is not known"),
        ("jobs?label=team", "label=team has no value"),
        ("jobs?all=perhaps", "all=perhaps is no truth value"),
        ("usage?by=moon", "usage by 'moon' is not known"),
        ("jobs/@/wait?for=ever", None),
    ],
)
def test_a_malformed_question_is_told_what_is_wrong(plane, path, words):
    reply = plane.get(f"/v1/{path}")
    assert reply.status == 400
    assert words is None or reply.json["error"]["message"] == words


def test_a_body_over_the_limit_is_refused_with_its_size(plane):
    connection = http.client.HTTPConnection("127.0.0.1", plane.server.port, timeout=10)
    headers = {"Authorization": f"Bearer {plane.server.token}", "Content-Length": str(65 << 20)}
    connection.putrequest("POST", "/v1/jobs")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    try:
        for _ in range(65):
            connection.send(b" " * (1 << 20))
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has heard enough
    reply = connection.getresponse()
    assert reply.status == 413
    assert json.loads(reply.read())["error"]["code"] == "too_large"


def test_unknown_paths_and_methods_are_answered_as_errors_of_ours(plane):
    reply = plane.get("/v1/nothing")
    assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")
    reply = plane.ask("DELETE", "/v1/jobs")
    assert reply.status == 405
    assert reply.json["error"]["code"] == "bad_request"


def test_a_snapshot_s_name_is_never_a_path(plane):
    assert plane.ask("PUT", "/v1/snapshots/..%2F..%2Fevil", b"x").status == 422
    assert plane.ask("PUT", "/v1/snapshots/" + "A" * 64, b"x").status == 422


def test_the_openapi_document_lists_every_route_that_is_served(plane):
    document = plane.get("/v1/openapi.json").json
    assert document["info"]["version"] == __version__
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert ("POST", "/v1/jobs/{ref}/cancel") in listed
    assert listed == {tuple(line.split(" ", 1)) for line in PERMISSIONS}
    for method, path in listed:
        if (method, path) == ("POST", "/v1/shutdown") or path == "/v1/events":
            continue
        reply = plane.ask(
            method,
            re.sub(r"{(\w+)}", lambda part: {"ref": "999", "sha256": "0" * 64}.get(part[1], "nobody"), path),
            None if method == "GET" else {},
        )
        assert reply.status in {200, 201, 400, 404, 422}, (method, path)
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))


def test_shutdown_is_answered_and_then_done(plane):
    assert plane.post("/v1/shutdown").json == {"stopping": True}
    assert plane.stopped.wait(10)
