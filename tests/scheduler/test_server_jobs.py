"""The verbs over HTTP: jobs are queued, run, looked at and changed."""

# ruff: noqa: S105 - "token" is what a reason is called

import hashlib
import json

import pytest
from live_kit import spec_text, until

from gpusched.cluster.backend import Node

FILL = "sleep 60"


def test_a_submitted_job_runs_and_its_end_is_known(plane):
    job = plane.submit("echo hello; exit 3", name="greeter")
    assert job["id"] == 1
    assert job["state"] in {"STARTING", "RUNNING"}
    assert len(job["uid"]) == 26
    done = plane.wait(job["id"])
    assert (done["state"], done["exit_code"]) == ("FAILED", 3)
    found = plane.job("greeter")
    assert found["spec"]["run"] == "echo hello; exit 3"
    assert found["source"] == "echo hello; exit 3"
    assert [attempt["result"] for attempt in found["attempts"]] == ["failed"]
    assert found["attempts"][0]["ranks"][0]["node"] in {"n1", "n2"}


def test_a_gang_gets_all_its_nodes_and_every_rank_its_number(plane):
    job = plane.submit('echo "rank $RANK"', gpus=4, nodes=2)
    assert plane.wait(job["id"])["state"] == "SUCCEEDED"
    lines = plane.lines(f"/v1/jobs/{job['id']}/logs?rank=all")
    assert {line["text"] for line in lines if "text" in line} == {"rank 0\n", "rank 1\n"}
    assert lines[-1]["end"] == "SUCCEEDED"


def test_jobs_of_one_request_are_queued_all_or_none(plane):
    bad = json.dumps({**json.loads(spec_text()), "num_nodes": -1})
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text()}, {"spec": bad}]})
    assert reply.status == 400
    assert "jobs[1].spec" in reply.json["error"]["message"]
    assert plane.get("/v1/jobs?all=1").json["jobs"] == []


def test_yaml_documents_are_taken_too_and_their_faults_are_named(plane):
    text = "run: echo one\nname: one\n---\nrun: echo two\nname: two\n"
    reply = plane.post("/v1/jobs", {"documents": [{"text": text, "file": "jobs.yaml"}]})
    assert [job["name"] for job in reply.json["jobs"]] == ["one", "two"]
    reply = plane.post("/v1/jobs", {"documents": [{"text": "run: x\nnum_node: 2\n", "file": "bad.yaml"}]})
    assert (reply.status, reply.json["error"]["code"]) == (422, "invalid_spec")
    problem = reply.json["error"]["problems"][0]
    assert (problem["file"], problem["line"], problem["key"]) == ("bad.yaml", 2, "num_node")


def test_what_can_never_run_is_refused_with_numbers_unless_it_is_queued_anyway(plane):
    body = {"jobs": [{"spec": spec_text(gpus=8, nodes=2)}]}
    reply = plane.post("/v1/jobs", body)
    assert (reply.status, reply.json["error"]["code"]) == (422, "infeasible")
    assert reply.json["error"]["message"] == "needs 2x8 GPUs; the largest node has 4"
    reply = plane.post("/v1/jobs", {**body, "queue_anyway": True})
    assert reply.status == 201
    said = plane.get(f"/v1/jobs/{reply.json['jobs'][0]['id']}/explain").json
    assert said["reasons"][0]["token"] == "Infeasible"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"accelerators": "A100:1"}, "needs 1 A100; the cluster has H100 on 2 nodes"),
        ({"gpus": 4, "nodes": 3}, "needs 3x4 GPUs; all nodes together have 8 GPUs"),
        ({"labels": {"zone": "b"}}, "needs 1 GPU; no node carries zone=b"),
        (
            {"resources": {"accelerators": 1, "cpus": 64}},
            "needs 1 GPU; and 64 CPUs on one node; the largest node has 16 CPUs",
        ),
    ],
)
def test_an_infeasible_job_is_told_what_lacks(plane, keys, words):
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text(**keys)}]})
    assert reply.json["error"]["message"] == words


def test_while_no_node_is_known_everything_is_accepted_and_starts_later(plane_in):
    plane = plane_in(nodes=())
    job = plane.submit("true", gpus=4, nodes=2)
    assert job["state"] == "QUEUED"
    said = plane.get(f"/v1/jobs/{job['id']}/explain").json
    assert said["reasons"][0]["message"] == "the cluster has no nodes yet"
    for name in ("n1", "n2"):
        plane.backend.change(Node(name, 4, "H100", cpu_milli=8000))
    assert plane.wait(job["id"])["state"] == "SUCCEEDED"


