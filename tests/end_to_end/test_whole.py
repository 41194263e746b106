"""The product as a user has it: command line, control plane, SQLite, Ray and processes, with GPUs that NVML shows."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest
from fake_nvml import FakeNvml
from site_kit import UNTIL_TOLD, Site, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def site(nvml_library):
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    nvml = FakeNvml(nvml_library, folder / "nvml.txt")
    nvml.show([{"utilization": 80, "memory_used": 300 << 20, "power": 250_000, "temperature": 61}] * 4)
    whole = Site(folder, nvml.environment)
    try:
        whole.gpusched("up", within=180)
        yield whole
    finally:
        whole.down()
        shutil.rmtree(folder, ignore_errors=True)


def test_run_starts_a_gang_streams_its_output_and_exits_with_its_code(site):
    command = 'echo "rank $RANK of $WORLD_SIZE sees GPU $CUDA_VISIBLE_DEVICES"; exit $((RANK * 7))'
    said = site.gpusched("run", "--gpus", "1", "-N", "2", "--name", "pair", "--", command, code=7)
    assert re.search(r"rank 0 of 2 sees GPU \d", said)
    assert re.search(r"rank 1 of 2 sees GPU \d", said)
    described = site.job("pair")
    assert (described["state"], described["exit_code"]) == ("FAILED", 7)


def test_nodes_show_the_gpus_that_nvml_shows(site):
    nodes = json.loads(site.gpusched("nodes", "-o", "json"))["nodes"]
    assert [(node["gpus"], node["gpu_type"], node["state"]) for node in nodes] == [(4, "A100", "up")]


def test_what_waits_says_why_and_starts_when_room_comes(site, tmp_path):
    flag = tmp_path / "flag"
    holder = site.submit("--gpus", "3", "--time", "10m", "--", UNTIL_TOLD.format(flag=flag))
    site.running(holder)
    waiter = site.submit("--gpus", "2", "--name", "waiter", "--", "echo my turn")
    said = site.gpusched("explain", waiter)
    assert "InsufficientGPUs" in said
    assert "needs 2" in said
    assert "free 1" in said
    flag.touch()
    site.gpusched("wait", waiter, "--timeout", "60s")
    assert site.gpusched("logs", waiter).strip() == "my turn"


def test_a_queued_job_runs_the_code_that_was_submitted(site, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "say.sh").write_text("echo as submitted\n")
    (work / "job.yaml").write_text("name: snapshot\nworkdir: .\nrun: bash say.sh\n")
    job = site.submit("--hold", "job.yaml", folder=work)
    (work / "say.sh").write_text("echo changed since\n")
    site.gpusched("release", job)
    site.gpusched("wait", job, "--timeout", "60s")
    assert site.gpusched("logs", job).strip() == "as submitted"


def test_use_is_measured_by_job(site, tmp_path):
    flag = tmp_path / "flag"
    job = site.submit("--gpus", "2", "--name", "measured", "--", UNTIL_TOLD.format(flag=flag))
    site.running(job)

    def used():
        gpus = json.loads(site.gpusched("top", "-o", "json"))["gpu"]
        return [gpu for gpu in gpus if gpu["job"] == int(job) and gpu["utilization"] is not None]

    assert {gpu["utilization"] for gpu in until(used)} == {80.0}

    def reported():
        rows = json.loads(site.gpusched("report", "usage", "--by", "job", "-o", "json"))["rows"]
        return [row for row in rows if str(row["key"]).startswith(job) and row["gpu_hours_used"]]

    row = until(reported)[0]
    assert 0 < row["gpu_hours_used"] < row["gpu_hours_allocated"]
    flag.touch()
    site.gpusched("wait", job, "--timeout", "60s")


def test_the_ray_dashboard_finds_a_running_job_and_the_control_plane(site, tmp_path):
    flag = tmp_path / "flag"
    job = site.submit("--gpus", "1", "-N", "2", "--name", "seen", "--", UNTIL_TOLD.format(flag=flag))
    site.running(job)
    status = json.loads(site.gpusched("status", "-o", "json"))
    links = status["ray"]["links"]
    token = Path(links["token"]).read_text()

    def dashboard(path):
        request = urllib.request.Request(links["dashboard"] + path, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own loopback
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - the same
            return json.load(answer)

    name = f"gs:{(site.home / 'identity').read_text()}:{job}:1"
    groups = dashboard("/api/v0/placement_groups")["data"]["result"]["result"]
    assert [g["state"] for g in groups if g["name"] == name] == ["CREATED"]
    actors = dashboard("/api/v0/actors?limit=1000&detail=true")["data"]["result"]["result"]
    alive = {actor["name"] for actor in actors if actor["state"] == "ALIVE"}
    assert {f"{name}:0", f"{name}:1"} <= alive
    assert [a["repr_name"] for a in actors if a["name"] == f"{name}:1"] == [f"seen (job {job}, attempt 1) rank 1"]
    drivers = [entry for entry in dashboard("/api/jobs/") if entry["status"] == "RUNNING"]
    assert any("gpusched" in json.dumps(entry) for entry in drivers)
    described = site.gpusched("describe", job)
    assert f"placement group {name}" in described
    assert described.count(f"{links['dashboard']}/#/actors/") == 2
    flag.touch()
    site.gpusched("wait", job, "--timeout", "60s")


LEAK = """\
name: {name}
{more}
checkpoint: {{grace: 1s}}
run: |
  trap '' TERM INT
  setsid bash -c "trap '' TERM; sleep 1000" &
  (setsid sleep 1001 &)
  sleep 1002
