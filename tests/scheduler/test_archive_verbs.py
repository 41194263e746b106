"""Archived jobs over HTTP and on the command line: they read as before, and nothing stops meanwhile."""

from __future__ import annotations

import pytest
from live_kit import until

from gpusched.scheduler.archivist import Archivist
from gpusched.scheduler.client import Client
from gpusched.scheduler.settings import ArchivePolicy
from gpusched.scheduler.store.archive import Archive


@pytest.fixture
def archived(plane, tmp_path):
    """A control plane whose first two jobs are in files; a third has just ended."""
    plane.service.archive = Archive(plane.store, tmp_path / "archive")
    for number in (1, 2, 3):
        job = plane.submit("echo hello; exit 3" if number == 2 else "true", name=f"old-{number}", gpus=1)
        plane.wait(job["id"])
    plane.before = {path: plane.get(path).json for path in paths()}
    assert plane.post("/v1/archive", {"after": "1d"}).json == {"rows": 0}
    assert plane.post("/v1/archive", {"after": "0s"}).json["rows"] > 0
    return plane


def paths() -> list[str]:
    return ["/v1/jobs/1", "/v1/jobs/2/events", "/v1/jobs/2/explain", "/v1/jobs/old-2", "/v1/usage?by=user&until=4e9"]


def test_describe_explain_events_export_and_report_find_what_is_archived(archived):
    plane = archived
    left = [job["id"] for job in plane.get("/v1/jobs?all=1").json["jobs"]]
    assert left == [3]
    for path, before in plane.before.items():
        now = plane.get(path).json
        if "usage" in now:
            now["usage"]["gpu_hours_allocated"] = before["usage"]["gpu_hours_allocated"]
        if "rows" in now:
            assert [row["jobs"] for row in now["rows"]] == [row["jobs"] for row in before["rows"]]
            assert now["rows"][0]["gpu_hours_allocated"] == pytest.approx(before["rows"][0]["gpu_hours_allocated"])
            continue
        assert now == before, path
    exported = plane.get("/v1/export").body.decode()
    assert [name in exported for name in ("old-1", "old-2", "old-3")] == [True] * 3
    assert plane.get("/v1/jobs/old-9").status == 404
    reply = plane.post("/v1/jobs/1/cancel")
    assert (reply.status, "SUCCEEDED already" in reply.json["error"]["message"]) == (409, True)


def test_new_jobs_get_new_numbers_after_a_restart_on_an_archived_history(archived, plane_in):
    archived.close()
    again = plane_in()
    assert again.submit("true", gpus=1)["id"] == 4
    assert again.get("/v1/jobs/1").json["name"] == "old-1"


def test_the_parts_are_listed_verified_and_put_back(archived, tmp_path):
    client = Client(archived.server.url, archived.server.token)
    parts = client.archive_parts()
    assert [part["jobs"] for part in parts] == [2, 0]
    assert all(part["state"] == "moved" for part in parts)
    assert client.verify_archive() == []
    (tmp_path / "archive" / "part-000001-events.parquet").unlink()
    assert "is not there" in client.verify_archive()[0]
    reply = archived.get("/v1/jobs/1")
    assert reply.status == 503
    assert "part-000001-events.parquet" in reply.json["error"]["message"]
    assert client.restore_archive(parts[1]["part"]) > 0
    assert len(client.archive_parts()) == 1
    assert archived.post("/v1/archive/99/restore").status == 404
    assert archived.post("/v1/archive", {"after": "soon"}).status == 400


def test_the_archivist_works_by_itself_while_jobs_run(plane, tmp_path):
    policy = ArchivePolicy(after=0.0, every=1.0)
    archivist = Archivist(
        Archive(plane.store, tmp_path), policy, lambda: plane.controller.figures.leader, plane.controller.clock.now
    )
    first = plane.submit("true", gpus=1)
    plane.wait(first["id"])
    runs = plane.submit("sleep 60", gpus=1)
    plane.wait(runs["id"], until_state="running")
    archivist.start()
    until(lambda: plane.get("/v1/archive").json["parts"])
    archivist.stop()
    assert not archivist.trouble
    assert plane.job(runs["id"])["state"] == "RUNNING"
    assert plane.job(first["id"])["state"] == "SUCCEEDED"
    kinds = [event["kind"] for event in plane.get(f"/v1/jobs/{runs['id']}/events").json["events"]]
    assert kinds == ["submitted", "placed", "started"]
    plane.post(f"/v1/jobs/{runs['id']}/cancel")
