"""The training job, as real processes: it learns, resumes exactly, and leaves when it is asked to."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from gpusched.jobs.workloads.checkpoint import Checkpoints, SupersededError  # noqa: E402 - needs torch
from gpusched.jobs.workloads.progress import Progress  # noqa: E402 - beside it

MODULE = "gpusched.jobs.workloads.text_classifier"
SMALL = ["--limit", "160", "--epochs", "3", "--d-model", "16", "--layers", "1", "--batch-size", "32"]
BATCHES = 160 * 6 // 32
PATIENCE = 120
"""Seconds after which a test gives up on a process."""
GPUSCHED = re.compile("GPUSCHED_|RANK$|WORLD_SIZE|MASTER_")


class Run:
    """The workers of one run, each a process."""

    def __init__(self, folder: Path, workers: int, options: list[str], **variables: str) -> None:
        folder.mkdir(exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        plain = {name: value for name, value in os.environ.items() if not GPUSCHED.search(name)}
        self.logs = [folder / f"{time.monotonic_ns()}-rank-{rank}.log" for rank in range(workers)]
        self.processes = []
        for rank, log in enumerate(self.logs):
            environment = {
                **plain,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "RANK": str(rank),
                "WORLD_SIZE": str(workers),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                **variables,
            }
            with log.open("wb") as output:
                command = [sys.executable, "-m", MODULE, *options]
                self.processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def output(self, rank=0):
        return self.logs[rank].read_text()

    def wait_for(self, pattern):
        """Wait until rank 0 has printed something."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.output()):
            assert self.processes[0].poll() is None, self.output()
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.005)

    def codes(self):
        return [process.wait(PATIENCE) for process in self.processes]


def options(folder, name="model.pt", *more):
    return [*SMALL, "--checkpoint-dir", str(folder / "checkpoints"), "--export", str(folder / name), *more]


