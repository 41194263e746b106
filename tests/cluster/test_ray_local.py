"""A Ray of our own: started once, found again, and ended to its last process while others live on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpusched.cluster.ray import local, supervisor
from gpusched.cluster.ray.backend import RayBackend
from gpusched.jobs.errors import GpuschedError

pytestmark = pytest.mark.ray


def below(pid):
    return [one for one in (pid, *supervisor.descendants(pid)) if supervisor.running(one)]


def test_a_local_ray_is_started_found_again_and_ended_to_the_last_process(tmp_path, wait_until):
    bystander = subprocess.Popen(["sleep", "1000"])
    lines = []
    try:
        ray = local.start(tmp_path, gpus=3, dashboard=False, say=lines.append)
        assert local.answers(ray.address)
        assert (ray.gpus, ray.logical, ray.dashboard) == (3, True, "")
        assert any("3 logical GPUs" in line for line in lines)
        assert local.running(tmp_path) == ray
        assert local.start(tmp_path) == ray
        keeper = next(iter(ray.pids))
        processes = below(keeper)
        assert len(processes) > 4
        code = "import ray; ray.init(logging_level='ERROR'); print(int(ray.cluster_resources()['GPU']))"
        env = {**os.environ, **ray.environment, "RAY_ADDRESS": ray.address}
        seen = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True
        )
        assert seen.stdout.split()[-1] == "3"
        backend = RayBackend(ray.address, tmp_path)
        wait_until(lambda: backend.poll(0.0).nodes or (backend.alive() and pytest.fail(backend.alive())))
        backend.close()
        assert Path(ray.token_file).stat().st_mode & 0o077 == 0
        assert local.stop(tmp_path) >= len(processes)
        assert [pid for pid in processes if supervisor.running(pid)] == []
        assert local.running(tmp_path) is None
        assert bystander.poll() is None
    finally:
        local.stop(tmp_path)
        bystander.kill()
        bystander.wait()


def test_stopping_what_was_never_started_does_nothing(tmp_path):
    assert local.stop(tmp_path) == 0
    assert local.running(tmp_path) is None


def test_a_record_whose_pid_was_given_to_another_process_is_not_believed(tmp_path):
    record = {
        "address": "127.0.0.2:1",
        "dashboard": "",
        "gpus": 2,
        "logical": True,
        "pids": {str(os.getpid()): 1},
        "folder": str(tmp_path / "gone"),
        "token_file": "",
    }
    (tmp_path / "ray.json").write_text(json.dumps(record))
    assert local.running(tmp_path) is None
    assert local.stop(tmp_path) == 0


def test_a_ray_that_does_not_come_up_says_why(tmp_path):
    with pytest.raises(GpuschedError, match="did not come up") as caught:
        local.start(tmp_path, gpus=-1, dashboard=False)
    assert "ray-start.log" in caught.value.hint
    assert "GPU" in (tmp_path / "ray-start.log").read_text()
    assert local.running(tmp_path) is None


def test_the_environment_names_the_cluster_and_a_stale_record_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    assert local.find() == "10.1.2.3:6379"
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert local.find() is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / local.ADDRESS_FILE).write_text("127.0.0.1:1")
    assert local.find() is None
