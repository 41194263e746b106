"""Two attempts of one job at once: the later one's number lies beside the checkpoints before it starts."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpusched import job
from gpusched.cluster.ray import runner
from gpusched.cluster.ray.runner import checkpoint_folder, raise_fence

TRAIN = """
import pathlib, sys, time
from gpusched import job
place = pathlib.Path(job.checkpoint_dir(), "newest")
for step in range(10**9):
    draft = place.with_name(f"draft-{job.attempt()}")
    draft.write_text(f"attempt {job.attempt()} step {step}")
    if not job.commit(draft, place):
        sys.exit(7)
    print("saved", flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def folder(tmp_path):
    return checkpoint_folder(str(tmp_path / "checkpoints"), "me", 7)


@pytest.fixture
def attempt(folder, tmp_path):
    """Start a real process of attempt n of job 7, as its Runner does; its output is in log-n."""
    started = []

    def start(number):
        env = {
            **os.environ,
            "PYTHONPATH": str(Path(job.__file__).parents[1]),
            "GPUSCHED_ATTEMPT": str(number),
            "GPUSCHED_CHECKPOINT_DIR": folder,
            "GPUSCHED_FENCE": raise_fence(folder, "me", (7, number)),
        }
        with (tmp_path / f"log-{number}").open("w") as log:
            started.append(subprocess.Popen([sys.executable, "-c", TRAIN], env=env, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_an_attempt_learns_that_another_one_has_begun(folder, monkeypatch):
    monkeypatch.setenv("GPUSCHED_FENCE", raise_fence(folder, "me", (7, 1)))
    monkeypatch.setenv("GPUSCHED_ATTEMPT", "1")
    assert not job.superseded()
    assert raise_fence(folder, "me", (7, 1)), "each rank of the attempt says so"
    assert not job.superseded()
    raise_fence(folder, "me", (7, 2))
    assert job.superseded()
    assert not job.report_checkpoint(5)


def test_an_attempt_that_comes_late_does_not_start(folder):
    raise_fence(folder, "me", (7, 3))
    with pytest.raises(OSError, match="attempt 3 of job 7 has begun already"):
        raise_fence(folder, "me", (7, 2))


def test_other_jobs_and_other_control_planes_may_share_the_folder(folder):
    raise_fence(folder, "me", (7, 3))
    assert raise_fence(folder, "me", (8, 1)) != raise_fence(folder, "other", (7, 1))


def test_an_address_has_no_fence():
    assert raise_fence(checkpoint_folder("s3://bucket/prefix", "me", 7), "me", (7, 1)) == ""


def test_an_old_attempt_that_wakes_up_replaces_nothing_and_says_why(folder, attempt, tmp_path, wait_until):
    newest = Path(folder, "newest")
    old = attempt(1)
    wait_until(lambda: newest.exists() and newest.read_text().startswith("attempt 1"))
    os.kill(old.pid, signal.SIGSTOP)
    attempt(2)
    wait_until(lambda: newest.read_text().startswith("attempt 2"))
    os.kill(old.pid, signal.SIGCONT)
    assert old.wait(20) == 7
    assert newest.read_text().startswith("attempt 2")
    assert "attempt 1 of this job is over, a later one has begun" in (tmp_path / "log-1").read_text()


def test_no_commit_of_an_old_attempt_follows_the_start_of_a_later_one(folder, attempt, wait_until):
    newest = Path(folder, "newest")
    old = attempt(1)
    wait_until(newest.exists)
    for number in range(2, 8):  # it commits all the while
        raise_fence(folder, "me", (7, number))
        seen = newest.read_text()
        old.wait(20)
        assert newest.read_text() == seen
        newest.unlink()
        old = attempt(number)
        wait_until(newest.exists)


def test_an_attempt_waits_for_the_commit_that_an_earlier_one_is_in_the_middle_of(folder, monkeypatch):
    fence = raise_fence(folder, "me", (7, 1))
    begun = threading.Event()
    with Path(f"{fence}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: (raise_fence(folder, "me", (7, 2)), begun.set()))
        thread.start()
        assert not begun.wait(0.3)
        assert Path(fence).read_text() == "1"
    assert begun.wait(10)
    thread.join()
    monkeypatch.setattr(runner, "FENCE_WITHIN", 0.1)
    with Path(f"{fence}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="in the middle of a commit"):
            raise_fence(folder, "me", (7, 3))
    assert Path(fence).read_text() == "2"
