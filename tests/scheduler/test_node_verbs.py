"""Draining, resuming and maintenance of a live control plane, over HTTP and at the command line."""

from __future__ import annotations

import json
import re
import time

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name
from live_kit import NODES, until

from gpusched.cluster.backend import Node

SAVES = "trap 'exit 75' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def at(cli, plane):  # noqa: F811 - the fixture
    """The command line, pointed at a plane of 2 nodes with 4 GPUs each."""
    return cli.at(plane)


def node_of(plane, name):
    return next(node for node in plane.get("/v1/nodes").json["nodes"] if node["name"] == name)


def history(plane, name):
    return [line["data"]["what"] for line in plane.get(f"/v1/nodes/{name}").json["node"]["events"]]


def running(plane, run=SAVES, **keys):
    job = plane.submit(run, **keys)
    plane.wait(job["id"], until_state="running")
    until(lambda: any("up" in line.get("text", "") for line in plane.lines(f"/v1/jobs/{job['id']}/logs")))
    return job["id"]


def test_a_drain_moves_what_runs_and_says_all_along_how_far_it_is(plane):
    job = running(plane, gpus=2, checkpoint={"grace": "5s"})
    node = plane.job(job)["nodes"][0]
    drained = plane.post(f"/v1/nodes/{node}/drain", {"reason": "new fans", "within": 5.5}).json["node"]
    assert (drained["state"], drained["reason"], drained["by"], drained["changed"]) == (
        "draining",
        "new fans",
        "ann",
        True,
    )
    assert drained["deadline"] is not None
    assert [one["id"] for one in drained["jobs"]] == [job]
    until(lambda: node_of(plane, node)["state"] == "drained")
    assert history(plane, node) == ["joined", "draining", "drained"]
    until(lambda: plane.job(job)["attempt"] == 2 and plane.job(job)["state"] == "RUNNING")
    found = plane.job(job)
    assert found["nodes"][0] != node
    assert (found["failures"], found["attempts"][0]["result"]) == (0, "preempted")
    again = plane.post(f"/v1/nodes/{node}/drain", {}).json["node"]
    assert (again["changed"], again["reason"], again["state"]) == (False, "new fans", "drained")
    assert plane.post(f"/v1/nodes/{node}/resume").json["node"]["state"] == "up"
    assert plane.post(f"/v1/nodes/{node}/resume").json["node"]["changed"] is False
    assert history(plane, node)[-1] == "resumed"


def test_a_drain_and_a_window_outlive_the_control_plane(plane_in):
    old = plane_in()
    old.post("/v1/nodes/n2/drain", {"reason": "fans", "within": 3600})
    window = old.post("/v1/maintenance", {"nodes": ["n1"], "after": 7200, "duration": 60}).json["window"]
    before = node_of(old, "n2")
    old.close()
    new = plane_in()
    after = node_of(new, "n2")
    assert [after[key] for key in ("state", "by", "deadline", "since")] == [
        before[key] for key in ("state", "by", "deadline", "since")
    ]
    assert node_of(new, "n1")["maintenance"]["id"] == window["id"]
    assert [one["id"] for one in new.get("/v1/maintenance").json["windows"]] == [window["id"]]
    assert history(new, "n2") == ["joined", "draining", "drained"], "a restart is no news"


