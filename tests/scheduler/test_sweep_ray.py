"""A study on a real Ray cluster of two nodes, with the code of this checkout on nobody's path."""

from __future__ import annotations

import json
import os
import signal

import pyarrow.parquet as pq
import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name

from gpusched.jobs.errors import UnreachableError
from gpusched.scheduler.sweep.case import Setup
from gpusched.scheduler.sweep.ray_side import OnRay

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

STUDY = ("simulate", "generate:jobs=60,gpus=16", "--nodes", "2x8", "--sweep", "load=0.8,1.2", "--seeds", "4",
         "--policy", "fifo", "--policy", "mine.py:Mine")  # fmt: skip
MINE = """
from gpusched.policies.catalog import load

def Mine():
    policy = load("binpack")
    policy.name = "mine"
    return policy
"""


def test_a_study_on_ray_gives_what_it_gives_here(cli, ray_cluster):  # noqa: F811 - the fixture
    (cli.folder / "mine.py").write_text(MINE)
    here = json.loads(cli(*STUDY, "-o", "json", "-j", "2").stdout)
    there = cli(*STUDY, "-o", "json", "--results", "out", "--ray-address", ray_cluster.address, timeout=150)
    assert json.loads(there.stdout) == here
    assert not [line for line in there.stderr.splitlines() if not line.startswith("simulate: ")], "progress alone"
    assert pq.read_table(cli.folder / "out" / "runs.parquet").num_rows == 16


TELLS = """
import gpusched
from gpusched.policies.catalog import load

def Tells():
    policy = load("fifo")
    def place(shape, pool, nodes):
        raise ValueError(gpusched.__file__)
    object.__setattr__(policy, "place", place)
    return policy
"""


def test_the_code_of_this_checkout_travels_to_the_nodes_and_a_failed_run_is_named(cli, ray_cluster):  # noqa: F811 - the fixture
    (cli.folder / "tells.py").write_text(TELLS)
    words = ("simulate", "generate:jobs=5,gpus=16", "--nodes", "2x8", "--policy", "tells.py:Tells", "--policy", "fifo")
    done = cli(*words, "-o", "csv", "--ray-address", ray_cluster.address, code=1, timeout=150)
    assert "1 of 2 runs failed" in done.stderr
    assert "/py_modules_files/" in done.stderr
    assert len(done.stdout.splitlines()) == 2, "the other run is in the table"


def test_a_driver_that_dies_is_followed_by_another_that_takes_up_what_is_left(ray_cluster):
    from gpusched.cluster.inventory import read_cluster  # noqa: PLC0415 - beside what it is used for
    from gpusched.scheduler.sweep.inputs import cluster_inputs, policy_inputs, trace_inputs  # noqa: PLC0415 - likewise
    from gpusched.scheduler.sweep.study import Study, conduct  # noqa: PLC0415 - likewise

    setup = Setup(
        trace_inputs(["generate:jobs=40"], {}), cluster_inputs(["2x8"], read_cluster), policy_inputs(["fifo"])
    )
    said = []
    makers = OnRay(setup, ray_cluster.address, say=said.append)
    killed = []

    def kill_once(done, _total):
        if done == 2 and not killed:
            killed.append(makers._child.process.pid)
            os.kill(killed[0], signal.SIGKILL)

    outcome = conduct(Study(setup, [()], range(12)), lambda: makers, progress=kill_once)
    assert len(outcome.rows) == 12
    assert not outcome.failures
    assert killed
    assert "starting another one" in said[0]


def test_nothing_at_the_address_is_said_at_once(cli):  # noqa: F811 - the fixture
    said = cli(*STUDY[:-2], "--ray-address", "127.0.0.1:1", code=7).stderr
    assert "nothing answers at 127.0.0.1:1" in said


def test_what_answers_but_is_no_ray_does_not_hang_the_command(monkeypatch):
    import socket  # noqa: PLC0415 - here alone

    monkeypatch.setattr("gpusched.scheduler.sweep.ray_side.CONNECT_WITHIN", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(UnreachableError, match=f"cannot use Ray at {address}"):
            OnRay(Setup({}, {}), address)
