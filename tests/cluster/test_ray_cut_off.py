"""A node that was given up while its processes live on: they can overwrite nothing, and end by themselves."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

B, F = "127.0.0.11", "127.0.0.15"
# It does not go when it is told, and when it is refused it tries again.
TRAIN = """
import pathlib, signal, time
import gpusched_job as job
signal.signal(signal.SIGTERM, signal.SIG_IGN)
place = pathlib.Path(job.checkpoint_dir(), "newest")
print("up", flush=True)
while True:
    draft = place.with_name(f"draft-{job.attempt()}")
    draft.write_text(f"attempt {job.attempt()} at {time.time()}")
    job.commit(draft, place)
    time.sleep(0.05)
"""


@pytest.fixture
def raylet(ray_cluster):
    """The raylet of one node more."""
    ray_cluster.add(F, gpus=2)
    [process] = ray_cluster._nodes[F].all_processes["raylet"]
    yield process.process.pid
    ray_cluster.kill_raylet(F)


def test_an_attempt_on_a_node_that_was_given_up_overwrites_nothing_and_ends_by_itself(live, raylet, tmp_path):
    live.wait_until(lambda: live.poll() and F in live.nodes)
    (tmp_path / "train.py").write_text(TRAIN)
    newest = tmp_path / "saved" / "newest"
    script = f"{sys.executable} {tmp_path / 'train.py'}"
    job = live.start(script, F, checkpoint={"dir": str(newest.parent), "grace": "10s"})
    old = live.seen(job, "started").data["ranks"][0]
    live.wait_until(newest.exists)
    os.kill(raylet, signal.SIGSTOP)
    assert live.end(job).kind == "vanished"
    gone = time.monotonic()
    assert live.processes(job), "its processes do not know that"
    before = newest.read_text()
    live.wait_until(lambda: newest.read_text() != before)

    job.attempt = 2
    live.backend.start(job, (B,), time.time())
    live.seen(job, "started")
    live.wait_until(lambda: newest.read_text().startswith("attempt 2"))
    job.attempt = 1
    log = live.folder / "scratch" / (live.folder / "state" / "identity").read_text() / f"{job.id}-1" / "rank-0"
    refused = "attempt 1 of this job is over, a later one has begun"
    live.wait_until(lambda: refused in (log / "output.log").read_text())
    assert newest.read_text().startswith("attempt 2")
    # Its Runner asks the cluster every quarter of a minute; then there is the grace.
    live.wait_until(lambda: live.processes(job) == [], within=40)
    live.wait_until(lambda: not Path(f"/proc/{old['supervisor']}").exists())
    assert '"cause": "its Runner is gone"' in (log / "exit.json").read_text()
    assert time.monotonic() - gone < 35
    assert newest.read_text().startswith("attempt 2")
    os.kill(raylet, signal.SIGCONT)

    job.attempt = 2
    assert live.kinds(job) == ["started"], "and nothing that the old one said is taken for the new one's"
    live.backend.stop(job, 0, time.time())
    assert live.end(job).kind == "finished"