def test_a_dry_run_says_start_wait_or_never_and_leaves_no_trace(plane):
    plane.submit(FILL, gpus=4)
    bodies = [{"spec": spec_text(gpus=4)}, {"spec": spec_text(gpus=4, nodes=2)}, {"spec": spec_text(gpus=8)}]
    verdicts = plane.post("/v1/jobs", {"jobs": bodies, "dry_run": True}).json["verdicts"]
    assert [verdict["verdict"] for verdict in verdicts] == ["start", "wait", "never"]
    assert verdicts[0]["nodes"] == ["n2"]
    assert verdicts[2]["why"] == "needs 8 GPUs; the largest node has 4"
    assert verdicts[0]["spec"]["kind"] == "command"
    assert len(plane.get("/v1/jobs").json["jobs"]) == 1
    assert plane.submit("true", gpus=1)["id"] == 2


def test_held_jobs_wait_until_released_and_queued_ones_can_be_held(plane):
    held = plane.submit("true", flags={"hold": True})
    assert (held["state"], held["reason"]) == ("HELD", "Held")
    assert plane.post(f"/v1/jobs/{held['id']}/release").json["job"]["state"] != "HELD"
    assert plane.wait(held["id"])["state"] == "SUCCEEDED"
    plane.submit(FILL, gpus=4, nodes=2)
    waiting = plane.submit("true", gpus=4)
    assert plane.post(f"/v1/jobs/{waiting['id']}/hold").json["job"]["state"] == "HELD"
    assert plane.post(f"/v1/jobs/{waiting['id']}/hold").status == 200  # again: it is held already


def test_cancel_ends_what_runs_takes_back_what_waits_and_refuses_what_is_over(plane):
    running, waiting = plane.submit(FILL, gpus=4, nodes=2), plane.submit("true", gpus=4)
    until(lambda: plane.job(running["id"])["state"] == "RUNNING")
    assert plane.post(f"/v1/jobs/{waiting['id']}/cancel").json["job"]["state"] == "CANCELLED"
    assert plane.post(f"/v1/jobs/{running['id']}/cancel").json["job"]["state"] in {"STOPPING", "CANCELLED"}
    assert plane.wait(running["id"])["state"] == "CANCELLED"
    reply = plane.post(f"/v1/jobs/{running['id']}/cancel")
    assert (reply.status, reply.json["error"]["code"]) == (409, "conflict")
    assert reply.json["error"]["message"] == "job 1 is CANCELLED already"


def test_who_cancelled_is_in_the_journal(plane):
    job = plane.submit(FILL)
    plane.post(f"/v1/jobs/{job['id']}/cancel", {"user": "bob"})
    events = plane.get(f"/v1/jobs/{job['id']}/events").json["events"]
    assert next(event for event in events if event["kind"] == "cancelled")["data"] == {"by": "bob"}


def test_requeue_stops_a_running_job_and_it_runs_again(plane):
    job = plane.submit('echo "$(ls -d $DIR)"; sleep 60')
    until(lambda: plane.job(job["id"])["state"] == "RUNNING")
    assert plane.post(f"/v1/jobs/{job['id']}/requeue").status == 200
    again = until(lambda: (found := plane.job(job["id"]))["attempt"] == 2 and found)
    assert again["attempts"][0]["stop_cause" if "stop_cause" in again["attempts"][0] else "result"] == "preempted"


def test_a_hold_of_a_running_job_is_a_conflict_that_says_so(plane):
    job = plane.submit(FILL)
    until(lambda: plane.job(job["id"])["state"] == "RUNNING")
    reply = plane.post(f"/v1/jobs/{job['id']}/hold")
    assert (reply.status, reply.json["error"]["message"]) == (409, "job 1 is RUNNING: it cannot be held now")


def test_jobs_are_found_by_id_ulid_prefix_name_and_at(plane):
    one, two = plane.submit("true", name="alpha"), plane.submit("true", name="beta")
    for ref in (one["id"], one["uid"], one["uid"].lower(), "alpha", "@~1"):
        assert plane.job(ref)["id"] == one["id"], ref
    assert plane.job("@")["id"] == two["id"]
    reply = plane.get("/v1/jobs/nothing")
    assert (reply.status, reply.json["error"]["code"]) == (404, "not_found")


def test_a_name_that_several_unfinished_jobs_have_is_not_enough_to_change_one(plane):
    ids = [plane.submit(FILL, name="twin")["id"] for _ in range(2)]
    reply = plane.post("/v1/jobs/twin/cancel")
    assert reply.status == 409
    assert all(str(number) in reply.json["error"]["hint"] for number in ids)