def weights(path):
    return torch.load(path, weights_only=True)["weights"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def figures(output):
    """The loss and accuracy of every epoch as printed, without the times."""
    return re.findall(r"^(epoch \d/\d  training .*?)  [\d.]+ s$", output, re.MULTILINE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of two workers from start to end: its folder and its output."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with Run(folder, 2, options(folder)) as run:
        assert run.codes() == [0, 0], run.output(0) + run.output(1)
    return folder, run.output()


def test_two_workers_print_loss_and_accuracy_of_every_epoch_and_beat_the_baseline(undisturbed):
    _, output = undisturbed
    lines = figures(output)
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    number = r"([\d.]+)"
    losses = [float(re.search(f"training loss {number} accuracy", line)[1]) for line in lines]
    assert losses == sorted(losses, reverse=True)
    accuracy = float(re.search(f"^validation loss {number} accuracy {number};", output, re.MULTILINE)[2])
    baseline = float(re.search(f"always `[a-z ]+`: {number}", output)[1])
    assert accuracy > baseline + 0.1


def test_the_last_printed_accuracy_is_that_of_the_last_epoch(undisturbed):
    _, output = undisturbed
    last = re.search(r"validation loss (.*)$", figures(output)[-1])[1]
    assert f"\nvalidation loss {last};" in output


def test_killed_after_the_first_epoch_and_started_again_it_ends_exactly_as_if_undisturbed(undisturbed, tmp_path):
    with Run(tmp_path, 2, options(tmp_path)) as run:
        run.wait_for(r"epoch 1/3  training")
        run.kill()
    assert not (tmp_path / "model.pt").exists()
    with Run(tmp_path, 2, options(tmp_path)) as again:
        assert again.codes() == [0, 0], again.output()
    assert "resumed from" in again.output()
    folder, output = undisturbed
    assert same(weights(tmp_path / "model.pt"), weights(folder / "model.pt"))
    assert figures(again.output())[-1] == figures(output)[-1]


def test_sigterm_to_one_worker_makes_both_save_and_exit_75_and_nothing_is_lost(undisturbed, tmp_path):
    with Run(tmp_path, 2, options(tmp_path)) as run:
        run.wait_for(r"2 workers on cpu")
        run.processes[1].send_signal(signal.SIGTERM)
        assert run.codes() == [75, 75], run.output(0) + run.output(1)
    saved = re.search(r"saved at epoch (\d), batch (\d+)", run.output())
    step = (int(saved[1]) - 1) * BATCHES + int(saved[2])
    assert step < 3 * BATCHES
    assert (tmp_path / "checkpoints" / f"step-{step:08d}.pt").exists()
    with Run(tmp_path, 2, options(tmp_path)) as again:
        assert again.codes() == [0, 0], again.output()
    assert f"resumed from {tmp_path}/checkpoints/step-{step:08d}.pt" in again.output()
    folder, output = undisturbed
    assert same(weights(tmp_path / "model.pt"), weights(folder / "model.pt"))
    assert [figure.split()[1:] for figure in figures(run.output()) + figures(again.output())] == [
        figure.split()[1:] for figure in figures(output)
    ]


def test_torchrun_starts_the_same_training(undisturbed, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", MODULE]
    plain = {name: value for name, value in os.environ.items() if not GPUSCHED.search(name)}
    done = subprocess.run(
        [*command, *options(tmp_path)],
        env={**plain, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder, output = undisturbed
    assert figures(done.stdout) == figures(output)
    assert same(weights(tmp_path / "model.pt"), weights(folder / "model.pt"))


def test_one_worker_goes_on_with_what_two_have_saved(undisturbed, tmp_path):
    folder, _ = undisturbed
    second, third = sorted((folder / "checkpoints").glob("step-*.pt"))  # the newest two are kept
    assert third.name == f"step-{3 * BATCHES:08d}.pt"
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(second, tmp_path / "checkpoints")
    with Run(tmp_path, 1, options(tmp_path)) as run:
        assert run.codes() == [0], run.output()
    assert "saved by 2 workers, resumed by 1" in run.output()
    assert [line.split()[1] for line in figures(run.output())] == ["3/3"]


def test_a_checkpoint_of_other_options_is_refused_in_one_line(undisturbed):
    folder, _ = undisturbed
    with Run(folder, 1, options(folder, "other.pt", "--seed", "7")) as run:
        assert run.codes() == [1]
    message = run.output().splitlines()[-1]
    assert message.startswith("text_classifier: ")
    assert "was made with seed 0 (now 7)" in message
    assert "Traceback" not in run.output()


def test_without_a_place_for_checkpoints_a_stop_says_that_nothing_is_saved(tmp_path):
    with Run(tmp_path, 1, [*SMALL, "--epochs", "1000"]) as run:
        run.wait_for(r"epoch 1/1000")
        run.processes[0].send_signal(signal.SIGTERM)
        assert run.codes() == [143]
    assert "nothing is saved without --checkpoint-dir" in run.output()


def test_the_checkpoint_directory_is_the_one_that_gpusched_gives(tmp_path):
    given = {"GPUSCHED_CHECKPOINT_DIR": str(tmp_path / "given"), "GPUSCHED_ATTEMPT": "2"}
    with Run(tmp_path, 1, [*SMALL, "--epochs", "1"], **given) as run:
        assert run.codes() == [0], run.output()
    assert [path.name for path in (tmp_path / "given").glob("step-*")] == [f"step-{BATCHES:08d}.pt"]
    given["GPUSCHED_ATTEMPT"] = "1"
    with Run(tmp_path, 1, [*SMALL, "--epochs", "1"], **given) as older:
        assert older.codes() == [1]
    assert "attempt 2 has taken over" in older.output().splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--batch-size", "33"], "cannot be shared by 2 workers"),
        (["--d-model", "30"], "no multiple of 4"),
        (["--epochs", "0"], "less than 1"),
        (["--lr", "-1"], "not more than 0"),
        (["--lr", "nan"], "not more than 0"),
        (["--dropout", "1"], "not from 0 to below 1"),
        (["--epoch5", "1"], "unrecognized arguments"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_loaded(given, message, monkeypatch, capsys):
    from gpusched.jobs.workloads import text_classifier  # noqa: PLC0415 - under test

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as left:
        text_classifier.main(given)
    assert left.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("module", [MODULE, "gpusched.jobs.workloads.batch_inference"])
def test_help_does_not_wait_for_torch(module):
    code = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=True
    )


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, capfd):
    checkpoints = Checkpoints(tmp_path, attempt=0)
    checkpoints.save(1, {"epoch": 1})
    path = checkpoints.save(2, {"epoch": 2})
    path.write_bytes(path.read_bytes()[:100])
    found, state = checkpoints.newest()
    assert (found.name, state) == ("step-00000001.pt", {"epoch": 1})
    assert f"{path} cannot be read" in capfd.readouterr().out


def test_an_attempt_that_is_over_cannot_write_beside_the_one_that_followed(tmp_path):
    first = Checkpoints(tmp_path, attempt=1)
    first.save(5, {})
    second = Checkpoints(tmp_path, attempt=2)
    with pytest.raises(SupersededError, match="attempt 2 has taken over"):
        first.save(6, {})
    second.save(6, {"by": 2})
    assert second.newest()[1] == {"by": 2}


def test_a_full_disk_leaves_the_checkpoint_before_untouched(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, attempt=0)
    checkpoints.save(1, {"epoch": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, {"epoch": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.pt"]
    assert checkpoints.newest()[1] == {"epoch": 1}


def test_progress_gives_a_sign_of_life_while_nothing_is_printed(capfd):
    deadline = time.monotonic() + 10
    output = ""
    with Progress(speaks=True, every=0.05) as progress:
        progress.busy("waiting for the kettle")
        while output.count("\n") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            output += capfd.readouterr().out
    assert output.startswith("... waiting for the kettle, for 0 s\n")


def test_progress_of_a_quiet_worker_prints_nothing(capfd):
    with Progress(speaks=False, every=0.0) as progress:
        progress.say("hello")
    assert capfd.readouterr().out == ""
