"""What dies while jobs run, and what becomes of them: nothing is lost, nothing runs twice, nothing is left."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from gpusched.cluster.ray import backend as backend_module
from gpusched.cluster.ray.backend import RayBackend
from gpusched.jobs.job import State

pytestmark = pytest.mark.ray

A, B, C, D = "127.0.0.10", "127.0.0.11", "127.0.0.12", "127.0.0.13"
UNTIL_TOLD = "echo up; until [ -e {flag} ]; do sleep 0.05; done; echo end; exit {code}"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(backend_module, "PING_EVERY", 0.3)
    monkeypatch.setattr(backend_module, "PONG_WITHIN", 4.0)


def again(live):
    """A control plane that comes back: a new backend on the same state directory."""
    live.backend.close()
    live.events.clear()
    live.nodes.clear()
    live.backend = live.make()


def test_a_killed_gateway_is_replaced_and_the_next_one_takes_up_what_runs(live, tmp_path):
    flag = tmp_path / "flag"
    job = live.start(UNTIL_TOLD.format(flag=flag, code=5), A, B)
    live.prints(job, "up")
    before = {rank["pid"] for rank in live.seen(job, "started").data["ranks"]}
    old = live.gateway_pid()
    os.kill(old, signal.SIGKILL)
    live.wait_until(lambda: live.kinds(job) == ["started", "started"])
    assert live.gateway_pid() != old
    assert before <= set(live.processes(job))
    flag.touch()
    assert live.end(job).data["exit_code"] == 5
    assert live.log(job, 1, node=B) == "up\nend\n"


def test_a_gateway_that_hangs_is_replaced(live, tmp_path):
    flag = tmp_path / "flag"
    job = live.start(UNTIL_TOLD.format(flag=flag, code=0), B)
    live.prints(job, "up")
    old = live.gateway_pid()
    os.kill(old, signal.SIGSTOP)
    live.wait_until(lambda: live.kinds(job) == ["started", "started"])
    assert live.gateway_pid() != old
    flag.touch()
    assert live.end(job).data["exit_code"] == 0


def test_a_control_plane_that_comes_back_adopts_what_runs(live, tmp_path):
    flag = tmp_path / "flag"
    job = live.start(UNTIL_TOLD.format(flag=flag, code=0), B, C)
    live.prints(job, "up")
    first = live.seen(job, "started").data
    again(live)
    job.state = State.RUNNING
    live.backend.adopt([job], time.time())
    assert live.seen(job, "started").data == first
    flag.touch()
    assert live.end(job).data["exit_code"] == 0
    assert live.log(job, 0, node=B) == "up\nend\n"


def test_what_ended_while_nobody_looked_is_reported_with_its_code(live, tmp_path):
    flag = tmp_path / "flag"
    job = live.start(UNTIL_TOLD.format(flag=flag, code=6), B)
    live.prints(job, "up")
    live.backend.close()
    flag.touch()
    live.wait_until(lambda: live.processes(job) == [])
    again(live)
    job.state = State.RUNNING
    live.backend.adopt([job], time.time())
    assert live.end(job).data["exit_code"] == 6
    # And once more, when its placement group is gone too: the node remembers.
    again(live)
    live.backend.adopt([job], time.time())
    assert live.end(job).data["exit_code"] == 6


def test_what_was_never_placed_is_refused_and_what_cannot_be_found_has_vanished(live):
    never, lost = live.job("true", A), live.job("true", A)
    never.state, lost.state = State.STARTING, State.RUNNING
    live.backend.adopt([never, lost], time.time())
    assert live.end(never).kind == "refused"
    assert live.end(lost).kind == "vanished"


def test_attempts_that_nobody_names_are_stopped_and_those_of_another_control_plane_are_not(live, tmp_path, ray_cluster):
    mine = live.start("echo up; sleep 1000", B)
    live.prints(mine, "up")
    stranger = RayBackend(ray_cluster.address, tmp_path / "other", scratch=str(tmp_path / "scratch2"))
    try:
        stranger.adopt([], time.time())
        live.wait_until(lambda: not stranger.alive() and stranger._greeted)
        live.wait_until(stranger.samples)
        assert live.processes(mine)
        assert live.kinds(mine) == ["started"]
    finally:
        stranger.close()
    again(live)
    live.backend.adopt([], time.time())
    live.wait_until(lambda: live.processes(mine) == [])
    live.wait_until(lambda: live.groups() == ([], []))


def test_a_killed_raylet_loses_its_gang_as_a_whole(live, ray_cluster):
    ray_cluster.add(D, gpus=2)
    live.wait_until(lambda: live.poll() and D in live.nodes)
    job = live.start("trap '' TERM; echo up; while :; do sleep 0.1; done", A, D)
    other = live.start("echo up; sleep 1000", B)
    for one in (job, other):
        live.prints(one, "up")
    ray_cluster.kill_raylet(D)
    vanished = live.end(job)
    assert vanished.kind == "vanished"
    assert D in vanished.data["message"]
    assert D not in live.nodes
    live.wait_until(lambda: live.processes(job) == [])
    assert live.kinds(other) == ["started"]
    assert live.groups()[0] == [live.name(other)]
    live.backend.stop(other, 0, time.time())
    live.end(other)


def runner_of(job):
    """A process that holds the write end of one of the job's lifelines."""
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if entry.readlink().match(f"{job.id}-{job.attempt}/rank-*/lifeline"):
                pid = int(entry.parts[2])
                if b"supervisor.py" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
    return None


def test_a_killed_runner_loses_the_attempt_and_its_processes_get_the_grace(live):
    job = live.start("trap 'sleep 0.3; echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done", A, B)
    for rank in (0, 1):
        live.prints(job, "up", rank)
    os.kill(live.wait_until(lambda: runner_of(job)), signal.SIGKILL)
    vanished = live.end(job)
    assert vanished.kind == "vanished"
    assert "Runner" in vanished.data["message"]
    assert live.processes(job) == []
    assert [live.log(job, rank) for rank in (0, 1)] == ["up\nsaved\n"] * 2


def test_a_killed_supervisor_ends_the_attempt_and_leaves_nothing(live):
    job = live.start("(setsid sleep 1000 &); echo up; sleep 1000", A, B)
    for rank in (0, 1):
        live.prints(job, "up", rank)
    os.kill(live.seen(job, "started").data["ranks"][1]["supervisor"], signal.SIGKILL)
    data = live.end(job).data
    assert (data["exit_code"], data["failed_rank"]) == (137, 1)
    assert "supervisor" in data["message"]
    assert live.processes(job) == []


def test_a_cluster_that_is_not_there_blocks_nobody(tmp_path, wait_until, monkeypatch):
    monkeypatch.setattr(backend_module, "CONNECT_WITHIN", 1.0)
    backend = RayBackend("127.0.0.1:1", tmp_path)
    try:
        wait_until(backend.alive)
        assert not backend.poll(0).events
        assert backend.links() == {}
        with pytest.raises(Exception, match="the log is on the cluster"):
            backend.read_log(1, 1, 0, 0).result(5)
    finally:
        backend.close()
