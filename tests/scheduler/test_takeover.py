"""Two control planes on one PostgreSQL and one cluster: one leads, and whatever becomes of it, jobs run once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from live_kit import Plane, spec_text, until

from gpusched.jobs.errors import GpuschedError, StandbyError
from gpusched.jobs.spec import spec_from_document
from gpusched.scheduler.client import Client
from gpusched.scheduler.snapshots import SnapshotStore, pack
from gpusched.scheduler.store.lease import SHARED_TTL
from gpusched.scheduler.store.snapshots import SharedSnapshots
from gpusched.scheduler.store.sql import SqlStore

pytestmark = pytest.mark.postgres

LIVE = Path(__file__).parent / "live"
UNTIL_TOLD = "echo $$ >> {work}; until [ -e {flag} ]; do sleep 0.02; done"


class Site:
    """Control planes by name, each in a home of its own, on one database and one cluster of processes."""

    def __init__(self, folder, database):
        self.folder, self.database = folder, database
        self.cluster = folder / "cluster"
        self.processes, self.urls = {}, {}

    def start(self, name):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (LIVE, LIVE.parents[2] / ".src")))}
        command = [sys.executable, str(LIVE / "local_plane.py"), str(self.folder / name)]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, self.database, str(self.cluster), "shared"],
                stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            )  # fmt: skip
        line = process.stdout.readline()
        assert line, (self.folder / f"{name}.log").read_text()
        self.processes[name], self.urls[name] = process, json.loads(line)["url"]

    def client(self, *names):
        return Client(",".join(self.urls[name] for name in names), "shared")

    def leads(self, name):
        return self.client(name).status()["leader"]

    def kill(self, name, number=signal.SIGKILL):
        self.processes[name].send_signal(number)
        if number == signal.SIGKILL:
            self.processes[name].wait(10)

    def starts(self):
        return [tuple(map(int, line.split())) for line in (self.cluster / "starts").read_text().splitlines()]

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait(10)
            process.stdout.close()
        for pid in self.cluster.glob("*/pid"):
            if not (pid.parent / "exit").exists():
                with contextlib.suppress(ProcessLookupError):  # one that never began has ended by itself
                    os.killpg(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture
def site(tmp_path, postgres):
    one = Site(tmp_path, postgres.migrated_database())
    try:
        one.start("first")
        until(lambda: one.leads("first"))
        one.start("second")
        yield one
    finally:
        one.close()


@pytest.fixture
def running(site):
    """A job that runs until a file is there, and appends its pid to another."""
    flag, work = site.folder / "flag", site.folder / "work"
    spec = spec_from_document({"name": "long", "run": UNTIL_TOLD.format(flag=flag, work=work)})
    job = site.client("first").submit([spec])[0]["id"]
    until(lambda: work.exists() and work.read_text())
    until(lambda: site.client("first").job(str(job))["state"] == "RUNNING")
    return job


def of_the_plane(database):
    """What the journal says of the control planes themselves."""
    store = SqlStore(database)
    try:
        return [event.data for _, event in store.events() if event.kind == "plane"]
    finally:
        store.close()


def ends_once(site, job, names=("second",)):
    """Let it end: it succeeds at its first attempt, and was started once."""
    (site.folder / "flag").touch()
    client = site.client(*names)
    until(lambda: client.job(str(job))["state"] == "SUCCEEDED")
    assert client.job(str(job))["attempt"] == 1
    assert [start for start in site.starts() if start[0] == job] == [(job, 1)]
    assert len((site.folder / "work").read_text().splitlines()) == 1


def test_who_stands_by_answers_what_is_read_and_says_of_all_else_where_the_leader_is(site, running):
    alone = site.client("second")
    assert alone.job(str(running))["state"] == "RUNNING"
    assert (alone.status()["leader"], alone.status()["leader_url"]) == (False, site.urls["first"])
    with pytest.raises(StandbyError) as caught:
        alone._http._try("POST", f"/v1/jobs/{running}/cancel", b"{}", {"Authorization": "Bearer shared"}, 10)
    assert caught.value.leader == site.urls["first"]
    assert "stands by" in caught.value.message
    assert alone.cancel(str(running))["state"] == "STOPPING"  # a client goes there by itself


def test_within_ten_seconds_of_its_death_another_leads_and_goes_on_with_what_runs(site, running):
    client = site.client("first", "second")
    until(lambda: not site.leads("second"))
    site.kill("first")
    died = time.monotonic()
    waiting = client.submit([spec_from_document({"name": "next", "run": "true"})])[0]["id"]  # it finds who leads
    took = time.monotonic() - died
    assert took < 10
    assert took > SHARED_TTL - 3  # not before the lease ran out
    assert client.status()["leader"]
    until(lambda: client.job(str(waiting))["state"] == "SUCCEEDED")
    ends_once(site, running)
    assert any("took over from process" in said["what"] for said in of_the_plane(site.database))


def test_a_lease_that_is_given_back_is_taken_at_once(site, running):
    store = SqlStore(site.database)
    with store.database.write() as connection:  # as a graceful stop leaves it
        connection.exec_driver_sql("UPDATE leases SET owner = '', beat = beat + 1, term = term + 1")
    store.close()
    gave = time.monotonic()
    until(lambda: site.leads("first") != site.leads("second"))
    assert time.monotonic() - gave < SHARED_TTL / 2
    ends_once(site, running, ("first", "second"))


@pytest.mark.timeout(120)
def test_a_leader_that_was_frozen_wakes_to_find_another_and_does_nothing_more(site, running):
    """It had just taken in jobs and was about to start them: what it committed is started by the other, once."""
    site.kill("first", signal.SIGSTOP)
    until(lambda: site.leads("second"), within=15)
    client = site.client("second")
    more = [
        job["id"] for job in client.submit([spec_from_document({"name": f"m{n}", "run": "true"}) for n in range(4)])
    ]
    site.kill("first", signal.SIGCONT)
    until(lambda: not site.leads("first"))
    until(lambda: all(client.job(str(job))["state"] == "SUCCEEDED" for job in more))
    assert sorted(start for start in site.starts() if start[0] in more) == [(job, 1) for job in more]
    ends_once(site, running)
    assert site.leads("second")
    assert not site.leads("first")


@pytest.mark.timeout(120)
def test_a_storm_of_submissions_over_a_takeover_is_kept_whole_and_run_once(site):
    """Whoever was told "accepted" finds its job; each runs at most once a job id."""
    client = site.client("first", "second")
    accepted = []
    for number in range(30):
        accepted.append(client.submit([spec_from_document({"name": f"s{number}", "run": "true"})])[0]["id"])
        if number == 10:
            site.kill("first")
    assert len(set(accepted)) == 30
    until(lambda: all(client.job(str(job))["state"] == "SUCCEEDED" for job in accepted), within=40)
    starts = site.starts()
    assert len(starts) == len(set(starts))
    assert all(client.job(str(job))["attempt"] == 1 or (job, 1) not in starts for job in accepted)


def test_a_clock_that_is_set_ends_no_job(plane):
    """By hours, back and forth, on the machine of the control plane."""
    flag = plane.home / "flag"
    job = plane.submit(f"until [ -e {flag} ]; do sleep 0.02; done", max_duration="20m")["id"]
    until(lambda: plane.job(job)["state"] == "RUNNING")
    before = plane.controller.clock.now()
    for number, by in enumerate((7200.0, -7200.0), 1):
        plane.controller.lease._wall = lambda by=by: time.time() + by
        rebuilds = plane.controller.figures.rebuilds
        plane.controller.lease._renewed -= plane.controller.lease.ttl  # it is time to renew
        plane.controller.wake()
        until(lambda rebuilds=rebuilds: plane.controller.figures.rebuilds > rebuilds)
        assert abs(plane.controller.clock.now() - before - by) < 60
        jumps = [said["by"] for _, event in plane.store.events() if event.kind == "plane" for said in [event.data]]
        assert [round(jump, -2) for jump in jumps] == [7200.0, -14400.0][:number]
        found = plane.job(job)
        assert (found["state"], found["attempt"]) == ("RUNNING", 1)
    flag.touch()
    done = plane.wait(job)
    assert done["state"] == "SUCCEEDED"
    attempt = plane.job(job)["attempts"][0]
    took = datetime.fromisoformat(attempt["ended"]) - datetime.fromisoformat(attempt["started"])
    assert 0 <= took.total_seconds() < 60


def test_a_workdir_that_one_took_in_is_on_the_disk_of_the_other_before_it_leads(tmp_path, postgres):
    url = postgres.migrated_database()
    stores = [SqlStore(url), SqlStore(url)]
    one, other = (
        SnapshotStore(tmp_path / name, SharedSnapshots(store)) for name, store in zip("ab", stores, strict=True)
    )
    work = tmp_path / "work"
    work.mkdir()
    (work / "data").write_bytes(os.urandom(3 << 20))  # more than one part
    packed = pack(work, tmp_path)
    assert not one.has(packed.sha256)
    with one.receive(packed.sha256) as incoming:
        incoming.write(packed.path.read_bytes())
        incoming.commit()
    assert (other.follow(), other.follow()) == (1, 0)
    assert other.path(packed.sha256).read_bytes() == packed.path.read_bytes()
    other.path(packed.sha256).unlink()
    assert other.has(packed.sha256)  # and it is there again
    assert one.collect(set, time.time() + 7200) == 1
    assert not one.has(packed.sha256)
    for store in stores:
        store.close()


def test_a_postgres_that_is_switched_off_and_on_loses_nothing(site, running, postgres):
    client = site.client("first", "second")
    postgres.halt()
    with pytest.raises(GpuschedError, match="does not answer"):
        site.client("first").submit([spec_from_document({"name": "refused", "run": "true"})])
    postgres.start()
    accepted = until(lambda: taken_in(client, "accepted"))
    until(lambda: client.job(str(accepted))["state"] == "SUCCEEDED")
    assert sorted(job["name"] for job in client.jobs(all_states=True)) == ["accepted", "long"]
    ends_once(site, running, ("first", "second"))


def taken_in(client, name):
    """The id of a job that was accepted; None = not yet."""
    try:
        return client.submit([spec_from_document({"name": name, "run": "true"})])[0]["id"]
    except GpuschedError:
        return None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_runs_full_refuses_what_is_new_and_goes_on_by_itself(tmp_path):
    """Also what ends meanwhile is written once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    plane = None
    try:
        plane = Plane(tmp_path / "home", database=str(disk / "gpusched.db"))
        flag = tmp_path / "flag"
        job = plane.submit(f"until [ -e {flag} ]; do sleep 0.02; done")["id"]
        until(lambda: plane.job(job)["state"] == "RUNNING")
        with contextlib.suppress(OSError), (disk / "ballast").open("wb") as ballast:
            while True:
                ballast.write(bytes(1 << 12))
                ballast.flush()
        reply = plane.post("/v1/jobs", {"jobs": [{"spec": spec_text(name="x" * 100)} for _ in range(200)]})
        assert reply.status == 503, reply.body
        assert "disk full" in reply.json["error"]["message"]
        assert plane.job(job)["state"] == "RUNNING"  # reads are answered
        flag.touch()
        until(lambda: plane.get("/v1/status").json["engine"]["store_error"])
        (disk / "ballast").unlink()
        assert plane.wait(job)["state"] == "SUCCEEDED"
        assert plane.wait(plane.submit("true")["id"])["state"] == "SUCCEEDED"
        assert plane.store.last_job_id() in {2, 202}  # numbers may be left out, jobs are not
    finally:
        if plane is not None:
            plane.close()
        subprocess.run(["umount", "-l", str(disk)], check=True)
