"""A control plane that was frozen wakes and orders what it had decided: the cluster obeys the newer term."""

import os
import signal
import time

import pytest

from gpusched.cluster.ray.backend import RayBackend
from gpusched.jobs.job import State

pytestmark = pytest.mark.ray

B, C = "127.0.0.11", "127.0.0.12"


@pytest.fixture
def leader(live, ray_cluster, tmp_path):
    """Makes the backend of a control plane that leads for a term, on one database."""
    made = []

    def make(term):
        folder = tmp_path / f"term-{term}"
        scratch = str(live.folder / "scratch")
        made.append(RayBackend(ray_cluster.address, folder, scratch=scratch, owner="both", term=lambda: term))
        live.wait_until(lambda: made[-1]._greeted and not made[-1].alive())
        return made[-1]

    yield make
    for backend in made:
        backend.close()


def test_what_an_older_term_orders_after_it_wakes_is_not_done(live, leader, tmp_path):
    old, new = leader(1), leader(2)
    old.adopt([], time.time())
    runs = live.job("echo up; sleep 1000", B)
    old.start(runs, (B,), time.time())
    live.wait_until(lambda: [event for event in old.poll(0).events if event.kind == "started"])
    runs.state = State.RUNNING

    gateway = old._gateway.pid
    os.kill(gateway, signal.SIGSTOP)
    mark = tmp_path / "ran"
    late = live.job(f"touch {mark}; sleep 1000", C)
    old.start(late, (C,), time.time())  # both wait in the frozen process's pipe
    old.stop(runs, 0.0, time.time())
    new.adopt([runs], time.time())
    live.wait_until(lambda: [event for event in new.poll(0).events if event.kind == "started"])
    os.kill(gateway, signal.SIGCONT)

    live.wait_until(lambda: not old._adopted)  # it has been told that another leads
    live.wait_until(lambda: live.groups()[0] == [f"gs:both:{runs.id}:1"])
    assert not mark.exists()
    assert live.processes(runs)
    assert not {"started", "finished", "vanished"} & {str(event.kind) for event in old.poll(0).events}

    # What it believes to run is not taken up again by its next gateway, and nothing is cleared away.
    live.wait_until(lambda: old._greeted and old._gateway.pid != gateway)
    assert live.processes(runs)
    assert not new.poll(0).events
    new.stop(runs, 0.0, time.time())
    live.wait_until(lambda: live.groups() == ([], []))
