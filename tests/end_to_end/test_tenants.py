"""Many tenants on a real Ray: priorities that preempt, quotas with what is lent and taken back, another policy live."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from site_kit import UNTIL_TOLD, Site, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

QUEUES = """\
apiVersion: gpusched/v1
kind: Queues
queues:
  - {name: lab}
  - {name: a, parent: lab, nominal_quota: 1}
  - {name: b, parent: lab, nominal_quota: 1}
"""


@pytest.fixture(scope="module")
def site():
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    whole = Site(folder, {})
    try:
        whole.gpusched("up", "--gpus", "2", within=180)
        yield whole
    finally:
        whole.down()
        shutil.rmtree(folder, ignore_errors=True)


def kinds(site, job):
    return [event["kind"] for event in site.job(job)["events"]]


def events(site, job):
    return {event["kind"]: event["data"] for event in site.job(job)["events"]}


def test_an_urgent_job_takes_the_place_of_one_that_may_be_stopped_and_that_one_goes_on_after_it(site, tmp_path):
    assert "urgent/1 decides from now on" in site.gpusched("policy", "use", "urgent")
    flag, other = tmp_path / "flag", tmp_path / "other"
    first = site.submit("--gpus", "2", "--priority", "10", "--preemptible", "--", UNTIL_TOLD.format(flag=flag))
    site.running(first)
    mains = site.mains(first)
    second = site.submit("--gpus", "1", "--priority", "90", "--", UNTIL_TOLD.format(flag=other))
    site.running(second)
    assert not mains & set(site.marked(first)), "its processes are gone before its GPUs are given away"
    until(lambda: site.state(first) == "QUEUED")
    assert events(site, first)["preempted"] == {"claimant": int(second)}
    assert "InsufficientGPUs" in site.gpusched("explain", first)
    other.touch()
    site.gpusched("wait", second, "--timeout", "60s")
    site.running(first)
    flag.touch()
    site.gpusched("wait", first, "--timeout", "60s")
    described = site.job(first)
    assert [attempt["result"] for attempt in described["attempts"]] == ["preempted", "succeeded"]
    assert described["failures"] == 0


def test_a_queue_lends_what_it_does_not_use_and_takes_it_back(site, tmp_path):
    file = tmp_path / "queues.yaml"
    file.write_text(QUEUES)
    site.gpusched("queues", "apply", str(file))
    said = site.gpusched("submit", "--queue", "c", "--gpus", "1", "--", "true", code=3)
    assert said == ""
    flag, other = tmp_path / "flag", tmp_path / "other"
    jobs = [
        site.submit("--gpus", "1", "--queue", "a", "--preemptible", "--", UNTIL_TOLD.format(flag=flag))
        for _ in range(2)
    ]
    for job in jobs:
        site.running(job)
    third = site.submit("--gpus", "1", "--queue", "a", "--preemptible", "--", UNTIL_TOLD.format(flag=flag))
    assert "QuotaExceeded" in site.gpusched("explain", third)
    owner = site.submit("--gpus", "1", "--queue", "b", "--", UNTIL_TOLD.format(flag=other))
    site.running(owner)
    assert sorted(site.state(job) for job in jobs) == ["QUEUED", "RUNNING"]
    rows = {row["name"]: row for row in json.loads(site.gpusched("queues", "list", "-o", "json"))["queues"]}
    assert (rows["a"]["used"]["gpus"], rows["b"]["used"]["gpus"]) == (1, 1)
    flag.touch()
    other.touch()
    site.gpusched("wait", *jobs, third, owner, "--timeout", "90s")
    assert {site.state(job) for job in (*jobs, third, owner)} == {"SUCCEEDED"}
    site.gpusched("queues", "rollback", "0")


def test_the_choice_of_a_policy_holds_after_a_restart(site):
    site.gpusched("policy", "use", "fair")
    site.gpusched("down")
    site.gpusched("up", "--gpus", "2", within=180)
    status = json.loads(site.gpusched("status", "-o", "json"))
    assert status["policy"]["name"] == "fair"
