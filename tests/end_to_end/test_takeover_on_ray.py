"""Two control planes on one PostgreSQL and one Ray cluster: the second goes on with the first one's jobs."""

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from site_kit import UNTIL_TOLD, Site, until

pytestmark = [pytest.mark.ray, pytest.mark.postgres, pytest.mark.timeout(300)]

GANG = """\
name: gang
num_nodes: 2
placement: {{nodes: distinct}}
workdir: {work}
resources: {{accelerators: 1, cpus: 0.1}}
run: "cat marker; {run}"
"""


@pytest.fixture
def pair(ray_cluster, postgres):
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    more = {"GPUSCHED_DATABASE_URL": postgres.migrated_database(), "GPUSCHED_TOKEN": "shared"}
    sites = []
    try:
        for name in ("first", "second"):
            (folder / name).mkdir()
            sites.append(Site(folder / name, more))
            sites[-1].gpusched("up", "--ray-address", ray_cluster.address)
        yield sites
    finally:
        for site in sites:
            site.down()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_second_control_plane_adopts_what_the_first_one_started_and_takes_in_more(pair, ray_cluster, tmp_path):
    first, second = pair
    work, flag = tmp_path / "work", tmp_path / "flag"
    work.mkdir()
    (work / "marker").write_text("as submitted\n")
    file = tmp_path / "gang.yaml"
    file.write_text(GANG.format(work=work, run=UNTIL_TOLD.format(flag=flag)))
    gang = second.submit(str(file))  # it stands by: the command goes to the one that leads
    until(lambda: first.state(gang) != "STARTING" and first.state(gang) != "QUEUED")
    assert first.state(gang) == "RUNNING", first.gpusched("describe", gang)
    later = first.submit("--hold", str(file))  # its workdir is taken in by one and needed by the other
    mains, status = first.mains(gang), json.loads(second.gpusched("status", "-o", "json"))
    assert (status["leader"], status["leader_url"]) == (False, first.plane()["url"])

    stranger = Site(tmp_path, {})  # another database on the same cluster: its job has the same number
    try:
        stranger.gpusched("up", "--ray-address", ray_cluster.address)
        assert stranger.submit("--gpus", "1", "--", "true") == gang
        stranger.gpusched("wait", gang, "--timeout", "60s")
    finally:
        stranger.down()

    os.kill(first.plane()["pid"], signal.SIGKILL)
    died = time.monotonic()
    until(lambda: json.loads(second.gpusched("status", "-o", "json"))["leader"], within=10)
    assert time.monotonic() - died < 10
    until(lambda: json.loads(second.gpusched("status", "-o", "json"))["ready"])
    described = second.job(gang)
    assert (described["state"], described["attempt"]) == ("RUNNING", 1)
    assert second.mains(gang) == mains
    second.gpusched("release", later)
    flag.touch()
    second.gpusched("wait", gang, later, "--timeout", "60s")
    assert second.job(gang)["attempt"] == 1
    assert second.gpusched("logs", gang, "--rank", "0").split() == ["as", "submitted", "up", "end"]
    assert second.job(later)["state"] == "SUCCEEDED"
