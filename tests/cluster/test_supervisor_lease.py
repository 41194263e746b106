"""The supervisor's lease and its patience: a Runner that stands still, and processes that nothing can kill."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from test_supervisor import Rank, eventually, rank  # noqa: F401 - a fixture, found by name

from gpusched.cluster.ray import supervisor

SYSTEM_PYTHON = "/usr/bin/python3"
NOBODY = 65534
# A program that becomes root's: who started it may not signal it any more.
STUBBORN = """
#include <unistd.h>
int main(void) {
    if (setresuid(0, 0, 0) || write(1, "up\\n", 3) != 3) return 1;
    for (;;) pause();
}
"""


def renew(job, lease, runner=0):
    os.write(job.lifeline, json.dumps({"lease": lease, "runner": runner}).encode() + b"\n")


def passes(seconds):
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > end, within=seconds + 5)


@pytest.fixture
def runner():
    """A process that stands for the Runner."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        with contextlib.suppress(ProcessLookupError):
            process.kill()


def test_a_rank_ends_with_its_grace_when_its_runner_stands_still_and_the_runner_never_wakes(rank, runner):  # noqa: F811 - the fixture
    os.kill(runner.pid, signal.SIGSTOP)
    job = rank(
        run="trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done", lease=0.8, runner=runner.pid
    )
    job.prints("up")
    assert job.result()["cause"] == "its Runner stood still, or its node was given up"
    assert "saved" in job.log.read_text()
    assert runner.wait(5) == -signal.SIGKILL
    assert job.survivors() == []


def test_a_rank_whose_lease_is_renewed_runs_on(rank, runner):  # noqa: F811 - the fixture
    job = rank(run="echo up; sleep 1000", lease=1.0, runner=runner.pid)
    job.prints("up")
    for _ in range(8):
        passes(0.3)
        renew(job, 1.0, runner.pid)
    assert supervisor.running(job.pids["main"])
    assert runner.poll() is None
    assert job.result()["cause"].startswith("its Runner stood still"), "and no longer than that"


def test_a_rank_without_a_lease_needs_nobody(rank):  # noqa: F811 - the fixture
    job = rank(run="echo up; sleep 1000")
    job.prints("up")
    passes(0.5)
    assert supervisor.running(job.pids["main"])


def test_a_supervisor_that_stood_still_itself_gives_the_runner_time_to_wake_too(rank, runner):  # noqa: F811 - the fixture
    job = rank(run="echo up; sleep 1000", lease=1.0, runner=runner.pid)
    job.prints("up")
    os.kill(job.pids["pid"], signal.SIGSTOP)
    passes(1.0 + supervisor.AWAKE_FOR / 3 + 0.5)  # a machine that was suspended for longer than the lease
    os.kill(job.pids["pid"], signal.SIGCONT)
    passes(0.5)
    assert runner.poll() is None
    renew(job, 60.0, runner.pid)
    passes(0.5)
    assert supervisor.running(job.pids["main"])


def test_another_process_with_the_runners_old_number_is_left_alone(rank, runner):  # noqa: F811 - the fixture
    job = rank(run="echo up; sleep 1000", lease=0.5, runner=1 << 22)
    assert job.result()["cause"].startswith("its Runner stood still")
    assert runner.poll() is None


@pytest.fixture
def stubborn():
    """A folder of nobody's with a program in it that nobody can start and only root can end."""
    if os.getuid() != 0 or not Path(SYSTEM_PYTHON).exists() or shutil.which("cc") is None:
        pytest.skip("needs root, a C compiler and a Python that every user may run")
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    (folder / "stubborn.c").write_text(STUBBORN)
    program = folder / "stubborn"
    subprocess.run(["cc", "-o", str(program), str(folder / "stubborn.c")], check=True)
    os.chown(folder, NOBODY, NOBODY)
    program.chmod(0o4755)
    shutil.copy(supervisor.__file__, folder / "supervisor.py")
    yield folder
    for entry in Path("/proc").glob("[0-9]*/exe"):
        with contextlib.suppress(OSError):
            if entry.readlink() == program:
                os.kill(int(entry.parts[2]), signal.SIGKILL)
    shutil.rmtree(folder)


class NobodysRank(Rank):
    """A rank whose supervisor runs as the user `nobody`."""

    def __init__(self, folder, **request):
        self.folder, self.log = folder, folder / "rank.log"
        fifo = folder / "lifeline"
        os.mkfifo(fifo)
        os.chown(fifo, NOBODY, NOBODY)
        self.lifeline = os.open(fifo, os.O_RDWR)
        order = {
            "dir": str(folder),
            "cwd": str(folder),
            "log": str(self.log),
            "lifeline": str(fifo),
            "grace": 0.2,
            "env": {"PATH": os.environ["PATH"]},
            **request,
        }
        done = subprocess.run(
            [SYSTEM_PYTHON, "-I", "-S", str(folder / "supervisor.py")],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            user=NOBODY,
            group=NOBODY,
        )
        self.pids = json.loads(done.stdout)


def test_a_process_that_cannot_be_killed_is_named_when_the_patience_is_over(stubborn):
    job = NobodysRank(stubborn, run="exec ./stubborn", patience=0.6)
    job.prints("up")
    job.stop(0.2)
    result = job.result()
    assert (result["stuck"], result["exit_code"]) == ([job.pids["main"]], 137)
    assert "could not be killed" in result["message"]
    assert supervisor.running(job.pids["main"])
    eventually(lambda: not supervisor.running(job.pids["pid"]))


def test_a_leftover_that_cannot_be_killed_takes_nothing_from_the_jobs_own_end(stubborn):
    job = NobodysRank(stubborn, run="./stubborn & until grep -q up rank.log; do sleep 0.05; done; exit 3", patience=0.6)
    result = job.result()
    assert (result["exit_code"], result["leaked"], len(result["stuck"])) == (3, 1, 1)
