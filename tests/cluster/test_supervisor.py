"""The supervisor, alone and without Ray: whatever the user's processes do, not one is left."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from gpusched.cluster.ray import supervisor

MARK = "GPUSCHED_TEST_MARK"


def eventually(check, *, within=10.0):
    """Wait for `check()` to be true and return its value."""
    deadline = time.monotonic() + within
    while not (value := check()):
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)
    return value


class Rank:
    """One supervised rank; the test plays the Runner and holds the lifeline."""

    def __init__(self, folder: Path, **request):
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.log = folder / "rank.log"
        fifo = folder / "lifeline"
        os.mkfifo(fifo)
        self.lifeline = os.open(fifo, os.O_RDWR)
        env = {MARK: self.mark, "PATH": os.environ["PATH"], **request.pop("env", {})}
        self.request = {
            "dir": str(folder),
            "cwd": str(folder),
            "log": str(self.log),
            "lifeline": str(fifo),
            "grace": 0.5,
            "env": env,
            **request,
        }
        done = subprocess.run(
            [sys.executable, "-I", "-S", supervisor.__file__],
            input=json.dumps(self.request),
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        self.pids = json.loads(done.stdout)

    def stop(self, grace):
        os.write(self.lifeline, json.dumps({"stop": grace}).encode() + b"\n")

    def drop(self):
        os.close(self.lifeline)
        self.lifeline = -1

    def prints(self, text):
        eventually(lambda: self.log.exists() and text in self.log.read_text())

    def result(self):
        return eventually(lambda: supervisor.read_result(str(self.folder)), within=20)

    def survivors(self):
        return marked(self.mark)


def marked(mark):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture
def rank(tmp_path):
    ranks = []

    def start(**request):
        ranks.append(Rank(tmp_path, **request))
        return ranks[-1]

    yield start
    for one in ranks:
        if one.lifeline >= 0:
            one.drop()
        eventually(lambda one=one: not supervisor.running(one.pids["pid"]))
        assert one.survivors() == []


NASTY = {
    "ignores SIGTERM": "trap '' TERM; while :; do sleep 0.1; done",
    "calls setsid": "setsid sleep 1000 & sleep 1000",
    "forks twice": "(setsid sleep 1000 &) ; (setsid bash -c 'trap \"\" TERM; sleep 1000' &) ; sleep 1000",
    "leaks a tree": "for i in 1 2 3; do (sleep 1000 & sleep 1000 & wait) & done; sleep 1000",
}
HOPPER = """
import os, time
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@pytest.mark.parametrize("script", NASTY.values(), ids=NASTY)
def test_a_stop_leaves_no_descendant(rank, script):
    job = rank(run=f"echo up; {script}")
    job.prints("up")
    job.stop(0.3)
    assert job.result()["exit_code"] in (143, 137)
    assert job.survivors() == []


@pytest.mark.parametrize("script", NASTY.values(), ids=NASTY)
def test_a_lost_runner_leaves_no_descendant(rank, script):
    job = rank(run=f"echo up; {script}")
    job.prints("up")
    job.drop()
    assert job.result()["cause"] == "its Runner is gone"
    assert job.survivors() == []


def test_processes_that_fork_while_they_are_killed_are_caught(rank, tmp_path):
    (tmp_path / "hop.py").write_text(HOPPER)
    job = rank(run=f"{sys.executable} -S hop.py & {sys.executable} -S hop.py & echo up; sleep 1000")
    job.prints("up")
    job.stop(0)
    assert job.result()["signal"] == signal.SIGKILL
    assert job.survivors() == []


def test_descendants_that_outlive_the_main_process_are_killed_and_counted(rank):
    job = rank(run="(setsid sleep 1000 &); sleep 1000 & exit 3")
    result = job.result()
    assert (result["exit_code"], result["leaked"], result["cause"]) == (3, 2, "exit")
    assert job.survivors() == []


