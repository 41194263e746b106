"""Where a setting comes from, and what is said of one that cannot be."""

from __future__ import annotations

import pytest

from gpusched.jobs.errors import NotAllowedError, SpecError, UnreachableError
from gpusched.scheduler.client import connect
from gpusched.scheduler.config import KEYS, load


@pytest.fixture
def places(tmp_path):
    """A project, a user and a system, each with a file to write."""
    project, home = tmp_path / "project", tmp_path / "home"
    (project / "deep").mkdir(parents=True)
    (home / "gpusched").mkdir(parents=True)
    files = {
        "project": project / ".gpusched.yaml",
        "user": home / "gpusched" / "config.yaml",
        "system": tmp_path / "system.yaml",
    }

    def read(flags=None, environ=None, **texts):
        for kind, text in texts.items():
            files[kind].write_text(text)
        variables = {"XDG_CONFIG_HOME": str(home), "GPUSCHED_HOME": str(tmp_path / "state"), **(environ or {})}
        return load(flags, variables, project / "deep", system=files["system"])

    read.files = files
    return read


def test_each_place_wins_over_those_below_it(places):
    texts = {"project": "queue: of-project", "user": "queue: of-user", "system": "queue: of-system\npolicy: gang"}
    config = places({"queue": "of-flag"}, {"GPUSCHED_QUEUE": "of-environment"}, **texts)
    found = []
    while config.layers:
        found.append(config["queue"])
        config.layers.pop(0)
    found.append(config["queue"])
    assert found == ["of-flag", "of-environment", "of-project", "of-user", "of-system", "default"]


def test_the_origin_names_the_flag_the_variable_or_the_line(places):
    config = places({"address": "http://h:1"}, {"GPUSCHED_POLICY": "gang"}, project="# mine\nqueue: research\n")
    assert config.find("address")[0].origin == "--address"
    assert config.find("policy")[0].origin == "GPUSCHED_POLICY"
    assert config.find("queue")[0].origin == f"{places.files['project']}:2"
    assert config.find("output")[0].origin == "default"


def test_every_fault_of_every_file_is_reported_at_once_with_its_place(places):
    with pytest.raises(SpecError) as refused:
        places(
            environ={"GPUSCHED_PORT": "many"},
            project="quueue: x\noutput: pdf\naddress: [a]\n",
            user="just text",
        )
    said = str(refused.value)
    assert "GPUSCHED_PORT: cannot be 'many' (a number from 1 to 65535)" in said
    assert ".gpusched.yaml:1:1: quueue: unknown key (did you mean `queue`?)" in said
    assert ".gpusched.yaml:2:9: output: cannot be 'pdf'" in said
    assert ".gpusched.yaml:3:10: address: must be one value, not a list" in said
    assert "config.yaml:1:1: must be `key: value` lines" in said
    assert refused.value.exit_code == 4


@pytest.mark.parametrize("text", ["queue: [", "a: &a [*a]", "queue: x\nqueue: y", "\x00", "- " * 100])
def test_a_file_that_is_no_yaml_is_a_fault_and_no_crash(places, text):
    with pytest.raises(SpecError):
        places(project=text)


def test_an_empty_file_and_empty_values_change_nothing(places):
    config = places(project="# nothing\n", user="queue:\n", environ={"GPUSCHED_QUEUE": "  "})
    assert config["queue"] == "default"


def test_values_stay_as_they_are_written(places):
    assert places(user="queue: 007\nuser: on\n")["queue"] == "007"


@pytest.mark.parametrize("address", ["h", "ftp://h:1", "http://", "h:x"])
def test_an_address_that_cannot_be_is_refused(places, address):
    with pytest.raises(SpecError, match="HOST:PORT"):
        places({"address": address})


def test_a_users_token_is_not_sent_where_a_project_says(places):
    config = places(project="address: http://evil.example:80", user="token: secret")
    with pytest.raises(NotAllowedError, match="not sent") as refused:
        connect(config)
    assert "GPUSCHED_ADDRESS" in refused.value.hint
    trusted = places({"address": "http://evil.example:80"}, project="queue: x", user="token: secret")
    assert connect(trusted).token == "secret"  # noqa: S105 - nobody's
    own = places(project="address: http://evil.example:80\ntoken: theirs")
    assert connect(own).token == "theirs"  # noqa: S105 - nobody's


def test_without_an_address_and_without_a_control_plane_it_says_how_to_start_one(places):
    with pytest.raises(UnreachableError, match="no control plane is running") as refused:
        connect(places())
    assert "gpusched up" in refused.value.hint


def test_the_token_of_this_machine_goes_to_its_own_address_only(places, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / "control-plane.json").write_text('{"url": "http://127.0.0.1:6810", "token": "t", "pid": 1}')
    home = {"home": str(state)}
    assert connect(places(home)).token == "t"  # noqa: S105 - nobody's
    assert connect(places({**home, "address": "127.0.0.1:6810"})).token == "t"  # noqa: S105 - nobody's
    assert connect(places({**home, "address": "http://10.0.0.1:6810"})).token == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1}'])
def test_a_damaged_state_file_is_said_to_be_so(places, tmp_path, text):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "control-plane.json").write_text(text)
    with pytest.raises(UnreachableError, match="damaged"):
        connect(places({"home": str(tmp_path / "state")}))


def test_every_key_has_a_meaning():
    assert all(about.meaning for about in KEYS.values())
