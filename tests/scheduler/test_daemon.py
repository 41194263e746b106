"""The control plane as a process: started once, stopped exactly, and nothing lost when it is killed."""

# ruff: noqa: S310 - the URLs are those of servers that the test started

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from live_kit import spec_text, until

from gpusched.jobs.errors import GpuschedError, NotFoundError, UnreachableError
from gpusched.scheduler import daemon
from gpusched.scheduler.daemon import Start
from gpusched.scheduler.paths import Paths

NO_RAY = Start(ray_address="none")
SOURCE = str(Path(daemon.__file__).parents[1].parent)


@pytest.fixture
def home(tmp_path):
    paths = Paths(tmp_path / "home")
    yield paths
    with contextlib.suppress(NotFoundError):  # the test may have stopped it
        daemon.stop(paths, keep_ray=True)


def post(plane, path, body):
    request = urllib.request.Request(
        plane.url + path, json.dumps(body).encode(), {"Authorization": f"Bearer {plane.token}"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def jobs(plane):
    return daemon.ask(plane, "GET", "/v1/jobs?all=1&limit=10000")["jobs"]


def test_it_starts_detached_says_so_and_is_found_again(home):
    said = []
    plane = daemon.ensure_running(home, start=NO_RAY, say=said.append)
    assert said == ["starting the control plane"]
    assert os.getsid(plane.pid) != os.getsid(0)
    assert daemon.running(home) == plane
    assert daemon.ensure_running(home, start=NO_RAY) == plane
    assert home.control_plane.stat().st_mode & 0o777 == 0o600
    assert home.root.stat().st_mode & 0o777 == 0o700
    assert daemon.ask(plane, "GET", "/v1/status")["ray"]["state"] == "no Ray cluster, as asked: jobs queue up"


def test_two_starters_at_once_get_the_same_one(home):
    found = []
    starters = [
        threading.Thread(target=lambda: found.append(daemon.ensure_running(home, start=NO_RAY))) for _ in range(4)
    ]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(60)
    assert len(found) == 4
    assert len({plane.pid for plane in found}) == 1
    log = home.control_plane_log.read_text()
    assert log.count("serves at") == 1


def test_stopping_ends_it_and_starting_again_keeps_address_and_token(home):
    first = daemon.ensure_running(home, start=NO_RAY)
    assert daemon.stop(home, keep_ray=True) == [f"the control plane (process {first.pid})"]
    assert not daemon.same(first.pid, first.started)
    with pytest.raises(NotFoundError):
        daemon.stop(home, keep_ray=True)
    second = daemon.ensure_running(home, start=NO_RAY)
    assert (second.url, second.token) == (first.url, first.token)
    assert second.pid != first.pid


def test_sigterm_ends_it_in_order(home):
    plane = daemon.ensure_running(home, start=NO_RAY)
    os.kill(plane.pid, signal.SIGTERM)
    until(lambda: not daemon.same(plane.pid, plane.started))
    assert "stopped; what runs on the cluster goes on" in home.control_plane_log.read_text()


def test_a_recycled_pid_is_never_taken_for_the_control_plane_nor_hit(home):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        home.make()
        state = {"url": "http://127.0.0.1:1", "token": "t", "pid": bystander.pid, "started": 12345.0, "version": "0"}
        daemon.write_state(home, state)
        assert daemon.running(home) is None
        with pytest.raises(NotFoundError):
            daemon.stop(home, keep_ray=True)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_second_process_in_the_same_directory_refuses_to_run(home):
    daemon.ensure_running(home, start=NO_RAY)
    command = [sys.executable, "-m", "gpusched.scheduler.control_plane", "--home", str(home.root)]
    second = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCE}, timeout=60, check=False
    )
    assert second.returncode == 8
    assert "a control plane is running in" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("start", "prepare", "words"),
    [
        (Start(policy="nonsense", ray_address="none"), None, "no policy named 'nonsense'"),
        (NO_RAY, "foreign", "is not a SQLite database"),
        (Start(ray_address="none", database="mysql://x"), None, "gpusched does not speak mysql"),
        (Start(ray_address="none", host="203.0.113.1"), None, "cannot listen at 203.0.113.1"),
    ],
)
def test_what_keeps_it_from_starting_is_told_to_who_wanted_it(home, start, prepare, words):
    home.make()
    if prepare:
        home.database.write_text("a diary, not a database")
    with pytest.raises(GpuschedError) as caught:
        daemon.ensure_running(home, start=start)
    assert caught.value.message.startswith("the control plane did not start: ")
    assert words in caught.value.message
    assert "Traceback" not in home.control_plane_log.read_text()
    if prepare:
        assert home.database.read_text() == "a diary, not a database"


def test_a_policy_of_one_s_own_is_found_from_the_folder_where_it_was_named(home, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from gpusched.policies.greedy import Greedy\nclass Mine(Greedy):\n    name = 'mine'\n"
    )
    monkeypatch.chdir(tmp_path)
    plane = daemon.ensure_running(home, start=Start(policy="mine.py:Mine", ray_address="none"))
    assert daemon.ask(plane, "GET", "/v1/status")["policy"]["name"] == "mine"