"""


def test_over_its_time_limit_a_job_is_stopped_with_every_process_it_started(site, tmp_path):
    file = tmp_path / "over.yaml"
    file.write_text(LEAK.format(name="over", more="max_duration: 3s"))
    job = site.submit(str(file))
    until(lambda: len(site.marked(job)) >= 4)
    site.gpusched("wait", job, "--timeout", "60s", code=137)
    assert site.state(job) == "TIMEOUT"
    assert site.marked(job) == []


def test_cancel_leaves_nothing_behind_though_the_job_ignores_signals(site, tmp_path):
    file = tmp_path / "stubborn.yaml"
    file.write_text(LEAK.format(name="stubborn", more=""))
    job = site.submit(str(file))
    site.running(job)
    until(lambda: len(site.marked(job)) >= 4)
    site.gpusched("cancel", job)
    until(lambda: site.state(job) == "CANCELLED")
    assert site.marked(job) == []


def test_killed_control_plane_jobs_run_on_and_are_adopted(site, tmp_path):
    flag = tmp_path / "flag"
    job = site.submit("--gpus", "2", "--", UNTIL_TOLD.format(flag=flag))
    waiter = site.submit("--gpus", "4", "--name", "next", "--", "echo after")
    site.running(job)
    before = site.mains(job)
    os.kill(site.plane()["pid"], signal.SIGKILL)
    site.gpusched("ps", code=7)
    assert before <= set(site.marked(job))
    site.gpusched("up", within=120)
    described = site.job(job)
    assert (described["state"], described["attempt"]) == ("RUNNING", 1)
    assert before <= set(site.marked(job))
    flag.touch()
    site.gpusched("wait", job, waiter, "--timeout", "60s")
    assert site.gpusched("logs", job).split() == ["up", "end"]
    assert site.gpusched("logs", waiter).split() == ["after"]


def test_killed_gateway_jobs_run_on_and_are_adopted(site, tmp_path):
    flag = tmp_path / "flag"
    job = site.submit("--gpus", "1", "--", UNTIL_TOLD.format(flag=flag))
    site.running(job)
    gateway = site.gateway()
    os.kill(gateway, signal.SIGKILL)
    until(lambda: site.gateway() not in (None, gateway))
    flag.touch()
    site.gpusched("wait", job, "--timeout", "60s")
    described = site.job(job)
    assert (described["state"], described["attempt"]) == ("SUCCEEDED", 1)
    assert site.gpusched("logs", job).split() == ["up", "end"]


def test_the_live_journal_exports_as_a_trace_that_replays(site, tmp_path):
    trace = tmp_path / "history.csv"
    trace.write_text(site.gpusched("export"))
    runs = json.loads(site.gpusched("simulate", str(trace), "--nodes", "1x4", "--policy", "fifo", "-o", "json"))["runs"]
    assert runs[0]["finished"] == runs[0]["submitted"] > 0


def test_down_stops_what_it_started_and_nothing_else(site):
    local = json.loads((site.home / "ray.json").read_text())
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        plane = site.plane()["pid"]
        site.gpusched("down", "--force")
        until(lambda: not Path(f"/proc/{plane}").exists())
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in local["pids"]))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
