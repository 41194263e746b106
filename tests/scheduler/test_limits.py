"""Admission limits: a 429 with a time to ask again before memory grows; what is sent twice is queued once."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from live_kit import spec_text, until

from gpusched.jobs.errors import BusyError, SpecError
from gpusched.jobs.events import Kind
from gpusched.jobs.job import Job, Shape, State
from gpusched.jobs.ulid import following, is_ulid, ulid, ulid_of
from gpusched.scheduler.client import Client
from gpusched.scheduler.inbox import LiveInbox
from gpusched.scheduler.limits import Census, Meter, TooManyError, Traffic
from gpusched.scheduler.settings import Limits, read_settings


def jobs(count: int, user: str = "ann", queue: str = "default", first: int = 1) -> list[Job]:
    return [Job(number, Shape(), 0.0, user=user, queue=queue) for number in range(first, first + count)]


# Counting -----------------------------------------------------------------------------------------------------------


def test_the_census_counts_who_waits_and_forgets_who_does_not():
    census = Census(Limits(waiting_per_user=3))
    three = jobs(3)
    census.begin(three)
    assert census.view() == {"waiting": 3, "users": 1, "coming": 0}
    with pytest.raises(BusyError) as refused, census.admitted(jobs(1, first=9)):
        pass
    assert refused.value.retry_after >= 1
    assert "ann" in refused.value.message
    with census.admitted(jobs(1, "ben", first=9)):  # somebody else may
        pass
    three[0].state = State.RUNNING
    census.saw(three)
    with census.admitted(jobs(1, first=9)):
        assert census.view() == {"waiting": 2, "users": 1, "coming": 1}
    for job in three:
        job.state = State.CANCELLED
    census.saw(three)
    assert census.view() == {"waiting": 0, "users": 0, "coming": 0}


def test_what_is_on_its_way_counts_too_and_what_never_fits_is_not_told_to_try_again():
    census = Census(Limits(waiting_per_queue=5))
    with census.admitted(jobs(4, "ann")), pytest.raises(BusyError), census.admitted(jobs(2, "ben")):
        pass
    with pytest.raises(TooManyError), census.admitted(jobs(6)):
        pass


def test_a_changed_queue_moves_a_waiting_job_in_the_count():
    census = Census(Limits(waiting_per_queue=1))
    (job,) = jobs(1, queue="a")
    census.saw([job])
    job.queue = "b"
    census.saw([job])
    with census.admitted(jobs(1, queue="a")):
        pass
    with pytest.raises(BusyError), census.admitted(jobs(1, queue="b")):
        pass


def test_the_time_to_ask_again_is_that_of_the_drain():
    now = [0.0]
    meter = Meter(lambda: now[0])
    for second in range(10):
        now[0] = float(second)
        meter.note(100)
    assert 4 <= meter.seconds(500) <= 6
    assert meter.seconds(10**9) == 300
    now[0] = 1000.0
    assert meter.seconds(5) == 10  # nothing was seen lately


def test_a_bucket_gives_its_tokens_back_with_time_and_each_user_has_one():
    now = [0.0]
    traffic = Traffic(Limits(requests_per_second=10, burst=5), lambda: now[0])
    for _ in range(5):
        traffic.pace("ann")
    with pytest.raises(BusyError):
        traffic.pace("ann")
    traffic.pace("ben")
    now[0] = 0.2
    traffic.pace("ann")
    traffic.pace("ann")
    with pytest.raises(BusyError):
        traffic.pace("ann")


def test_users_who_came_once_are_forgotten():
    traffic = Traffic(Limits(), lambda: 0.0)
    for number in range(10_050):
        traffic.pace(f"user-{number}")
    assert len(traffic._buckets) == 10_000


def test_bodies_share_a_budget_and_streams_a_number():
    traffic = Traffic(Limits(bytes=100, streams=3, streams_per_user=2))
    with traffic.request(80), pytest.raises(BusyError), traffic.request(30):
        pass
    with traffic.request(500):  # alone it may
        pass
    with traffic.stream("ann"), traffic.stream("ann"):
        with pytest.raises(BusyError), traffic.stream("ann"):
            pass
        with traffic.stream("ben"), pytest.raises(BusyError), traffic.stream("eve"):
            pass
    assert not traffic.streams
    assert traffic.bytes == traffic.requests == 0


def test_the_inbox_takes_so_many_changes_and_no_more_until_the_loop_took_them():
    inbox = LiveInbox(lambda: 1.0, lambda: None, most=10)
    first = inbox.submit(jobs(8))
    refused = inbox.submit(jobs(3))
    assert isinstance(refused.exception(0), BusyError)
    assert not inbox.ask(Kind.CANCELLED, 1).done()
    assert inbox.backlog == 9
    assert len(inbox.poll(1.0)) == 9
    inbox.settle({})
    assert len(first.result(0)) == 8
    assert not inbox.submit(jobs(50)).done()  # one call alone is never too large
    questions = [inbox.question(lambda _engine: None) for _ in range(11)]
    assert isinstance(questions[-1].exception(0), BusyError)


# The settings file --------------------------------------------------------------------------------------------------


def test_settings_are_read_with_their_units(tmp_path):
    (tmp_path / "settings.yaml").write_text(
        "limits:\n  waiting_per_user: 500\n  body: 1MiB\n  stall: 5s\narchive:\n  after: 7d\n  keep: all\n"
    )
    settings = read_settings(tmp_path)
    assert (settings.limits.waiting_per_user, settings.limits.body, settings.limits.stall) == (500, 1 << 20, 5.0)
    assert (settings.archive.after, settings.archive.keep) == (7 * 86400, None)
    assert read_settings(tmp_path / "none").limits == Limits()


def test_a_wrong_setting_is_named_with_its_line_and_what_it_may_be(tmp_path):
    (tmp_path / "settings.yaml").write_text("limits:\n  waiting_per_usr: 5\n  body: many\nfoo: 1\n")
    with pytest.raises(SpecError) as error:
        read_settings(tmp_path)
    assert [problem.line for problem in error.value.problems] == [2, 3, 4]


# Over HTTP ----------------------------------------------------------------------------------------------------------


def submission(count: int = 1, **keys) -> dict:
    return {"jobs": [{"spec": spec_text("true", gpus=4, **keys)}] * count, "hold": True}


def test_a_full_queue_answers_429_with_a_time_and_takes_jobs_again_once_there_is_room(plane_in):
    plane = plane_in(limits=Limits(waiting_per_user=5))
    held = plane.post("/v1/jobs", submission(5)).json["jobs"]
    reply = plane.post("/v1/jobs", submission())
    assert reply.status == 429
    error = reply.json["error"]
    assert error["code"] == "busy"
    assert int(reply.headers["Retry-After"]) == error["retry_after"] >= 1
    assert "waiting_per_user" in error["hint"]
    assert plane.post(f"/v1/jobs/{held[0]['id']}/cancel").status == 200
    assert plane.post("/v1/jobs", submission()).status == 201
    assert plane.post("/v1/jobs", submission(6)).status == 400  # no waiting helps


def test_the_client_waits_as_it_is_told_and_says_so(plane_in):
    plane = plane_in(limits=Limits(waiting_per_user=1))
    held = plane.post("/v1/jobs", submission()).json["jobs"][0]
    said: list[str] = []
    client = Client(plane.server.url, plane.server.token)

    def say(words: str) -> None:
        said.append(words)
        plane.post(f"/v1/jobs/{held['id']}/cancel")

    client.narrate(say)
    client._http.patience = 60.0
    from gpusched.jobs.spec import spec_from_document  # noqa: PLC0415 - here alone

    plane.controller.changes.census._left.note(1000)  # many left lately: the time to wait is the shortest
    (job,) = client.submit([spec_from_document({"run": "true"})], hold=True)
    assert job["state"] == "HELD"
    assert said == ["the control plane is busy; trying again in 1 s"]
    client._http.patience = 0.0
    with pytest.raises(BusyError):
        client.submit([spec_from_document({"run": "true"})], hold=True)


def test_too_many_streams_are_refused_and_ordinary_requests_go_on(plane_in):
    plane = plane_in(limits=Limits(streams=2))
    request = (
        f"GET /v1/events?follow=1 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {plane.server.token}\r\n\r\n"
    ).encode()
    streams = []
    for _ in range(2):
        stream = socket.create_connection(("127.0.0.1", plane.server.port))
        stream.sendall(request)
        assert stream.recv(100).startswith(b"HTTP/1.1 200")
        streams.append(stream)
    assert plane.get("/v1/events?follow=1").status == 429
    assert plane.get("/v1/jobs").status == 200
    for stream in streams:
        stream.close()
    until(lambda: plane.get("/v1/jobs/@/wait?timeout=0").status != 429)


def test_a_body_over_the_limit_is_a_413_before_it_is_read(plane_in):
    plane = plane_in(limits=Limits(body=10_000))
    stream = socket.create_connection(("127.0.0.1", plane.server.port))
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {plane.server.token}\r\n"
    head += "Content-Length: 20000\r\n\r\n"
    stream.sendall(head.encode())
    assert b" 413 " in stream.recv(200)
    stream.close()


# Idempotency --------------------------------------------------------------------------------------------------------


def test_ulids_follow_each_other_and_a_key_gives_the_same_one_each_time():
    first = ulid(1e9)
    several = following(first, 100)
    assert several == sorted(set(several))
    assert several[0] == first
    assert all(map(is_ulid, several))
    assert ulid_of(first.lower()) == first
    assert ulid_of("a key") == ulid_of("a key") != ulid_of("another")


def keyed(plane, key: str, body: dict):
    return plane.post("/v1/jobs", body, headers={"Idempotency-Key": key})


def test_a_repeated_submission_is_answered_with_what_was_queued(plane):
    key = ulid(time.time())
    first = keyed(plane, key, submission(3)).json["jobs"]
    again = keyed(plane, key, submission(3)).json["jobs"]
    assert [job["id"] for job in first] == [job["id"] for job in again]
    assert all(job["repeated"] for job in again)
    assert first[0]["uid"] == key
    assert len(plane.get("/v1/jobs").json["jobs"]) == 3
    other = keyed(plane, key, submission(2))
    assert (other.status, other.json["error"]["code"]) == (409, "conflict")
    assert keyed(plane, "any words", submission(1)).status == 201
    assert keyed(plane, "any words", submission(1)).json["jobs"][0]["repeated"]
    assert keyed(plane, "x" * 200, submission(1)).status == 400


def test_the_same_submission_from_many_at_once_is_queued_once(plane):
    key = ulid(time.time())
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: keyed(plane, key, submission(2)).json["jobs"][0]["id"], range(16)))
    assert len(set(replies)) == 1
    assert len(plane.get("/v1/jobs").json["jobs"]) == 2


class CuttingProxy:
    """Passes requests on; cuts the first connection when the answer to it comes: the commit is done by then."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cut = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(ConnectionError):
            while data := client.recv(1 << 16):
                server.sendall(data)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(1 << 16):
            if not self.cut:
                self.cut += 1
                client.shutdown(socket.SHUT_RDWR)
                client.close()
                return
            client.sendall(data)
        client.close()


def test_a_connection_that_is_cut_after_the_commit_queues_nothing_twice(plane):
    from gpusched.jobs.spec import spec_from_document  # noqa: PLC0415 - here alone

    proxy = CuttingProxy(plane.server.port)
    client = Client(proxy.url, plane.server.token)
    said: list[str] = []
    client.narrate(said.append)
    queued = client.submit([spec_from_document({"run": "true", "name": "once"})] * 2, hold=True)
    assert proxy.cut == 1
    assert said == ["no answer came; asking again: it is not queued twice"]
    there = plane.get("/v1/jobs").json["jobs"]
    assert sorted(job["id"] for job in there) == sorted(job["id"] for job in queued)
    assert len(there) == 2
    assert json.dumps(queued).count('"repeated": true') == 2


def test_a_client_that_leaves_in_the_middle_leaves_its_key_in_order(plane):
    key = ulid(time.time())
    body = json.dumps(submission(1)).encode()
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {plane.server.token}\r\n"
        f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", plane.server.port)) as stream:
            stream.sendall(head + body)
    assert keyed(plane, key, submission(1)).status == 201
    assert len(plane.get("/v1/jobs").json["jobs"]) == 1
