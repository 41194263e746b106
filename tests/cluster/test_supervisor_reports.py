"""Preemption as a rank's processes see it, without Ray: word by file, grace, and what the job said it saved."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from test_supervisor import Rank, eventually

from gpusched.cluster.ray import supervisor

SOURCE = str(Path(__file__).parents[2] / ".src")
WORKER = """
import os, signal, sys, time
from gpusched import job
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a library may do: the word must come another way
print("worker up", flush=True)
step = 0
while not job.should_preempt():
    step += 1
    time.sleep(0.01)
assert job.seconds_left() > 1
assert job.report_checkpoint(step)
print("saved", flush=True)
"""
# As torchrun does: workers in sessions of their own; the launcher keeps the signal to itself and waits for them.
LAUNCHER = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: None)
workers = [subprocess.Popen([sys.executable, "worker.py"], start_new_session=True) for _ in range(2)]
codes = [worker.wait() for worker in workers]
sys.exit(75 if codes == [0, 0] else 1)
"""


@pytest.fixture
def rank(tmp_path):
    made = []

    def start(run, **env):
        control = tmp_path / "control"
        control.mkdir()
        env = {"PYTHONPATH": SOURCE, "GPUSCHED_CONTROL_DIR": str(control), "GPUSCHED_ATTEMPT": "1", **env}
        made.append(Rank(tmp_path, run=run, env=env, control=str(control)))
        return made[-1]

    yield start
    for one in made:
        one.drop()
        eventually(lambda one=one: not supervisor.running(one.pids["pid"]))
        assert one.survivors() == []


def test_workers_below_a_launcher_that_swallows_the_signal_save_and_what_they_saved_is_in_the_result(rank, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    job = rank(f"{sys.executable} launcher.py")
    eventually(lambda: job.log.exists() and job.log.read_text().count("worker up") == 2)
    job.stop(20)
    result = job.result()
    assert result["exit_code"] == 75
    assert job.log.read_text().count("saved") == 2
    assert result["checkpoint"]["step"] > 0
    assert result["started"] < result["checkpoint"]["time"] <= result["ended"]


def test_a_worker_that_ignores_all_of_it_is_killed_after_the_grace_and_keeps_what_it_saved_before(rank, tmp_path):
    (tmp_path / "worker.py").write_text(
        "import signal, time\nfrom gpusched import job\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "job.report_checkpoint(3)\nprint('up', flush=True)\nwhile True: time.sleep(0.1)\n"
    )
    job = rank(f"setsid {sys.executable} worker.py & wait")
    job.prints("up")
    job.stop(0.3)
    result = job.result()
    assert (result["exit_code"], result["checkpoint"]["step"]) == (143, 3)
    assert job.survivors() == []


def test_the_word_says_until_when_and_a_second_stop_brings_that_forward(rank, tmp_path):
    job = rank("trap '' TERM; echo up; while :; do sleep 0.05; done")
    job.prints("up")
    word = tmp_path / "control" / "stop.json"
    job.stop(1000)
    first = eventually(lambda: word.exists() and json.loads(word.read_text()))["deadline"]
    job.stop(0.5)
    eventually(lambda: json.loads(word.read_text())["deadline"] < first - 900)
    assert job.result()["signal"] == signal.SIGKILL


@pytest.mark.parametrize(
    "words",
    ["", "{", "7", '{"step": 1}', '{"step": "x", "time": 1}', '{"step": 1, "time": NaN}', '{"step": 1e99, "time": 1}'],
)
def test_a_report_that_is_none_is_as_if_there_was_none(rank, words):
    job = rank(f"echo '{words}' > control/checkpoint.json")
    assert "checkpoint" not in job.result()


def test_workers_of_a_real_torchrun_which_passes_the_signal_on_live_to_save(rank, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "worker.py").write_text(
        "import time\nfrom gpusched import job\njob.should_preempt()\nprint('worker up', flush=True)\n"
        "while not job.should_preempt(): time.sleep(0.02)\n"
        "time.sleep(0.5)\n"  # to save takes its time
        "assert job.report_checkpoint(11)\n"
    )
    run = f"exec {sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 worker.py"
    job = rank(run, HOME=os.environ["HOME"])
    eventually(lambda: job.log.exists() and job.log.read_text().count("worker up") == 2, within=60)
    job.stop(30)
    assert job.result()["checkpoint"]["step"] == 11


def test_a_program_that_the_script_became_by_exec_may_still_be_done_within_the_grace(rank, tmp_path):
    (tmp_path / "last.py").write_text(
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nprint('up', flush=True)\n"
        "while True: signal.pause()\n"
    )
    job = rank(f"exec {sys.executable} last.py")
    job.prints("up")
    job.stop(20)
    assert job.result()["exit_code"] == 0
