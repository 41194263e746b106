"""The embedded default: a control plane that the command line starts, finds again and stops. No Ray: jobs queue up."""

from __future__ import annotations

import json
import os
import signal

import pytest
from cli_kit import cli  # noqa: F401 - a fixture, found by name
from live_kit import until


@pytest.fixture
def home(cli):  # noqa: F811 - the fixture
    """The command line; what it started is stopped after the test."""
    yield cli
    if (cli.home / "control-plane.json").exists():
        cli("down", "--force", code=None)


def status(home):
    return json.loads(home("status", "-o", "json").stdout)


def test_submit_starts_a_control_plane_and_the_next_one_finds_it(home):
    assert home("submit", "-q", "--", "true").stdout == "1\n"
    first = status(home)
    assert home("submit", "-q", "--", "true").stdout == "2\n"
    assert status(home)["pid"] == first["pid"]
    assert first["policy"]["name"]
    assert home("ps", "-q").stdout == "1\n2\n"
    assert home("down").stdout.startswith("stopped the control plane")
    assert "gpusched up" in home("ps", code=7).stderr


def test_two_that_start_one_at_once_get_the_same(home):
    both = [home.start("submit", "-q", "--", "true") for _ in range(2)]
    ids = [process.communicate(timeout=60)[0].strip() for process in both]
    assert sorted(ids) == ["1", "2"]


def test_up_is_repeatable_and_does_not_change_what_runs(home):
    said = home("up", "--policy", "gang").stdout
    assert "Policy:        gang/" in said
    pid = status(home)["pid"]
    home("up")
    assert status(home)["pid"] == pid
    refused = home("up", "--policy", "fifo", code=8).stderr
    assert "runs already, with policy gang" in refused
    assert "gpusched down --keep-ray" in refused


def test_what_was_accepted_outlives_a_kill_and_the_next_submit_starts_anew(home):
    home("submit", "-q", "-n", "kept", "--", "true")
    pid = status(home)["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: home("ps", code=None).returncode == 7)
    assert home("submit", "-q", "-n", "next", "--", "true").stdout == "2\n"
    assert home("ps", "-o", "name").stdout == "kept\nnext\n"


def test_the_token_file_is_its_owners_alone(home):
    home("submit", "-q", "--", "true")
    assert (home.home / "control-plane.json").stat().st_mode & 0o077 == 0


def test_doctor_looks_at_this_machine_and_says_how_to_mend(home):
    done = home("doctor", "-o", "json", code=None)
    checks = json.loads(done.stdout)["checks"]
    assert done.returncode in {0, 1}
    assert {check["status"] for check in checks} <= {"ok", "warn", "fail", "skip"}
    assert all(check["fix"] for check in checks if check["status"] in {"warn", "fail"})
    assert home("doctor", code=None).stdout.startswith("CHECK")