def test_during_a_window_its_nodes_are_closed_and_then_they_resume_by_themselves(plane):
    job = running(plane, gpus=4, checkpoint={"grace": "1s"})
    node = plane.job(job)["nodes"][0]
    asked = {"nodes": [node], "after": 1.5, "duration": 2.5, "reason": "firmware", "lead": 0}
    window = plane.post("/v1/maintenance", asked).json["window"]
    assert (window["state"], window["covers"], window["by"]) == ("planned", [node], "ann")
    long = plane.submit("true", gpus=4, nodes=2, max_duration="1h")
    (reason, *_) = plane.get(f"/v1/jobs/{long['id']}/explain").json["reasons"]
    assert (reason["token"], reason["nodes"]) == ("NodesDraining", [node])
    assert "not now" in reason["message"]
    assert reason["until"] == pytest.approx(time.time() + 4.0, abs=2.0)
    assert plane.job(long["id"])["reason"] == "NodesDraining", "listings say so too"
    until(lambda: node_of(plane, node)["state"] == "maintenance")
    until(lambda: plane.job(job)["attempt"] == 2)
    assert plane.job(job)["nodes"][0] != node
    assert plane.job(job)["failures"] == 0
    until(lambda: node_of(plane, node)["state"] == "up")
    assert plane.job(job)["attempt"] == 2, "it did not come and go while the window was near"
    assert history(plane, node) == ["joined", "maintenance began", "maintenance ended"]
    plane.post(f"/v1/jobs/{job}/cancel")
    assert plane.wait(long["id"])["state"] == "SUCCEEDED"


def test_a_window_that_is_cancelled_is_over_and_one_that_is_nonsense_is_refused(plane):
    window = plane.post("/v1/maintenance", {"all": True, "after": 0, "duration": 600}).json["window"]
    assert window["state"] == "on"
    until(lambda: {node["state"] for node in plane.get("/v1/nodes").json["nodes"]} == {"maintenance"})
    cancelled = plane.post(f"/v1/maintenance/{window['id']}/cancel").json["window"]
    assert (cancelled["state"], cancelled["changed"]) == ("cancelled", True)
    assert {node["state"] for node in plane.get("/v1/nodes").json["nodes"]} == {"up"}
    assert plane.post(f"/v1/maintenance/{window['id']}/cancel").json["window"]["changed"] is False
    for body, status, words in (
        ({"all": True, "duration": 60}, 400, "say when it starts"),
        ({"duration": 60, "after": 1}, 400, "give nodes, labels or all"),
        ({"all": True, "after": 1}, 400, "duration is missing"),
        ({"all": True, "after": 1, "duration": -1}, 400, "lasts longer than 0 s"),
        ({"all": True, "start": "2001-01-01", "duration": 60}, 400, "would have ended"),
        ({"nodes": ["n9"], "after": 1, "duration": 60}, 404, "there is no node 'n9'"),
        ({"all": 1, "after": 1, "duration": 60}, 400, "all must be true or false"),
        ({"all": True, "start": "soon", "duration": 60}, 400, "start is no time"),
    ):
        reply = plane.post("/v1/maintenance", body)
        assert (reply.status, words in reply.json["error"]["message"]) == (status, True), (body, reply.body)
    assert plane.post("/v1/maintenance/9/cancel").status == 404
    assert plane.post("/v1/nodes/n9/drain", {}).status == 404
    assert plane.post("/v1/nodes/n1/drain", {"within": -1}).status == 400
    assert plane.post("/v1/nodes/n1/drain", {"within": 1, "deadline": "2031-01-01"}).status == 400
    assert plane.get("/v1/nodes/n9").status == 404


def test_a_node_that_comes_and_goes_is_said_to_flap_and_keeps_its_cordon(plane):
    plane.post("/v1/nodes/n2/cordon", {"reason": "loud"})
    for count in range(1, 4):
        plane.backend.change(NODES[1], gone=True)
        until(lambda count=count: history(plane, "n2").count("left") == count)
        plane.backend.change(NODES[1])
        until(lambda count=count: history(plane, "n2").count("returned") == count)
    node = node_of(plane, "n2")
    assert (node["state"], node["reason"], node["flaps"], node["left_recently"]) == ("cordoned", "loud", True, 3)
    assert node_of(plane, "n1")["flaps"] is False
    plane.backend.change(Node("n3", 4, "H100", cpu_milli=16_000, memory=1 << 36))
    job = plane.submit("true", gpus=4, nodes=2)
    assert plane.wait(job["id"])["state"] == "SUCCEEDED", "the new node is used at once, the cordoned one is not"
    assert set(plane.job(job["id"])["nodes"]) == {"n1", "n3"}


# At the command line ------------------------------------------------------------------------------------------------


