"""What goes on while one listens: output as it comes, waiting, the journal, the live picture."""

# ruff: noqa: S310, S105 - URLs of servers that the test started; "token" is what a reason is called

import json
import threading
import urllib.request

import pytest
from live_kit import spec_text, until

from gpusched.jobs.traces.export import MARK


def follow(plane, path):
    """Lines of a stream as they come."""
    request = urllib.request.Request(plane.server.url + path)
    with urllib.request.urlopen(request, timeout=30) as reply:
        for line in reply:
            yield line.decode().rstrip("\n")


def test_output_is_followed_while_it_is_written_and_ends_with_the_state(plane):
    go = plane.home / "go"
    job = plane.submit(f"echo first; until test -e {go}; do sleep 0.02; done; echo last")
    lines = (json.loads(line) for line in follow(plane, f"/v1/jobs/{job['id']}/logs?follow=1"))
    heard = next(line for line in lines if "text" in line)
    assert heard == {"rank": 0, "offset": 0, "text": "first\n"}
    go.touch()
    rest = list(lines)
    assert [line["text"] for line in rest if "text" in line] == ["last\n"]
    assert rest[-1]["end"] == "SUCCEEDED"
    assert rest[-1]["exit_code"] == 0


def test_a_follower_of_a_waiting_job_is_told_what_it_waits_for(plane):
    block = plane.submit("sleep 60", gpus=4, nodes=2)
    job = plane.submit("echo mine", gpus=4)
    lines = (json.loads(line) for line in follow(plane, f"/v1/jobs/{job['id']}/logs?follow=1"))
    first = next(lines)
    assert first["state"] == "QUEUED"
    assert first["message"] == "position 1: needs 4 GPUs; 0 free; largest free block 0"
    plane.post(f"/v1/jobs/{block['id']}/cancel")
    rest = list(lines)
    assert "mine\n" in [line.get("text") for line in rest]
    assert rest[-1]["end"] == "SUCCEEDED"


def test_a_silent_job_is_said_to_be_silent(plane):
    job = plane.submit("sleep 6; echo done")
    lines = [json.loads(line) for line in follow(plane, f"/v1/jobs/{job['id']}/logs?follow=1")]
    quiet = [line for line in lines if line.get("state") == "RUNNING"]
    assert len(quiet) == 1
    assert quiet[0]["message"] == "no output for 4 s"


def test_following_goes_on_into_the_next_attempt(plane):
    job = plane.submit('test -e "$DIR/../1-1-0/exit" && echo second || { echo first; sleep 1; exit 75; }')
    lines = [json.loads(line) for line in follow(plane, f"/v1/jobs/{job['id']}/logs?follow=1")]
    assert [line["text"] for line in lines if "text" in line] == ["first\n", "second\n"]
    assert {"attempt": 2} in lines
    assert plane.lines(f"/v1/jobs/{job['id']}/logs?attempt=1")[0]["text"] == "first\n"


@pytest.mark.parametrize(("query", "text"), [("tail=2", "3\n4\n"), ("tail=0", ""), ("tail=99", "1\n2\n3\n4\n"),
                                             ("offset=4", "3\n4\n"), ("", "1\n2\n3\n4\n")])  # fmt: skip
def test_only_the_wanted_part_of_the_output_is_sent(plane, query, text):
    job = plane.submit("printf '1\\n2\\n3\\n4\\n'")
    plane.wait(job["id"])
    lines = plane.lines(f"/v1/jobs/{job['id']}/logs?{query}")
    assert "".join(line.get("text", "") for line in lines) == text


def test_a_long_output_arrives_whole_and_its_letters_unbroken(plane):
    job = plane.submit("""python3 -c 'print("\\N{SNOWMAN}" * 300_000)'""")
    plane.wait(job["id"])
    lines = plane.lines(f"/v1/jobs/{job['id']}/logs")
    assert len(lines) > 3
    assert "".join(line.get("text", "") for line in lines) == "\N{SNOWMAN}" * 300_000 + "\n"
    assert lines[1]["offset"] > 0


def test_output_that_is_not_there_is_an_error_that_says_why(plane):
    plane.submit("sleep 60", gpus=4, nodes=2)
    waiting = plane.submit("true")["id"]
    reply = plane.get(f"/v1/jobs/{waiting}/logs")
    assert (reply.status, "has no output yet: it is QUEUED" in reply.json["error"]["message"]) == (404, True)
    running = plane.get("/v1/jobs/1/logs?rank=7")
    assert (running.status, running.json["error"]["message"]) == (404, "job 1 has ranks 0 to 1, not 7")
    assert plane.get("/v1/jobs/1/logs?attempt=9").status == 404 or plane.post("/v1/jobs/1/cancel")


def test_wait_returns_when_the_job_is_done_and_says_if_time_ran_out(plane):
    job = plane.submit("sleep 60")
    reply = plane.get(f"/v1/jobs/{job['id']}/wait?for=running&timeout=20").json
    assert (reply["met"], reply["job"]["state"]) == (True, "RUNNING")
    assert plane.get(f"/v1/jobs/{job['id']}/wait?timeout=0.1").json["met"] is False
    waited: list = []
    waiter = threading.Thread(target=lambda: waited.append(plane.wait(job["id"])))
    waiter.start()
    plane.post(f"/v1/jobs/{job['id']}/cancel")
    waiter.join(20)
    assert waited[0]["state"] == "CANCELLED"
    assert plane.get(f"/v1/jobs/{job['id']}/wait?for=running").json["met"] is False