def test_a_name_means_the_unfinished_job_when_an_older_or_newer_one_is_over(plane):
    old = plane.submit(FILL, name="twin")["id"]
    plane.wait(plane.submit("true", name="twin")["id"])
    assert plane.post("/v1/jobs/twin/cancel").json["job"]["id"] == old


def test_listings_are_filtered_and_paged(plane):
    jobs = [{"spec": spec_text(name=f"j{n}", user="ann" if n % 2 else "bob")} for n in range(10)]
    plane.post("/v1/jobs", {"jobs": jobs, "hold": True})
    assert len(plane.get("/v1/jobs?user=bob").json["jobs"]) == 5
    assert [job["name"] for job in plane.get("/v1/jobs?name=j3").json["jobs"]] == ["j3"]
    assert plane.get("/v1/jobs?state=RUNNING,queued").json["jobs"] == []
    first = plane.get("/v1/jobs?limit=4").json
    assert [job["id"] for job in first["jobs"]] == [1, 2, 3, 4]
    rest = plane.get(f"/v1/jobs?after={first['next']}").json
    assert [job["id"] for job in rest["jobs"]] == [5, 6, 7, 8, 9, 10]
    assert rest["next"] is None
    newest = plane.get("/v1/jobs?newest=1&limit=2").json
    assert [job["id"] for job in newest["jobs"]] == [10, 9]
    assert plane.get(f"/v1/jobs?newest=1&after={newest['next']}&limit=1").json["jobs"][0]["id"] == 8


def test_positions_and_reasons_of_waiting_jobs_are_listed(plane):
    plane.submit(FILL, gpus=4, nodes=2)
    waiting = [plane.submit("true", gpus=4)["position"], plane.submit("true", gpus=2)["position"]]
    assert waiting == [1, 2]
    rows = plane.get("/v1/jobs?state=QUEUED").json["jobs"]
    assert [row["position"] for row in rows] == [1, 2]
    assert rows[0]["reason"] == "InsufficientGPUs"
    assert rows[0]["message"] == "needs 4 GPUs; 0 free; largest free block 0"


def test_a_workdir_is_uploaded_once_and_must_be_there(plane):
    body = b"a packed workdir"
    name = hashlib.sha256(body).hexdigest()
    job = {"spec": spec_text(workdir="."), "snapshot": name}
    reply = plane.post("/v1/jobs", {"jobs": [job]})
    assert (reply.status, "is not here" in reply.json["error"]["message"]) == (409, True)
    assert plane.ask("HEAD", f"/v1/snapshots/{name}").status == 404
    assert plane.ask("PUT", f"/v1/snapshots/{name}", body).status == 201
    assert plane.ask("PUT", f"/v1/snapshots/{name}", body).status == 200
    assert plane.ask("HEAD", f"/v1/snapshots/{name}").status == 200
    number = plane.post("/v1/jobs", {"jobs": [job]}).json["jobs"][0]["id"]
    assert plane.job(number)["spec"]["annotations"] == {"gpusched/snapshot": name}
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text(workdir=".")}]})
    assert reply.status == 409


def test_a_damaged_upload_is_refused_and_leaves_nothing(plane):
    name = hashlib.sha256(b"the right one").hexdigest()
    assert plane.ask("PUT", f"/v1/snapshots/{name}", b"another one").status == 422
    assert plane.ask("HEAD", f"/v1/snapshots/{name}").status == 404
    assert list((plane.home / "snapshots").iterdir()) == []


def test_secrets_reach_the_job_and_no_answer_shows_them(plane):
    text = json.loads(spec_text('test "${#TOKEN}" = 6 && echo "$TOKEN" >"$DIR/seen"'))
    text["secrets"] = ["TOKEN"]
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": json.dumps(text), "secrets": {"TOKEN": "s3cret"}}]})
    number = reply.json["jobs"][0]["id"]
    assert plane.wait(number)["state"] == "SUCCEEDED"
    for path in (f"jobs/{number}", f"jobs/{number}/events", f"jobs/{number}/explain", "jobs?all=1", "events", "export"):
        assert b"s3cret" not in plane.get(f"/v1/{path}").body, path
    assert plane.job(number)["spec"]["secrets"] == {"TOKEN": "***"}
    assert (plane.home / "cluster" / "1-1-0" / "seen").read_text() == "s3cret\n"


def test_a_secret_without_its_value_is_refused_at_the_door(plane):
    text = json.loads(spec_text())
    text["secrets"] = ["TOKEN"]
    reply = plane.post("/v1/jobs", {"jobs": [{"spec": json.dumps(text)}]})
    assert (reply.status, "TOKEN" in reply.json["error"]["message"]) == (400, True)
    assert plane.wait(plane.submit("true")["id"])["state"] == "SUCCEEDED"
