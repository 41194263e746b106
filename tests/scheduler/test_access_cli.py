"""People at the command line: let in, logged in, told what they may not do and what to do about it."""

import json
import stat

from certificates import Authority
from cli_kit import cli  # noqa: F401 - a fixture, found by name
from live_kit import until

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is tested


def log_in(cli, at, name, role="user"):  # noqa: F811 - the fixture
    """The command line of somebody else, on a machine without a control plane; and their token."""
    at("users", "add", name, "--role", role)
    token = at("token", "create", "--user", name).stdout.strip()
    theirs = cli.folder / name
    theirs.mkdir()
    environment = {"HOME": str(theirs), "XDG_CONFIG_HOME": str(theirs), "GPUSCHED_HOME": str(theirs / "none"),
                   "GPUSCHED_ADDRESS": "", "GPUSCHED_TOKEN": ""}  # fmt: skip

    def run(*words, **more):
        return cli(*words, **(environment | more))

    return run, token


def test_who_is_logged_in_submits_as_themselves_and_is_told_what_takes_another_role(plane, cli):  # noqa: F811 - the fixture
    at = cli.at(plane)
    bob, token = log_in(cli, at, "bob")
    said = bob("login", plane.server.url, stdin=f"{token}\n").stdout
    assert f"you are bob (role user) at {plane.server.url}" in said
    kept = cli.folder / "bob" / "gpusched" / "credentials.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert token not in said
    assert bob("whoami").stdout.startswith("bob, role user, token ends in 89d23h")
    number = bob("submit", "-q", "--hold", "--", "true").stdout.strip()
    assert json.loads(bob("ps", "-o", "json").stdout)["jobs"][0]["user"] == "bob"
    foreign = at("submit", "-q", "--hold", "--", "true").stdout.strip()
    refused = bob("cancel", foreign, code=6).stderr
    assert f"error: bob (role user) may not `cancel` job {foreign}: it is ann's; it takes role operator" in refused
    assert "hint: ask an admin for it: `gpusched users role bob operator`" in refused
    assert bob("users", "list", code=6).stderr.splitlines()[0].endswith("it takes role admin")
    at("users", "role", "bob", "operator")
    bob("cancel", number, foreign)
    rows = json.loads(at("audit", "--user", "bob", "--verb", "cancel", "-o", "json").stdout)["audit"]
    assert {row["on"] for row in rows if row["outcome"] == "done"} == {f"job {number}", f"job {foreign}"}


def test_a_token_that_is_no_more_good_says_log_in_again_with_exit_code_6(plane, cli):  # noqa: F811 - the fixture
    at = cli.at(plane)
    bob, token = log_in(cli, at, "bob")
    bob("login", plane.server.url, stdin=token)
    listed = json.loads(at("token", "list", "--all", "-o", "json").stdout)["tokens"][0]
    assert (listed["user"], listed["state"]) == ("bob", "good")
    at("token", "revoke", listed["id"])
    refused = bob("ps", code=6).stderr
    assert f"error: token {listed['id']} was revoked" in refused
    assert "gpusched login" in refused
    bob("logout", plane.server.url)
    assert "needs a token" in bob("submit", "--", "true", code=6).stderr
    assert bob("login", plane.server.url, stdin="hunter2\n", code=1).stderr.startswith("error: that is no token")
    unknown = "gsk_" + "a" * 10 + "_" + "b" * 43
    assert "is not the control plane's" in bob("login", plane.server.url, stdin=unknown, code=6).stderr


def test_a_token_is_sent_to_the_url_it_was_kept_for_and_to_no_other(plane, plane_in, cli):  # noqa: F811 - the fixture
    at = cli.at(plane)
    bob, token = log_in(cli, at, "bob")
    bob("login", plane.server.url, stdin=token)
    other = plane_in("other")
    bob("whoami", "--address", other.server.url)  # as who asks on loopback, without a token
    assert "needs a token" in bob("submit", "--address", other.server.url, "--", "true", code=6).stderr
    assert other.get("/v1/audit").json["lines"] == []