def test_the_journal_is_streamed_as_server_sent_events_and_resumed_by_number(plane):
    heard: list[str] = []

    def listen():
        for line in follow(plane, "/v1/events?follow=1&after=0"):
            heard.append(line)
            if line == "event: succeeded":
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    plane.wait(plane.submit("true")["id"])
    listener.join(20)
    kinds = [line.removeprefix("event: ") for line in heard if line.startswith("event: ")]
    assert kinds == ["submitted", "placed", "started", "succeeded"]
    data = [json.loads(line.removeprefix("data: ")) for line in heard if line.startswith("data: ")]
    numbers = [event["seq"] for event in data]
    assert numbers == sorted(set(numbers)), "they rise; lines about the cluster are numbered in between"
    later = plane.get(f"/v1/events?after={numbers[1]}").json["events"]
    assert [event["kind"] for event in later] == ["started", "succeeded"]
    whole = plane.get("/v1/events?cluster=1").json["events"]
    assert {"node", "submitted"} <= {event["kind"] for event in whole}
    assert "audit" not in {event["kind"] for event in whole}


def test_nodes_show_what_is_free_and_who_holds_the_rest(plane):
    job = plane.submit("sleep 60", gpus=3, name="holder")
    nodes = until(lambda: (found := plane.get("/v1/nodes").json["nodes"]) and found[0]["jobs"] and found)
    assert [(node["name"], node["state"], node["free"]) for node in nodes] == [("n1", "up", 1.0), ("n2", "up", 4.0)]
    assert nodes[0]["jobs"] == [{"id": job["id"], "name": "holder", "user": "ann", "gpus": 3.0}]
    assert nodes[0]["cpus_free"] == 15.0
    assert nodes[0]["utilization"] is None


def test_a_cordoned_node_takes_no_new_work_until_it_is_resumed(plane):
    node = plane.post("/v1/nodes/n1/cordon", {"reason": "new fans"}).json["node"]
    assert (node["state"], node["why"]) == ("cordoned", "cordoned: new fans")
    job = plane.submit("true", gpus=4, nodes=2)
    said = plane.get(f"/v1/jobs/{job['id']}/explain").json
    assert said["reasons"][0]["token"] == "NodesDraining"
    assert "n1 (cordoned by ann: new fans)" in said["reasons"][0]["message"]
    assert plane.post("/v1/nodes/n1/resume").json["node"]["state"] == "up"
    assert plane.wait(job["id"])["state"] == "SUCCEEDED"
    reply = plane.post("/v1/nodes/n9/cordon")
    assert (reply.status, reply.json["error"]["message"]) == (404, "there is no node 'n9'")


def test_usage_counts_the_gpu_hours_that_were_held_and_says_what_was_not_measured(plane):
    plane.wait(plane.submit("sleep 0.5", gpus=4, user="bob")["id"])
    rows = plane.get("/v1/usage?by=user").json["rows"]
    assert [row["key"] for row in rows] == ["bob"]
    assert 4 * 0.5 / 3600 < rows[0]["gpu_hours_allocated"] < 4 * 10 / 3600
    assert rows[0]["gpu_hours_used"] is None
    assert plane.get("/v1/usage?by=gpu-type").json["rows"][0]["key"] == "H100"


def test_top_is_the_whole_picture(plane):
    plane.submit("sleep 60", gpus=3)
    plane.submit("sleep 60", gpus=4, nodes=2)
    picture = until(lambda: (found := plane.get("/v1/top").json)["gpus"]["allocated"] and found)
    assert picture["gpus"] == {"total": 8, "allocated": 3.0, "used": None}
    assert [job["id"] for job in picture["jobs"]] == [1, 2]
    assert picture["jobs"][0]["utilization"] is None
    assert picture["queue"]["QUEUED"] == 1


def test_finished_jobs_are_exported_as_a_trace(plane):
    plane.wait(plane.submit("true", gpus=2, name="one")["id"])
    lines = plane.get("/v1/export").body.decode().splitlines()
    assert lines[0].startswith(MARK)
    assert json.loads(lines[1])["name"] == "one"


def test_the_status_answers_with_what_the_control_plane_is(plane):
    plane.submit("sleep 60", gpus=4, nodes=2)
    plane.submit("true", gpus=1)
    status = until(lambda: (found := plane.get("/v1/status").json)["jobs"]["RUNNING"] and found)
    assert status["policy"] == {"name": "binpack", "version": "1", "wanted": "binpack", "error": ""}
    assert status["cluster"] == {"nodes": 2, "gpus": 8, "free": 0}
    assert status["jobs"]["QUEUED"] == 1
    assert status["leader"] is True
    assert status["database"].endswith("gpusched.db")


def test_many_submitters_at_once_all_get_jobs_of_their_own(plane):
    answers: list[int] = []
    lock = threading.Lock()

    def submit(worker):
        for n in range(10):
            job = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text(name=f"w{worker}-{n}")}], "hold": True}).json[
                "jobs"
            ][0]
            with lock:
                answers.append(job["id"])

    workers = [threading.Thread(target=submit, args=(worker,)) for worker in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sorted(answers) == list(range(1, 81))
    assert len(plane.get("/v1/jobs").json["jobs"]) == 80
