"""What the gateway's process is told: Ray's token reaches it, the control plane's own does not."""

import pytest

from gpusched.cluster.ray.gateway_process import PERHAPS
from gpusched.cluster.ray.pipe import environment
from gpusched.cluster.ray.supervisor import environment as job_environment


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"])
def test_the_token_of_a_cluster_that_was_joined_is_handed_on_and_used(monkeypatch, name):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv(name, "theirs")
    found = environment("")
    assert (found[name], found[PERHAPS]) == ("theirs", "1"), "if the cluster wants one"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    found = environment("")
    assert (found["RAY_AUTH_MODE"], PERHAPS in found) == ("disabled", False), "what the user said counts"


def test_the_token_of_the_local_ray_is_named_by_its_file(tmp_path):
    found = environment(str(tmp_path / "token"))
    assert (found["RAY_AUTH_MODE"], found["RAY_AUTH_TOKEN_PATH"]) == ("token", str(tmp_path / "token"))


def test_no_token_reaches_a_plain_command(monkeypatch):
    monkeypatch.setenv("GPUSCHED_TOKEN", "gsk_of_an_admin")
    assert "GPUSCHED_TOKEN" not in environment("")
    inherited = {"GPUSCHED_TOKEN": "gsk_of_an_admin", "RAY_AUTH_TOKEN": "secret", "HOME": "/root"}
    found = job_environment(inherited, {})
    assert {"GPUSCHED_TOKEN", "RAY_AUTH_TOKEN"} & found.keys() == set()
    # One that a job brings itself is its own business.
    assert job_environment(inherited, {"GPUSCHED_TOKEN": "gsk_its_own"})["GPUSCHED_TOKEN"] == "gsk_its_own"  # noqa: S105 - nobody's