def test_only_the_main_process_gets_the_sigterm_so_its_helpers_live_while_it_saves(rank, tmp_path):
    (tmp_path / "train.py").write_text(
        "import signal, subprocess, sys, time\n"
        "helper = subprocess.Popen(['sleep', '1000'])\n"
        "def save(*_):\n"
        "    time.sleep(0.2)\n"
        "    print('helper lives' if helper.poll() is None else 'helper died')\n"
        "    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('training')\n"
        "signal.pause()\n"
    )
    job = rank(run=f"{sys.executable} train.py\necho never", env={})
    job.prints("training")
    job.stop(20)
    assert job.result()["exit_code"] == 75
    assert job.log.read_text() == "training\nhelper lives\n"


def test_a_command_behind_nested_shells_gets_the_sigterm_and_its_code_counts(rank, tmp_path):
    (tmp_path / "inner.sh").write_text('python=$1\n$python -c "$CODE"\n')
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); print('up'); signal.pause()"
    job = rank(run=f"bash inner.sh {sys.executable}", env={"CODE": code})
    job.prints("up")
    job.stop(20)
    assert job.result()["exit_code"] == 9


def test_a_script_with_its_own_trap_alone_gets_the_sigterm(rank):
    job = rank(run="trap 'echo saving; exit 4' TERM; sleep 1000 & echo up; wait")
    job.prints("up")
    job.stop(20)
    assert job.result()["exit_code"] == 4
    assert "saving" in job.log.read_text()


def test_a_second_stop_brings_the_end_forward(rank):
    job = rank(run="trap '' TERM; echo up; while :; do sleep 0.05; done")
    job.prints("up")
    job.stop(1000)
    job.stop(0.1)
    assert job.result()["signal"] == signal.SIGKILL


def test_setup_runs_first_in_the_same_shell_and_its_failure_ends_the_rank(rank):
    job = rank(setup="export WHO=you; false; echo not here", run="echo never")
    assert job.result()["exit_code"] == 1
    assert job.log.read_text() == ""


def test_setup_hands_its_environment_to_run(rank):
    job = rank(setup="export WHO=you", run="echo hello $WHO")
    assert job.result()["exit_code"] == 0
    assert job.log.read_text() == "hello you\n"


def test_output_of_both_kinds_is_appended_to_one_log(rank, tmp_path):
    (tmp_path / "rank.log").write_text("before\n")
    job = rank(argv=["sh", "-c", "echo out; echo err >&2"], run="")
    assert job.result()["exit_code"] == 0
    assert job.log.read_text() == "before\nout\nerr\n"


def test_a_command_that_cannot_start_says_why(rank):
    job = rank(argv=["no-such-program"], run="")
    result = job.result()
    assert result["exit_code"] == 127
    assert "no-such-program" in result["message"] or "No such file" in result["message"]
    assert "cannot start" in job.log.read_text()


def test_a_missing_directory_says_why(rank, tmp_path):
    job = rank(run="true", cwd=str(tmp_path / "gone"))
    assert "gone" in job.result()["message"]


def test_a_signal_is_reported_as_128_and_its_number(rank):
    result = rank(run="kill -SEGV $$").result()
    assert (result["exit_code"], result["signal"]) == (139, 11)


def test_a_job_without_gpus_sees_none_and_no_job_sees_the_clusters_token():
    inherited = {"RAY_AUTH_TOKEN": "secret", "CUDA_VISIBLE_DEVICES": "0,1", "HOME": "/root"}
    env = supervisor.environment(inherited, {"A": "1"})
    assert env == {"HOME": "/root", "A": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    assert supervisor.environment(inherited, {"CUDA_VISIBLE_DEVICES": "3"})["CUDA_VISIBLE_DEVICES"] == "3"


def test_the_result_of_a_rank_that_runs_is_not_there_yet(rank, tmp_path):
    job = rank(run="echo up; sleep 1000")
    job.prints("up")
    assert supervisor.read_result(str(tmp_path)) is None
