"""Training that is preempted on a real Ray: what it had saved is not lost, and its result is that of a quiet run."""

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from site_kit import Site, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
pytest.importorskip("torch")

EPOCHS, BATCHES = 50, 30
TRAINING = f"""\
name: training
num_nodes: 2
resources: {{accelerators: 1, cpus: 0.1}}
priority: 10
preemptible: true
checkpoint: {{grace: 60s}}
run: |
  exec {sys.executable} -m gpusched.jobs.workloads.text_classifier --limit 160 --epochs {EPOCHS} --d-model 16 \\
    --layers 1 --batch-size 32 --seed 7
"""
LAST = re.compile(r"^validation loss [\d.]+ accuracy [\d.]+", re.MULTILINE)


@pytest.fixture(scope="module")
def site():
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    whole = Site(folder, {"XDG_CACHE_HOME": str(folder / "cache")})
    try:
        whole.gpusched("up", "--gpus", "2", within=180)
        whole.gpusched("policy", "use", "urgent")
        yield whole
    finally:
        whole.down()
        shutil.rmtree(folder, ignore_errors=True)


def log(site, job, attempt):
    return site.gpusched("logs", job, "--rank", "0", "--attempt", str(attempt))


def steps_saved(site, job):
    """The newest checkpoint on the disk, by its step; looked at without taking time from the training."""
    found = (site.folder / "cache/gpusched/checkpoints").glob(f"*/{job}/step-*.pt")
    return max((int(path.stem.removeprefix("step-")) for path in found), default=0)


def test_preempted_twice_it_ends_with_the_loss_of_an_undisturbed_run(site, tmp_path):
    file = tmp_path / "training.yaml"
    file.write_text(TRAINING)
    quiet = site.submit(str(file))
    site.gpusched("wait", quiet, "--timeout", "200s", within=220)

    job = site.submit(str(file))
    before = 0
    for _ in range(2):
        until(lambda before=before: steps_saved(site, job) > before, within=120)  # it trains, from where it was
        urgent = site.submit("--gpus", "2", "--priority", "90", "--", "true")
        site.gpusched("wait", urgent, "--timeout", "100s")
        before = steps_saved(site, job)
    site.gpusched("wait", job, "--timeout", "200s", within=220)

    found = site.job(job)
    attempts = found["attempts"]
    assert [one["result"] for one in attempts] == ["preempted", "preempted", "succeeded"]
    assert [one["exit_code"] for one in attempts] == [75, 75, 0]
    assert found["failures"] == 0
    assert all("resumed from" in log(site, job, attempt) for attempt in (2, 3))
    (expected,) = LAST.findall(log(site, quiet, 1))
    assert LAST.findall(log(site, job, 3)) == [expected], "to the last digit that is printed"

    steps = [int(re.fullmatch(r"step (\d+)", one["checkpoint"])[1]) for one in attempts]
    assert 0 < steps[0] < steps[1] < steps[2] == EPOCHS * BATCHES
    assert [one["lost_work"] for one in attempts] == [0, 0, None], "code 75: it had just saved"
    requeued = [event["data"] for event in found["events"] if event["kind"] == "requeued"]
    assert all(data["kept"] > 0 for data in requeued)


def test_what_was_saved_is_known_while_it_runs_and_is_not_lost_when_it_dies_of_the_preemption(site, tmp_path):
    """A job that saves now and then, and does not save when it is told to go: it loses what came after."""
    program = tmp_path / "saves.py"
    program.write_text(
        "import time\nfrom gpusched import job\n"
        "print(job.attempt(), job.checkpoint_dir(), flush=True)\n"
        "time.sleep(1)\nassert job.report_checkpoint(5)\njob.report_progress(0.25)\n"
        "while job.attempt() == 1: time.sleep(0.1)\n"
    )
    job = site.submit("--gpus", "1", "--priority", "10", "--preemptible", "--", f"{sys.executable} {program}")

    def notes():
        return {event["kind"]: event["data"] for event in site.job(job)["events"]}

    until(lambda: {"checkpointed", "progressed"} <= notes().keys())
    assert notes()["progressed"] == {"fraction": 0.25}
    assert site.job(job)["attempts"][0]["checkpoint"] == "step 5"
    assert "checkpoint: step 5" in site.gpusched("describe", job)
    site.gpusched("wait", site.submit("--gpus", "2", "--priority", "90", "--", "true"), "--timeout", "60s")
    site.gpusched("wait", job, "--timeout", "60s")
    first, second = site.job(job)["attempts"]
    ended = notes()["requeued"]
    assert ended["kept"] >= 1
    assert ended["lost"] > 0
    assert first["lost_work"] == pytest.approx(ended["lost"])
    assert (first["result"], second["result"]) == ("preempted", "succeeded")
    (number, folder), (again, same) = (log(site, job, one).splitlines()[0].split() for one in (1, 2))
    assert (number, again) == ("1", "2")
    assert folder == same
    fences = [path.read_text() for path in Path(same, ".gpusched").iterdir() if path.read_text()]
    assert fences == ["2"]
