"""A node of a real Ray cluster is drained under a job that saves its work: nothing is lost, and the node comes back."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from site_kit import SOURCE, Site, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

SAVES = """\
import pathlib, signal, sys, time
from gpusched import job

folder = pathlib.Path(job.checkpoint_dir())
saved = folder / "step"
step = int(saved.read_text()) if saved.exists() else 0
print("attempt", job.attempt(), "begins at", step, flush=True)
while step < 100_000 and not pathlib.Path(sys.argv[1]).exists():
    step += 1
    time.sleep(0.02)
    if job.should_preempt():
        saved.write_text(str(step))
        job.report_checkpoint(step)
        print("saved", step, flush=True)
        sys.exit(75)
print("ended at", step, flush=True)
"""
JOB = """\
name: saves
resources: {{accelerators: 2, cpus: 0.1}}
checkpoint: {{grace: 6s}}
env: {{PYTHONPATH: {source}}}
run: exec {python} {program} {flag}
"""


@pytest.fixture
def joined(ray_cluster):
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    site = Site(folder, {"XDG_CACHE_HOME": str(folder / "cache")})
    try:
        site.gpusched("up", "--ray-address", ray_cluster.address)
        until(lambda: len(nodes(site)) == len(ray_cluster.names))
        yield site
    finally:
        site.down()
        shutil.rmtree(folder, ignore_errors=True)


def nodes(site):
    found = json.loads(site.gpusched("nodes", "-o", "json"))["nodes"]
    return {node["name"]: node for node in found if node["state"] != "gone"}


def test_a_job_is_drained_off_its_node_in_time_goes_on_elsewhere_and_the_node_takes_work_again(
    joined, ray_cluster, tmp_path
):
    program, flag, file = tmp_path / "saves.py", tmp_path / "flag", tmp_path / "job.yaml"
    program.write_text(SAVES)
    file.write_text(JOB.format(python=sys.executable, program=program, flag=flag, source=SOURCE))
    job = joined.submit(str(file))
    joined.running(job)
    until(lambda: "begins at 0" in joined.gpusched("logs", job))
    (rank,) = joined.job(job)["attempts"][-1]["ranks"]
    node = rank["node"]

    assert "1 job has until" in joined.gpusched("drain", node, "--deadline", "8s", "--reason", "new memory")
    assert nodes(joined)[node]["state"] == "draining"
    until(lambda: nodes(joined)[node]["state"] == "drained")
    until(lambda: len(joined.job(job)["attempts"]) == 2 and joined.state(job) == "RUNNING")
    first, second = joined.job(job)["attempts"]
    assert (first["result"], first["exit_code"], first["lost_work"]) == ("preempted", 75, 0)
    assert second["ranks"][0]["node"] != node
    saved = joined.gpusched("logs", job, "--attempt", "1").split()[-1]
    until(lambda: f"attempt 2 begins at {saved}" in joined.gpusched("logs", job))
    assert int(saved) > 0
    assert joined.job(job)["failures"] == 0
    preempted = [event["data"] for event in joined.job(job)["events"] if event["kind"] == "preempted"]
    assert [(data["cause"], data["node"], data["by"]) for data in preempted] == [("drain", node, "ann")]
    assert "new memory" in joined.gpusched("explain", "--preempted", job)

    assert "is drained already" in joined.gpusched("drain", node)
    joined.gpusched("down")
    joined.gpusched("up", "--ray-address", ray_cluster.address)
    until(lambda: node in nodes(joined))
    assert nodes(joined)[node]["state"] == "drained", "it outlives the control plane, and Ray's node stays"

    whole = joined.submit("--gpus", "2", "--nodes", str(len(nodes(joined))), "--", "true")
    said = until(lambda: (said := joined.gpusched("explain", whole)) and "NodesDraining" in said and said)
    assert f"{node} (drained by ann until " in said
    assert ": new memory)" in said
    assert "takes new work" in joined.gpusched("resume", node)
    assert "was not cordoned or drained" in joined.gpusched("resume", node)
    flag.touch()
    joined.gpusched("wait", job, whole, "--timeout", "60s", within=80)
    assert {one["node"] for one in joined.job(whole)["attempts"][-1]["ranks"]} == nodes(joined).keys()
    told = joined.gpusched("nodes", node)
    places = [told.index(word) for word in ("joined", "draining by ann", "drained", "resumed by ann")]
    assert places == sorted(places)
