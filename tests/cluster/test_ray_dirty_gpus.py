"""GPUs that are not clean, on a real Ray: fenced alone, found again, and given back when they are clean."""

import os
import signal
import subprocess
import time

import pytest
from fake_nvml import FakeNvml

from gpusched.cluster.health import HealthLimits

pytestmark = pytest.mark.ray

E = "127.0.0.14"
GIB = 1 << 30


@pytest.fixture(scope="module")
def gpus(ray_cluster, nvml_library, tmp_path_factory):
    """A node more, with two GPUs that its NVML sees; the knobs of that NVML."""
    nvml = FakeNvml(nvml_library, tmp_path_factory.mktemp("gpus") / "nvml.txt")
    nvml.show(2)
    before = {key: os.environ.get(key) for key in nvml.environment}
    os.environ.update(nvml.environment)
    try:
        ray_cluster.add(E, gpus=2)
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value
    yield nvml
    ray_cluster.kill_raylet(E)


@pytest.fixture(scope="module")
def live(gpus, make_live):  # noqa: ARG001 - the node must be there first
    one = make_live(health=HealthLimits(patience=3.0))
    one.backend.adopt([], time.time())
    return one


@pytest.fixture
def stranger():
    """A process of nobody's job."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture(autouse=True)
def clean_again(live, gpus):
    """What a test soiled is clean before the next one."""
    yield
    gpus.show(2)
    live.backend.forgive(E)
    live.wait_until(lambda: live.poll() and live.nodes[E].gpus == 2 and not live.nodes[E].fenced)


def show(gpus, index, **facts):
    gpus.show([facts if index == number else {} for number in (0, 1)])


def index_of(live, job):
    return live.seen(job, "started").data["ranks"][0]["gpus"][0]


def soil(live, gpus, stranger):
    """Run a job on E whose GPU a stranger is on when it ends; (the job's end, the index)."""
    job = live.start("echo up; sleep 1000", E)
    index = index_of(live, job)
    show(gpus, index, compute=[(stranger, GIB)], memory_used=GIB)
    live.backend.stop(job, 0, time.time())
    return live.end(job), index


def test_a_gpu_on_which_something_stays_is_fenced_before_the_attempt_ends_and_the_other_goes_on(live, gpus, stranger):
    finished, index = soil(live, gpus, stranger)
    assert finished.kind == "finished"
    [[node, dirty, why]] = finished.data["dirty"]
    assert (node, dirty) == (E, index)
    assert why == f"process {stranger} (sleep, root) is on it" or f"process {stranger} (sleep" in why
    assert (live.nodes[E].gpus, live.nodes[E].fenced) == (1, ((index, why),))
    told = next(change for change in live.changes if change.node.name == E and change.node.fenced)
    assert told.time <= finished.time
    assert live.nodes[E].schedulable
    actors = live.groups()[1]
    assert len([name for name in actors if name.startswith("gs:fence:")]) == 1
    # Ray gives the next job the other one, and has no room for two.
    other = live.start("echo $CUDA_VISIBLE_DEVICES", E)
    assert live.end(other).data["exit_code"] == 0
    assert live.log(other, node=E) == f"{1 - index}\n"
    assert live.end(live.start("echo never", E, gpus=2)).kind == "refused"
    # It comes back by itself.
    gpus.show(2)
    live.wait_until(lambda: live.poll() and live.nodes[E].gpus == 2)
    both = live.start("true", E, gpus=2)
    assert live.end(both).data["exit_code"] == 0


def test_a_fence_outlives_gateway_and_control_plane(live, gpus, stranger):
    _finished, index = soil(live, gpus, stranger)
    before = live.groups()[1]
    os.kill(live.gateway_pid(), signal.SIGKILL)
    live.changes.clear()
    live.backend.close()
    live.nodes.clear()
    live.backend = live.make()
    live.backend.adopt([], time.time())
    live.wait_until(lambda: live.poll() and E in live.nodes)
    first = next(change.node for change in live.changes if change.node.name == E)
    assert [gpu for gpu, _why in first.fenced] == [index], "from the first report on"
    assert first.gpus == 1
    assert live.groups()[1] == before


def test_gpus_are_held_back_until_their_memory_is_free(live, gpus):
    job = live.start("echo up; sleep 1000", E)
    index = index_of(live, job)
    show(gpus, index, memory_used=40 * GIB)
    live.backend.stop(job, 0, time.time())
    live.wait_until(lambda: live.processes(job) == [])
    until = time.monotonic() + 1.0
    live.wait_until(lambda: live.kinds(job) != ["started"] or time.monotonic() > until)
    assert live.kinds(job) == ["started"], "its processes are gone and its memory is not"
    gpus.show(2)
    assert "dirty" not in live.end(job).data


def test_memory_that_stays_occupied_fences_the_gpu(live, gpus):
    job = live.start("echo up; sleep 1000", E)
    index = index_of(live, job)
    show(gpus, index, memory_used=40 * GIB)
    live.backend.stop(job, 0, time.time())
    assert live.end(job).data["dirty"] == [[E, index, "memory is in use by no process that can be seen"]]


def test_a_gpu_after_a_fatal_xid_is_fenced_until_the_node_is_resumed(live, gpus):
    live.wait_until(live.backend.samples)
    show(gpus, 1, xid=[79])
    live.wait_until(lambda: live.poll() and live.nodes[E].fenced)
    [(index, why)] = live.nodes[E].fenced
    assert index == 1
    assert "fallen off the bus" in why
    job = live.start("echo $CUDA_VISIBLE_DEVICES", E)
    assert live.end(job).data["exit_code"] == 0
    assert live.log(job, node=E) == "0\n"
    live.backend.forgive(E)
    live.wait_until(lambda: live.poll() and live.nodes[E].gpus == 2)


def test_a_stranger_on_an_idle_gpu_fences_it_and_jobs_keep_theirs(live, gpus, stranger):
    job = live.start("echo up; sleep 1000", E)
    index = index_of(live, job)
    show(gpus, 1 - index, compute=[(stranger, GIB)])
    live.wait_until(lambda: live.poll() and live.nodes[E].fenced)
    assert [gpu for gpu, _why in live.nodes[E].fenced] == [1 - index]
    assert live.kinds(job) == ["started"]
    live.backend.stop(job, 0, time.time())
    assert "dirty" not in live.end(job).data


def test_a_node_whose_disk_is_full_takes_no_work_and_says_so(make_live):
    picky = make_live(health=HealthLimits(disk=1 << 60))
    picky.wait_until(lambda: picky.poll() and not picky.nodes[E].schedulable)
    assert picky.nodes[E].why.startswith("unhealthy: disk full: less than")
    assert picky.nodes[E].gpus == 2
