"""A secret goes from the submitter's environment into the job's processes and nowhere else: files, processes, Ray."""

import contextlib
import json
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from site_kit import Site, until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SENTINEL = "s3ntinel-that-shows-nowhere-4711"
RUN = 'echo "got ${{#SITE_TOKEN}}"; until [ -e {flag} ]; do sleep 0.05; done; echo end'


@pytest.fixture
def site():
    folder = Path(tempfile.mkdtemp(prefix="gs", dir="/tmp"))
    made = Site(folder, {"SITE_TOKEN": SENTINEL})
    made.began = time.time()
    try:
        yield made
    finally:
        made.down()
        shutil.rmtree(folder, ignore_errors=True)


def processes_with(words):
    """(pid, where, whether it is a process of a job) of processes that show it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes()
            of_job = b"\0GPUSCHED_JOB_ID=" in b"\0" + environment
            if words in (entry / "cmdline").read_bytes():
                found.append((entry.name, "arguments", of_job))
            if words in environment:
                found.append((entry.name, "environment", of_job))
    return found


def files_with(words, folders, since):
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_mtime >= since and words in path.read_bytes():
                    found.append(str(path))
    return found


def ray_says(site):
    """What Ray's dashboard and State API tell of actors, tasks, jobs and workers."""
    ray = json.loads((site.home / "ray.json").read_text())
    token = Path(ray["token_file"]).read_text().strip()
    said = b""
    for path in ("api/v0/actors?detail=1", "api/v0/tasks?detail=1", "api/v0/jobs?detail=1", "api/v0/workers?detail=1",
                 "api/v0/placement_groups?detail=1", "api/v0/objects?detail=1", "logical/actors"):  # fmt: skip
        request = urllib.request.Request(f"{ray['dashboard']}/{path}", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own Ray's
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - as above
            said += reply.read()
    return said


def test_a_secret_is_in_the_processes_of_its_job_and_nowhere_else(site, tmp_path):
    site.gpusched("up", within=180)
    flag = tmp_path / "flag"
    (site.folder / "job.yaml").write_text(
        f"name: secret\nsecrets: [SITE_TOKEN]\nresources: {{cpus: 0.1}}\nrun: |\n  {RUN.format(flag=flag)}\n"
    )
    job = site.submit("job.yaml")
    site.running(job)
    until(lambda: f"got {len(SENTINEL)}" in site.gpusched("logs", job))
    words = SENTINEL.encode()

    shown = processes_with(words)
    assert {where for _, where, of_job in shown if of_job} == {"environment"}, "the job does not have its secret"
    assert [one for one in shown if not one[2]] == []
    owned = [b"GPUSCHED_TOKEN=", b"GPUSCHED_SECRET_KEY="]
    for pid in site.marked(job):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert not any(b"\0" + name in environment for name in owned)

    ray = json.loads((site.home / "ray.json").read_text())
    folders = [
        site.folder,
        Path(ray["folder"]),
        Path(tempfile.gettempdir(), f"gpusched-{os.getuid()}"),
        Path("/dev/shm"),  # noqa: S108 - where Ray shares memory
    ]
    assert files_with(words, folders, site.began) == []
    said = ray_says(site)
    assert b"gs:" in said, "Ray's State API did not answer"
    assert words not in said
    for verb in (
        ["describe", job, "-o", "json"],
        ["explain", job],
        ["ps", "-A", "-o", "yaml"],
        ["logs", job],
        ["export", "-"],
        ["secrets", "keys"],
        ["submit", "--dry-run", "-o", "json", "job.yaml"],
    ):
        assert SENTINEL not in site.gpusched(*verb)

    site.gpusched("secrets", "rotate-key")
    flag.touch()
    site.gpusched("wait", job, "--timeout", "60s")
    assert site.state(job) == "SUCCEEDED"
    assert files_with(words, folders, site.began) == []
    assert processes_with(words) == []
