"""gpusched on a Ray cluster of several nodes that somebody else started, through the command line."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from site_kit import UNTIL_TOLD, Site, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

GANG = """\
name: gang
num_nodes: {nodes}
placement: {{nodes: distinct}}
resources: {{accelerators: 2, cpus: 0.1}}
run: {run}
"""


@pytest.fixture
def joined(ray_cluster):
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    site = Site(folder, {})
    try:
        site.gpusched("up", "--ray-address", ray_cluster.address)
        yield site
    finally:
        site.down()
        shutil.rmtree(folder, ignore_errors=True)


def placed_on(site, job):
    return {rank["node"] for rank in site.job(job)["attempts"][-1]["ranks"]}


def test_a_gang_that_loses_a_node_is_lost_as_a_whole_and_starts_again_when_it_fits(joined, ray_cluster, tmp_path):
    flag = tmp_path / "flag"
    file = tmp_path / "gang.yaml"
    file.write_text(GANG.format(nodes=len(ray_cluster.names), run=json.dumps(UNTIL_TOLD.format(flag=flag))))
    job = joined.submit(str(file))
    joined.running(job)
    assert placed_on(joined, job) == set(ray_cluster.names)
    first = joined.mains(job)

    ray_cluster.kill_raylet("127.0.0.12")
    until(lambda: joined.state(job) == "QUEUED")
    until(lambda: not first & set(joined.marked(job)))
    assert "Infeasible" in until(lambda: (said := joined.gpusched("explain", job)) and "Infeasible" in said and said)

    ray_cluster.add("127.0.0.14", gpus=2)
    joined.running(job)
    assert placed_on(joined, job) == set(ray_cluster.names)
    flag.touch()
    joined.gpusched("wait", job, "--timeout", "60s")
    described = joined.job(job)
    first_result, *between, last_result = [attempt["result"] for attempt in described["attempts"]]
    assert (first_result, last_result) == ("requeued", "succeeded")
    # Ray may not have room at once where a node has just come or gone; nothing of such a start ran.
    assert set(between) <= {"refused"}
    assert described["failures"] == 0  # a node that goes is not the job's failure


def test_down_leaves_a_cluster_that_it_joined_alone(joined, ray_cluster):
    joined.gpusched("down")
    joined.gpusched("up", "--ray-address", ray_cluster.address)
    nodes = json.loads(joined.gpusched("nodes", "-o", "json"))["nodes"]
    assert {node["name"] for node in nodes if node["state"] == "up"} == set(ray_cluster.names)


def test_never_on_this_cluster_is_another_answer_than_not_now(joined):
    said = joined.gpusched("submit", "--dry-run", "--gpus", "1", "--cpus", "0.1", "--", "true")
    assert "would start now" in said
    joined.gpusched("submit", "--gpus", "64", "--", "true", code=5)
    joined.gpusched("submit", "--dry-run", "--gpus", "64", "--", "true", code=5)
    assert json.loads(joined.gpusched("ps", "-a", "-A", "-o", "json"))["jobs"] == []


def test_a_token_of_another_cluster_does_not_keep_workdirs_from_the_nodes(ray_cluster, tmp_path):
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    site = Site(folder, {"RAY_AUTH_TOKEN": "of-a-cluster-that-has-one"})
    try:
        site.gpusched("up", "--ray-address", ray_cluster.address)
        work, file = tmp_path / "work", tmp_path / "gang.yaml"
        work.mkdir()
        (work / "marker").write_text("as submitted\n")
        file.write_text(GANG.format(nodes=2, run="cat marker") + f"workdir: {work}\n")
        gang = site.submit(str(file))
        site.gpusched("wait", gang, "--timeout", "60s")
        assert site.job(gang)["state"] == "SUCCEEDED"
        assert len(placed_on(site, gang)) == 2
    finally:
        site.down()
        shutil.rmtree(folder, ignore_errors=True)
