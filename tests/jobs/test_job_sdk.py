"""What a job's processes can ask and tell: through files, from any process, and harmless outside gpusched."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpusched import job


@pytest.fixture
def control(tmp_path, monkeypatch):
    folder = tmp_path / "control"
    folder.mkdir()
    fence = tmp_path / "fence"
    fence.write_text("2")
    for name, value in {
        "GPUSCHED_CONTROL_DIR": folder,
        "GPUSCHED_FENCE": fence,
        "GPUSCHED_ATTEMPT": 2,
        "GPUSCHED_CHECKPOINT_DIR": tmp_path,
    }.items():
        monkeypatch.setenv(name, str(value))
    return folder


@pytest.fixture
def nowhere(monkeypatch):
    for name in list(os.environ):
        if name.startswith("GPUSCHED_"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("nowhere")
def test_outside_gpusched_nothing_happens_and_nothing_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (job.attempt(), job.checkpoint_dir(), job.should_preempt(), job.seconds_left()) == (0, None, False, None)
    assert job.report_checkpoint(3)
    assert not job.superseded()
    job.report_progress(0.5)
    assert list(tmp_path.iterdir()) == []


def test_a_job_knows_its_attempt_and_where_it_keeps_its_state(control):
    assert (job.attempt(), job.checkpoint_dir()) == (2, str(control.parent))


def test_the_word_to_leave_and_the_time_that_is_left(control):
    assert not job.should_preempt()
    (control / "stop.json").write_text(json.dumps({"deadline": time.time() + 50}))
    assert job.should_preempt()
    assert 40 < job.seconds_left() <= 50
    (control / "stop.json").write_text(json.dumps({"deadline": time.time() - 5}))
    assert job.seconds_left() == 0


def test_a_report_is_whole_and_the_last_one_counts(control):
    before = time.time()
    assert job.report_checkpoint(7)
    assert job.report_checkpoint(9)
    job.report_progress(0.25)
    saved = json.loads((control / "checkpoint.json").read_text())
    assert saved["step"] == 9
    assert before <= saved["time"] <= time.time()
    assert json.loads((control / "progress.json").read_text()) == {"fraction": 0.25}
    assert len(list(control.iterdir())) == 2, "no drafts stay behind"


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan])
def test_progress_is_a_part_of_the_whole(control, fraction):
    with pytest.raises(ValueError, match="from 0 to 1"):
        job.report_progress(fraction)
    assert list(control.iterdir()) == []


def test_a_checkpoint_of_an_attempt_that_another_followed_does_not_count(control):
    (control.parent / "fence").write_text("3")
    assert job.superseded()
    assert not job.report_checkpoint(9)
    assert list(control.iterdir()) == []


def test_a_report_that_cannot_be_written_ends_no_training(control, capfd):
    control.rmdir()
    assert job.report_checkpoint(9)
    assert "checkpoint.json could not be written" in capfd.readouterr().err


def test_it_is_one_file_of_the_standard_library_that_works_alone(control):
    code = (
        "import sys, runpy\n"
        "job = runpy.run_path(sys.argv[1])\n"
        "assert job['report_checkpoint'](4) and not job['should_preempt']()\n"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(Path(job.__file__))], check=True)
    assert json.loads((control / "checkpoint.json").read_text())["step"] == 4


@pytest.fixture
def run(control):
    """Run a program inside a job; what it prints."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "GPUSCHED_CONTROL_DIR": str(control)}

    def output(code):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20, env=env
        )
        return done.stdout

    return output


ASK = "import os, signal, subprocess, sys\nfrom gpusched import job\n"
TERM = "os.kill(os.getpid(), signal.SIGTERM)\n"


def test_who_asks_outlives_the_signal_and_what_it_starts_does_not(run):
    code = (
        f"{ASK}job.should_preempt()\n{TERM}"
        "read, write = os.pipe()\n"
        "child = os.fork()\n"
        "if not child: os.write(write, b'up'); signal.pause()\n"
        "os.read(read, 2)\n"
        "os.kill(child, signal.SIGTERM)\n"
        "other = subprocess.Popen(['sleep', '100'])\n"
        "other.terminate()\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), other.wait())\n"
    )
    assert run(code) == "-15 -15\n"


def test_a_program_keeps_its_own_handler(run):
    code = f"{ASK}signal.signal(signal.SIGTERM, lambda *_: print('mine'))\njob.should_preempt()\n{TERM}"
    assert run(code) == "mine\n"


@pytest.mark.usefixtures("nowhere")
def test_outside_gpusched_a_commit_is_a_rename(tmp_path):
    (tmp_path / "draft").write_text("whole")
    assert job.commit(tmp_path / "draft", tmp_path / "final")
    assert (tmp_path / "final").read_text() == "whole"
    (tmp_path / "folder").mkdir()
    assert job.commit(str(tmp_path / "folder"), str(tmp_path / "step-5"))
    assert (tmp_path / "step-5").is_dir()
    with pytest.raises(FileNotFoundError):
        job.commit(tmp_path / "never", tmp_path / "final")


@pytest.mark.usefixtures("control")
def test_a_commit_of_an_attempt_that_is_over_leaves_everything_as_it_is(tmp_path, capfd):
    draft, final = tmp_path / "draft", tmp_path / "final"
    draft.write_text("old")
    assert job.commit(draft, final)
    (tmp_path / "fence").write_text("3")
    draft.write_text("older")
    assert not job.commit(draft, final)
    assert (draft.read_text(), final.read_text()) == ("older", "old")
    assert f"attempt 2 of this job is over, a later one has begun: {final} was not written" in capfd.readouterr().err
