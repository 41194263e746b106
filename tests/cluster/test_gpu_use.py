"""What is left on a GPU, and what is left of an attempt."""

import os
import subprocess
import sys

import pytest

from gpusched.cluster.ray.gpu_use import Baselines, born, dirt, kill, left_by, tagged

GIB = 1 << 30


def process(pid, *, memory=GIB, kind="compute", job=None, name="python", user="alice"):
    return {
        "pid": pid,
        "memory": memory,
        "type": kind,
        "job": job,
        "attempt": job and 1,
        "foreign": job is None,
        "name": None if job else name,
        "user": None if job else user,
    }


def gpu(*processes, used=0):
    return {"index": 0, "processes": list(processes), "memory_used": used}


def test_an_empty_gpu_is_clean():
    assert dirt(gpu(), GIB) == ""


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (process(7), "process 7 (python, alice) is on it"),
        (process(7, job=3), "process 7 (of job 3) is on it"),
        (process(7, name=None, user=None), "process 7 (not of this machine's view) is on it"),
        (process(7, memory=None), "process 7 (python, alice) is on it"),
        (process(7, memory=5 * GIB, kind="graphics"), "process 7 (python, alice) is on it"),
    ],
)
def test_whatever_computes_on_it_makes_it_dirty_and_is_named(left, words):
    assert dirt(gpu(left), GIB) == words


@pytest.mark.parametrize(
    "harmless",
    [process(1, name="Xorg", kind="graphics", memory=100), process(2, name="nvidia-cuda-mps-server"[:15])],
)
def test_a_display_and_nvidias_own_daemons_do_no_harm(harmless):
    assert dirt(gpu(harmless), GIB) == ""


def test_many_processes_are_told_in_a_line():
    assert dirt(gpu(*map(process, range(1, 7))), GIB).endswith("and 3 more")


def test_memory_that_nobody_can_be_seen_to_use_makes_it_dirty():
    assert dirt(gpu(used=GIB), GIB) == ""
    assert dirt(gpu(used=GIB + 1), GIB) == "memory is in use by no process that can be seen"
    assert dirt(gpu(used=GIB + 1), GIB, clean=10) == ""


@pytest.mark.parametrize("what", ["processes", "memory_used"])
def test_what_the_driver_does_not_tell_is_no_dirt(what):
    assert dirt({**gpu(used=9 * GIB), what: None}, GIB) == ""


def test_of_a_shared_gpu_only_the_attempts_own_processes_count():
    shared = gpu(process(1, job=3), process(2, job=4), used=9 * GIB)
    assert left_by(shared, (3, 1)) == "process 1 (of job 3) is on it"
    assert left_by(shared, (3, 2)) == ""


def test_the_baseline_is_the_least_that_was_seen_without_processes():
    baselines = Baselines()
    assert baselines.of(0, GIB) == 0
    for figures in (gpu(used=500), gpu(process(1), used=9), gpu(used=300), gpu(used=9 * GIB)):
        baselines.learn([figures])
    assert baselines.of(0, GIB) == 300
    assert baselines.of(0, 100) == 100, "a leak from before the first look is no baseline"


def test_processes_of_an_attempt_are_found_by_their_mark_wherever_they_hang_and_killed():
    mark = f"me:{os.getpid()}:1:"
    code = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(1000)"
    env = {**os.environ, "GPUSCHED_TAG": mark + "0"}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) as escaped:
        pid = int(escaped.stdout.readline())
        assert tagged("GPUSCHED_TAG", mark) == [pid]
        assert tagged("GPUSCHED_TAG", mark.replace(":1:", ":11:")) == []
        assert born(pid) > 0
        kill([pid])
        escaped.wait()
    assert tagged("GPUSCHED_TAG", mark) == []
    assert born(pid) == 0
    kill([pid])
