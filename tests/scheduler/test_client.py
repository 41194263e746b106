"""The client against a server that says what a test has it say."""

from __future__ import annotations

import asyncio
import json
import socket
import threading

import pytest
from aiohttp import web

from gpusched import __version__
from gpusched.jobs import errors
from gpusched.jobs.spec import spec_from_document
from gpusched.scheduler.client import Client

TOKEN = "of-the-test"  # noqa: S105 - nobody's


class Script:
    """A real HTTP server on loopback; `routes` are its handlers, `seen` what was asked of it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.handlers: dict[tuple[str, str], object] = {}
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def on(self, method: str, path: str, handler: object) -> None:
        self.handlers[method, path] = handler

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._start())
        self.loop.run_forever()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]
        self.ready.set()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        handler = self.handlers[request.method, request.path]
        return await handler(request) if callable(handler) else web.json_response(handler)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture
def script():
    server = Script()
    yield server
    server.close()


@pytest.fixture
def client(script):
    return Client(f"http://127.0.0.1:{script.port}", TOKEN, timeout=5)


def refusing(status, code, *, release=__version__, **more):
    async def handler(_request):
        said = {"code": code, "message": "what went wrong", "hint": "what to do", **more}
        return web.json_response({"error": said}, status=status, headers={"Gpusched-Version": release})

    return handler


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_code"),
    [
        (404, "not_found", errors.NotFoundError, 3),
        (422, "invalid_trace", errors.TraceError, 4),
        (422, "infeasible", errors.InfeasibleError, 5),
        (401, "not_allowed", errors.NotAllowedError, 6),
        (403, "not_allowed", errors.NotAllowedError, 6),
        (503, "unreachable", errors.UnreachableError, 7),
        (409, "conflict", errors.ConflictError, 8),
        (503, "lease_held", errors.StandbyError, 7),
        (503, "store", errors.StoreError, 1),
        (400, "bad_request", errors.GpuschedError, 1),
        (500, "error", errors.GpuschedError, 1),
    ],
)
def test_an_error_arrives_as_the_class_that_it_was(script, client, *, status, code, kind, exit_code):
    script.on("GET", "/v1/jobs/12", refusing(status, code))
    with pytest.raises(kind) as raised:
        client.job(12)
    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.message, raised.value.hint) == (code, "what went wrong", "what to do")
    assert raised.value.exit_code == exit_code


def test_a_control_plane_of_another_release_that_does_not_understand_is_named(script, client):
    script.on("GET", "/v1/jobs/12", refusing(400, "bad_request", release="0.9.9"))
    with pytest.raises(errors.GpuschedError) as raised:
        client.job(12)
    assert raised.value.hint == f"what to do (this is gpusched {__version__}, the control plane's is 0.9.9)"


def test_every_problem_of_a_spec_arrives(script, client):
    problem = {"file": "job.yaml", "line": 3, "column": 5, "key": "gpus", "message": "unknown key", "hint": "no"}
    script.on("POST", "/v1/jobs", refusing(422, "invalid_spec", problems=[problem, {**problem, "line": 9}]))
    with pytest.raises(errors.SpecError) as raised:
        client.submit([spec_from_document({"run": "true"})])
    assert [str(one) for one in raised.value.problems] == [
        "job.yaml:3:5: gpus: unknown key (no)",
        "job.yaml:9:5: gpus: unknown key (no)",
    ]


def test_every_request_carries_the_token_and_names_are_quoted(script, client):
    script.on("GET", "/v1/jobs/a b/c?", {"id": 1})
    client.job("a b/c?", user="@me")
    _, path, headers, _ = script.seen[0]
    assert path == "/v1/jobs/a%20b%2Fc%3F?user=%40me"
    assert headers["Authorization"] == f"Bearer {TOKEN}"


def test_jobs_are_listed_page_by_page_up_to_the_limit(script, client):
    async def pages(request):
        after = int(request.query.get("after", 0))
        wanted = int(request.query.get("limit", 3))
        ids = list(range(after + 1, min(after + wanted, 7) + 1))
        return web.json_response({"jobs": [{"id": n} for n in ids], "next": ids[-1] if ids[-1] < 7 else None})

    script.on("GET", "/v1/jobs", pages)
    assert [job["id"] for job in client.jobs()] == [1, 2, 3, 4, 5, 6, 7]
    assert [job["id"] for job in client.jobs(limit=5)] == [1, 2, 3, 4, 5]
    assert list(client.jobs(limit=0)) == []
    list(client.jobs(states=["RUNNING", "QUEUED"], labels={"team": "nlp"}, user="ann", newest=True, limit=1))
    assert script.seen[-1][1] == "/v1/jobs?label=team%3Dnlp&state=RUNNING,QUEUED&user=ann&newest=1&limit=1".replace(
        ",", "%2C"
    )


def test_a_workdir_is_uploaded_once_and_only_if_it_is_not_there(script, client, tmp_path):
    (tmp_path / "train.py").write_text("print(1)")
    stored: set[str] = set()

    async def have(request):
        return web.Response(status=200 if request.path.rpartition("/")[2] in stored else 404)

    async def put(request):
        stored.add(request.path.rpartition("/")[2])
        return web.Response(status=201, text="{}")

    class Snapshots(dict):
        def __missing__(self, key):
            return {"HEAD": have, "PUT": put}[key[0]]

    script.handlers = Snapshots({("POST", "/v1/jobs"): {"jobs": []}})
    specs = [spec_from_document({"run": "true", "workdir": str(tmp_path)})] * 2
    client.submit(specs)
    client.submit(specs, hold=True)
    methods = [method for method, *_ in script.seen]
    assert methods == ["HEAD", "PUT", "POST", "HEAD", "POST"]
    body = json.loads(script.seen[-1][3])
    assert [job["snapshot"] for job in body["jobs"]] == list(stored) * 2
    assert body["hold"] is True


def test_a_workdir_that_vanished_is_an_error_before_anything_is_sent(script, client, tmp_path):
    with pytest.raises(errors.GpuschedError, match="does not exist"):
        client.submit([spec_from_document({"run": "true", "workdir": str(tmp_path / "gone")})])
    assert script.seen == []


def test_secrets_go_beside_the_spec_and_not_in_it(script, client):
    script.on("POST", "/v1/jobs", {"jobs": []})
    client.submit([spec_from_document({"run": "true", "secrets": {"HF": "hush"}})])
    (job,) = json.loads(script.seen[0][3])["jobs"]
    assert job["secrets"] == {"HF": "hush"}
    assert "hush" not in job["spec"] + job["source"]


def streaming(lines, *, cut=False):
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line)
        if cut:
            request.transport.abort()
        return response

    return handler


def test_output_is_streamed_as_it_comes(script, client):
    lines = [b'{"rank": 0, "offset": 0, "text": "a"}\n', b"\n", b'{"end": "SUCCEEDED", "exit_code": 0}\n']
    script.on("GET", "/v1/jobs/3/logs", streaming(lines))
    assert list(client.logs(3, follow=True, tail=5)) == [
        {"rank": 0, "offset": 0, "text": "a"},
        {"end": "SUCCEEDED", "exit_code": 0},
    ]
    assert script.seen[0][1] == "/v1/jobs/3/logs?rank=all&tail=5&follow=1"


@pytest.mark.parametrize("last", [b"", b'{"rank": 0, "off'])
def test_a_stream_that_is_cut_is_an_error_and_no_end(script, client, last):
    script.on("GET", "/v1/jobs/3/logs", streaming([b'{"rank": 0, "offset": 0, "text": "a"}\n' + last], cut=True))
    stream = client.logs(3, follow=True)
    assert next(stream)["text"] == "a"
    with pytest.raises(errors.UnreachableError):
        list(stream)


def test_a_stream_without_its_last_line_is_an_error(script, client):
    script.on("GET", "/v1/jobs/3/logs", streaming([b'{"rank": 0, "offset": 0, "text": "a"}\n']))
    with pytest.raises(errors.UnreachableError, match="cut"):
        list(client.logs(3))


def test_an_export_that_is_cut_is_an_error_and_no_short_trace(script, client):
    script.on("GET", "/v1/export", streaming([b"#gpusched-export v1\n", b'{"id": 1}\n'], cut=True))
    with pytest.raises(errors.UnreachableError):
        list(client.export())


def test_events_are_read_from_the_stream(script, client):
    lines = [b'id: 7\nevent: placed\ndata: {"seq": 7, "kind": "placed"}\n\n', b": alive\n\n", b'data: {"seq": 8}\n\n']
    script.on("GET", "/v1/events", streaming(lines))
    assert [event["seq"] for event in client.all_events(after=6)] == [7, 8]
    assert script.seen[0][1] == "/v1/events?follow=1&after=6"


def test_a_port_that_nobody_listens_on_is_unreachable_with_the_way_to_start_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = Client(f"127.0.0.1:{free.getsockname()[1]}", timeout=2)
        with pytest.raises(errors.UnreachableError, match="Connection refused") as raised:
            client.status()
    assert "gpusched up" in raised.value.hint


def test_a_server_that_never_answers_is_unreachable_in_time():
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        client = Client(f"127.0.0.1:{deaf.getsockname()[1]}", timeout=0.2)
        with pytest.raises(errors.UnreachableError, match="in time"):
            client.status()


@pytest.mark.parametrize("status", [200, 302, 418, 500])
def test_something_else_at_the_address_is_said_to_be_so(script, client, status):
    async def other(_request):
        return web.Response(status=status, text="<html>", headers={"Location": "/login"} if status == 302 else {})

    script.on("GET", "/v1/status", other)
    with pytest.raises(errors.UnreachableError, match="no gpusched control plane"):
        client.status()


def test_a_peer_that_does_not_speak_http_is_said_to_be_so():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble():
            peer, _ = server.accept()
            peer.recv(1000)
            peer.sendall(b"SSH-2.0-x\r\n")
            peer.close()

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        client = Client(f"127.0.0.1:{server.getsockname()[1]}", timeout=5)
        with pytest.raises(errors.UnreachableError, match="no gpusched control plane"):
            client.status()
        thread.join(5)


def test_verbs_go_where_the_api_has_them(script, client):
    script.on("POST", "/v1/jobs/@/cancel", {"job": {"id": 1}})
    script.on("POST", "/v1/nodes/n%2F1/cordon", {"node": {"name": "n/1"}})
    script.handlers["POST", "/v1/nodes/n/1/cordon"] = {"node": {"name": "n/1"}}
    script.on("GET", "/v1/jobs/5/wait", {"met": True, "job": {"id": 5}})
    script.on("GET", "/v1/usage", {"rows": []})
    assert client.cancel("@", user="ann") == {"id": 1}
    assert client.cordon("n/1", "loud") == {"name": "n/1"}
    assert client.wait(5, until="running", timeout=1) == (True, {"id": 5})
    assert client.usage("gpu-type", since="10") == {"rows": []}
    assert [path for _, path, _, _ in script.seen] == [
        "/v1/jobs/%40/cancel?user=ann",
        "/v1/nodes/n%2F1/cordon",
        "/v1/jobs/5/wait?for=running&timeout=1.000",
        "/v1/usage?by=gpu-type&since=10",
    ]
    assert json.loads(script.seen[0][3]) == {"user": "ann"}
    assert json.loads(script.seen[1][3]) == {"reason": "loud"}