def test_a_file_with_a_token_that_others_may_read_is_warned_of(plane, cli):  # noqa: F811 - the fixture
    at = cli.at(plane)
    bob, token = log_in(cli, at, "bob")
    bob("login", plane.server.url, stdin=token)
    kept = cli.folder / "bob" / "gpusched" / "credentials.json"
    kept.chmod(0o644)
    warned = bob("ps").stderr
    assert f"warning: {kept} holds a token and others may read it: `chmod 600 {kept}`" in warned
    assert token not in warned


def test_a_disabled_user_is_out_at_once_and_their_jobs_go_on(plane, cli):  # noqa: F811 - the fixture
    at = cli.at(plane)
    bob, token = log_in(cli, at, "bob")
    job = bob("submit", "-q", "--", "sleep 60", GPUSCHED_TOKEN=token, GPUSCHED_URL=plane.server.url).stdout.strip()
    until(lambda: plane.job(job)["state"] == "RUNNING")
    at("users", "disable", "bob")
    assert "user bob is disabled" in bob("ps", code=6, GPUSCHED_TOKEN=token, GPUSCHED_URL=plane.server.url).stderr
    assert plane.job(job)["state"] == "RUNNING"
    at("users", "enable", "bob")
    at("users", "groups", "bob", "nlp,staff")
    rows = json.loads(at("users", "list", "-o", "json").stdout)["users"]
    assert (rows[0]["groups"], rows[0]["disabled"], rows[0]["tokens"]) == (["nlp", "staff"], False, 1)
    at("users", "remove", "bob")
    assert json.loads(at("users", "list", "-o", "json").stdout)["users"] == []


def test_beyond_loopback_without_tls_it_does_not_start_unless_told_so(cli):  # noqa: F811 - the fixture
    refused = cli("up", "--ray-address", "none", "--host", EVERYWHERE, "--port", "16899", code=1).stderr
    assert "listening at 0.0.0.0 without TLS would send every token in clear text" in refused
    assert "--tls-cert FILE --tls-key FILE" in refused
    assert "--insecure" in refused
    try:
        cli("up", "--ray-address", "none", "--host", EVERYWHERE, "--port", "16899", "--insecure")
        log = (cli.home / "control-plane.log").read_text()
        assert "is plain HTTP beyond this machine: tokens travel in clear text" in log
        assert (
            "needs a token" in cli("ps", code=6, GPUSCHED_URL="http://127.0.0.1:16899", GPUSCHED_HOME="/nowhere").stderr
        )
    finally:
        cli("down", code=None)


def test_a_control_plane_with_tls_is_started_spoken_to_and_stopped(cli, tmp_path):  # noqa: F811 - the fixture
    lab = Authority(tmp_path)
    certificate, key = lab.sign("localhost")
    up = ("up", "--ray-address", "none", "--host", EVERYWHERE, "--port", "16898")
    try:
        cli(*up, "--tls-cert", str(certificate), "--tls-key", str(key))
        assert cli("status").stdout.split()[2] == "https://127.0.0.1:16898"
        cli("users", "add", "bob")
        token = cli("token", "create", "--user", "bob").stdout
        theirs = {"GPUSCHED_HOME": "/nowhere", "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        refused = cli("login", "https://localhost:16898", stdin=token, code=7, **theirs).stderr
        assert "its certificate is not trusted" in refused
        cli("login", "https://localhost:16898", "--ca", str(lab.file), stdin=token, **theirs)
        assert cli("whoami", **theirs).stdout.startswith("bob, role user")
        assert "speaks HTTPS" in cli("whoami", code=7, **theirs, GPUSCHED_URL="http://localhost:16898").stderr
    finally:
        cli("down")
    half = cli("up", *up[1:3], "--tls-cert", str(certificate), code=1).stderr
    assert "error: the control plane did not start: a certificate and its key go together" in half


def test_no_verb_takes_a_token_from_the_command_line_where_others_could_read_it(cli):  # noqa: F811 - the fixture
    for verb in ("login", "logout", "token", "submit", "up", "ps"):
        assert "--token" not in cli(verb, "--help").stdout