def test_the_verbs_on_nodes_are_one_set(at, plane):
    assert at("drain", "n1", "n2", "--reason", "fan").stdout == "node n1 is drained\nnode n2 is drained\n"
    assert at("drain", "n1").stdout == "node n1 is drained already\n"
    assert at("cordon", "n1").stdout == "node n1 is cordoned\n"
    assert at("cordon", "n1").stdout == "node n1 is cordoned already\n"
    assert re.search(r"n1 +drained", at("nodes").stdout)
    assert at("resume", "n1", "n2").stdout == "node n1 takes new work\nnode n2 takes new work\n"
    assert at("resume", "n1").stdout == "node n1 was not cordoned or drained\n"
    assert "exclude each other" in at("drain", "n1", "--now", "--deadline", "1h", code=2).stderr
    assert "--deadline" in at("drain", "n1", "--deadline", "10", code=2).stderr
    assert "there is no node 'n9'" in at("drain", "n9", "n1", code=3).stderr
    assert node_of(plane, "n1")["state"] == "drained", "the other was done all the same"
    told = at("nodes", "n1").stdout
    assert re.search(r"joined.*\n.*draining by ann: fan\n.*drained\n.*cordoned by ann.*\n.*resumed by ann\n", told)
    assert at("describe", "node/n1").stdout == at("nodes", "n1").stdout
    (found,) = json.loads(at("nodes", "n1", "-o", "json").stdout)["nodes"]
    assert found["events"][0]["data"]["what"] == "joined"


def test_nodes_are_selected_by_their_labels(at, plane):
    plane.backend.change(Node("n3", 4, labels={"rack": "7"}))
    until(lambda: any(node["name"] == "n3" for node in plane.get("/v1/nodes").json["nodes"]))
    assert at("drain", "-l", "rack=7", "--now").stdout == "node n3 is drained\n"
    assert "no node carries rack=8" in at("cordon", "-l", "rack=8", code=3).stderr
    assert at("resume", "-l", "rack=7").stdout == "node n3 takes new work\n"
    assert "not both" in at("drain", "n1", "-l", "rack=7", code=2).stderr
    assert "name a node" in at("drain", code=2).stderr


def test_maintenance_is_planned_listed_and_cancelled(at):
    said = at("maintenance", "add", "--nodes", "n1,n2", "--start", "12h", "--duration", "2h", "--reason", "fw").stdout
    assert re.fullmatch(r"maintenance 1: .* to .* UTC on n1,n2\n", said)
    add = ("maintenance", "add", "--all", "--start", "2031-01-01T00:00:00Z", "--duration", "1h", "-q")
    assert at(*add).stdout == "2\n"
    listed = json.loads(at("maintenance", "list", "-o", "json").stdout)["windows"]
    assert [(one["id"], one["state"], one["reason"]) for one in listed] == [
        (1, "planned", "fw"),
        (2, "planned", "by an administrator"),
    ]
    assert at("maintenance", "cancel", "1", "2").stdout == "maintenance 1 is cancelled\nmaintenance 2 is cancelled\n"
    assert "already" in at("maintenance", "cancel", "1").stdout
    assert "no maintenance is planned" in at("maintenance", "list").stderr
    assert "one of them" in at("maintenance", "add", "--start", "1h", "--duration", "1h", code=2).stderr


def test_explain_says_who_took_a_jobs_gpus_back(at, plane):
    job = running(plane, gpus=2, checkpoint={"grace": "5s"})
    node = plane.job(job)["nodes"][0]
    at("drain", node, "--now", "--reason", "smoke")
    until(lambda: plane.job(job)["attempt"] == 2)
    said = at("explain", "--preempted", str(job)).stdout
    assert f"node {node} is drained by ann until" in said
    assert "smoke" in said
    assert "it left with exit code 75, no work lost" in said
    (found,) = json.loads(at("explain", "--preempted", str(job), "-o", "json").stdout)["explanations"]
    assert [(one["cause"], one["node"], one["by"]) for one in found["preemptions"]] == [("drain", node, "ann")]