def test_kill_9_amid_submissions_loses_nothing_that_was_acknowledged_and_doubles_nothing(home):
    plane = daemon.ensure_running(home, start=NO_RAY)
    acknowledged: dict[str, int] = {}
    asked: list[str] = []
    gone = threading.Event()

    def submit(worker):
        number = 0
        while not gone.is_set():
            number += 1
            names = [f"w{worker}-{number}-{part}" for part in range(5)]
            asked.extend(names)
            try:
                answer = post(plane, "/v1/jobs", {"jobs": [{"spec": spec_text(name=name)} for name in names]})
            except OSError:
                return
            acknowledged.update({job["name"]: job["id"] for job in answer["jobs"]})

    workers = [threading.Thread(target=submit, args=(worker,)) for worker in range(4)]
    for worker in workers:
        worker.start()
    until(lambda: len(acknowledged) > 100)
    os.kill(plane.pid, signal.SIGKILL)
    for worker in workers:
        worker.join(30)
    gone.set()
    found = jobs(daemon.ensure_running(home, start=NO_RAY))
    names = [job["name"] for job in found]
    assert len(names) == len(set(names)), "a job is there twice"
    there = {job["name"]: job["id"] for job in found}
    assert acknowledged.items() <= there.items()
    assert set(names) <= set(asked)
    whole = [{f"{name.rpartition('-')[0]}-{part}" for part in range(5)} for name in names]
    assert all(call <= set(names) for call in whole), "a call was queued in part"


def test_kill_9_while_jobs_run_and_wait_lets_them_run_on_and_each_runs_once(tmp_path):
    home = tmp_path / "home"
    command = [sys.executable, str(Path(__file__).parent / "live" / "local_plane.py"), str(home)]
    environment = {**os.environ, "PYTHONPATH": SOURCE}

    def begin():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        said = json.loads(process.stdout.readline())
        return process, daemon.Running(said["url"], said["token"], process.pid, 0.0, "")

    process, plane = begin()
    try:
        bodies = [{"spec": spec_text("sleep 0.4", gpus=2, name=f"job-{n}")} for n in range(12)]
        post(plane, "/v1/jobs", {"jobs": bodies})
        for _ in range(3):
            until(lambda plane=plane: any(job["state"] == "RUNNING" for job in jobs(plane)))
            time.sleep(0.2)  # somewhere in the middle: the moment of the kill is what varies
            process.kill()
            process.wait()
            process, plane = begin()
        until(lambda: all(job["state"] == "SUCCEEDED" for job in jobs(plane)), within=60)
        starts = [tuple(map(int, line.split())) for line in (home / "cluster" / "starts").read_text().splitlines()]
        assert len(starts) == len(set(starts)), "an attempt was started twice"
        ran = [path.name for path in (home / "cluster").iterdir() if (path / "log").exists()]
        for job in jobs(plane):
            assert sum(name.startswith(f"{job['id']}-") for name in ran) == 1, "a job ran twice"
    finally:
        process.kill()
        process.wait()


def test_the_control_plane_never_imports_ray_nor_torch():
    code = (
        "import sys\n"
        "import gpusched.scheduler.control_plane, gpusched.scheduler.api.handlers, gpusched.jobs.spec\n"
        "heavy = {'ray', 'torch', 'numpy', 'pandas', 'rich', 'click'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert found.stdout.strip() == "[]"


def test_a_running_control_plane_has_no_library_of_ray_or_torch_in_its_memory(home):
    plane = daemon.ensure_running(home, start=NO_RAY)
    post(plane, "/v1/jobs", {"jobs": [{"spec": spec_text()}]})
    maps = Path(f"/proc/{plane.pid}/maps").read_text()
    assert "sqlite3" in maps
    assert not re.search(r"/(ray|torch|numpy)/", maps)


def test_at_rest_it_takes_little_memory_and_next_to_no_cpu(home):
    plane = daemon.ensure_running(home, start=NO_RAY)
    post(plane, "/v1/jobs", {"jobs": [{"spec": spec_text(name=f"j{n}")} for n in range(100)], "hold": True})
    process = psutil.Process(plane.pid)
    before = process.cpu_times()
    begun = time.monotonic()
    time.sleep(3)  # what is measured is rest itself
    after = process.cpu_times()
    share = (after.user + after.system - before.user - before.system) / (time.monotonic() - begun)
    assert share < 0.02
    assert process.memory_info().rss < 150e6


def test_a_secret_is_in_no_log_and_in_no_world_readable_file(home):
    plane = daemon.ensure_running(home, start=NO_RAY)
    text = json.loads(spec_text())
    text["secrets"] = ["TOKEN"]
    post(plane, "/v1/jobs", {"jobs": [{"spec": json.dumps(text), "secrets": {"TOKEN": "s3cr3t-value"}}]})
    job = {"spec": json.dumps(text), "secrets": {"TOKEN": "s3cr3t-value"}, "snapshot": "?"}
    with pytest.raises(OSError, match="422"):
        post(plane, "/v1/jobs", {"jobs": [job]})
    assert "s3cr3t-value" not in home.control_plane_log.read_text()
    assert plane.token not in home.control_plane_log.read_text()
    for path in home.root.rglob("*"):
        if path.is_file() and b"s3cr3t-value" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, path


def test_asking_where_nothing_answers_is_unreachable():
    with pytest.raises(UnreachableError, match="does not answer"):
        daemon.ask(daemon.Running("http://127.0.0.1:9", "", 0, 0.0, ""), "GET", "/v1/status")
