"""Every released version, run for real: its files open here, its clients are served here, ours are served there.

`releases/` holds the source of each release, without what only simulations need.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from gpusched.scheduler import migrations

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.tar.xz"))
OURS = Path(__file__).parents[2] / ".src"


class Release:
    """The command line of one release, in the folder and the state directory that both share."""

    def __init__(self, source: Path, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(source),
            "HOME": str(folder),
            "USER": "ann",
            "LOGNAME": "ann",
            "LANG": "C.UTF-8",
            "GPUSCHED_HOME": str(folder / "state"),
            "GPUSCHED_RAY_ADDRESS": "none",
            **environment,
        }

    def __call__(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = self.python("-m", "gpusched.scheduler.cli", *words)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *words: str) -> dict:
        return json.loads(self(*words, "-o", "json").stdout)

    def python(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.folder,
            env=self.environment,
            check=False,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture(params=RELEASES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def released(request, tmp_path):
    """Where the source of a release lies, unpacked."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path / "released", filter="data")
    return tmp_path / "released" / ".src"


@pytest.fixture
def both(released, tmp_path):
    """(the older release, ours), on one state directory; what they started is stopped after the test."""
    folder = tmp_path / "user"
    folder.mkdir()
    older, ours = Release(released, folder), Release(OURS, folder)
    yield older, ours
    if (folder / "state" / "control-plane.json").exists():
        ours.python("-m", "gpusched.scheduler.cli", "down", "--force")


PLAIN = """\
name: plain
run: echo hello
resources: {accelerators: 1}
max_duration: 1h
retry: {limit: 2, on: [failure, lost]}
secrets: {TOKEN: not-a-real-one}
checkpoint: {grace: 30s}
"""


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return name


def every_day(client: Release) -> None:
    """What a client does on an ordinary day, all of it understood by the other side."""
    file = write(client.folder, "plain.yaml", PLAIN)
    first = int(client("submit", "-q", "--queue-anyway", file).stdout)
    assert client("submit", "-q", "--hold", "--queue-anyway", "--gpus", "2", "--", "echo hello").stdout
    (found,) = client.json("describe", str(first))["jobs"]
    assert (found["name"], found["state"], found["limit"]) == ("plain", "QUEUED", 3600)
    assert "not-a-real-one" not in client("describe", str(first)).stdout
    assert "no nodes" in client("explain", str(first)).stdout
    assert "is held" in client("hold", str(first)).stdout
    assert "is released" in client("release", str(first)).stdout
    assert [job["id"] for job in client.json("ps")["jobs"]] == [first, first + 1]
    assert "no nodes yet" in client("nodes").stderr
    assert client("queues", "list").stdout
    assert client("policy", "use", "gang").stdout
    assert client.json("status")["policy"]["name"] == "gang"
    assert "is cancelled" in client("cancel", str(first)).stdout


def test_our_client_is_served_by_an_older_control_plane(both):
    older, ours = both
    older("up")
    every_day(ours)


def test_an_older_client_is_served_by_our_control_plane(both):
    older, ours = both
    ours("up")
    every_day(older)


def test_what_an_older_control_plane_does_not_know_is_refused_with_both_versions_and_nothing_is_queued(both):
    older, ours = both
    older("up")
    file = write(ours.folder, "new.yaml", "run: echo hello\nretry: {limit: 2, rules: [{on: 'exit:3', do: fail}]}\n")
    refused = ours("submit", "--queue-anyway", file, code=1).stderr
    assert "rules" in refused
    assert "the control plane's is 0.1.0 or older" in refused
    refused = ours("drain", "node-a", code=3).stderr
    assert "the control plane's is 0.1.0 or older" in refused
    assert ours.json("ps", "-a")["jobs"] == []


def test_a_site_goes_on_after_its_upgrade_and_can_go_back_to_the_copy(both):
    older, ours = both
    older("up")
    file = write(older.folder, "plain.yaml", PLAIN)
    older("submit", "-q", "--queue-anyway", file)
    older("down")
    ours("up")
    assert [job["name"] for job in ours.json("ps")["jobs"]] == ["plain"]
    ours("submit", "-q", "--queue-anyway", file)
    ours("down")
    assert "written by a newer gpusched" in older("up", code=1).stderr
    state = older.folder / "state"
    (copy,) = state.glob("gpusched.db.schema-*")
    assert b"not-a-real-one" in copy.read_bytes()  # it is the file as it was: keep it as closely
    assert copy.stat().st_mode & 0o777 == 0o600
    copy.replace(state / "gpusched.db")
    for log in ("gpusched.db-wal", "gpusched.db-shm"):
        (state / log).unlink(missing_ok=True)
    older("up")
    assert [job["name"] for job in older.json("ps")["jobs"]] == ["plain"]


@pytest.mark.postgres
def test_a_postgresql_database_of_an_older_release_is_copied_and_opens(released, tmp_path, postgres, open_store):
    url = postgres.new_database()
    older = Release(released, tmp_path)
    made = older.python(
        "-c",
        "import sys\n"
        "from gpusched.jobs.events import Event, Kind\n"
        "from gpusched.jobs.job import Job, Shape\n"
        "from gpusched.scheduler.store.sql import SqlStore\n"
        "store = SqlStore(sys.argv[1])\n"
        "job = Job(7, Shape(gpus=2), 5.0, name='kept', user='ann')\n"
        "store.commit(jobs=[job], events=[Event(5.0, Kind.SUBMITTED, 7, 0, job)])\n",
        url,
    )
    assert made.returncode == 0, made.stderr
    store = open_store(url)
    assert store.upgraded_from in migrations.REVISIONS[:-1]
    (job,) = store.unfinished()
    assert (job.id, job.name, job.user, job.shape.gpus) == (7, "kept", "ann", 2)
    copy = f"{url}&options=-csearch_path%3Dgpusched_schema_{store.upgraded_from}"
    goes_on = "import sys; from gpusched.scheduler.store.sql import SqlStore as S; print(S(sys.argv[1]).job(7).name)"
    assert older.python("-c", goes_on, copy).stdout == "kept\n"
    assert "written by a newer gpusched" in older.python("-c", goes_on, url).stderr
